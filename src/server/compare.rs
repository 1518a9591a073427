//! The leader compares the members' states (`consensus::Landmarks`).
//!
//! ```text
//! every second: digests of all ─► equal ─► rest
//!                               ─► a minority differs ─► it is told ─► which keys? ─► named in the log
//!                               ─► nobody knows who is right ─► the CORRUPT alarm, for whoever differs from the leader
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::apply::{AlarmKind, AlarmOp, Command};
use crate::consensus::peer::Digests;
use crate::consensus::{Node, PARTS, Verdict, judge, longer};
use crate::ops::data_dir::DataDirError;
use crate::propose::Proposer;
use crate::types::{MemberId, RaftIndex, RequestError};

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(1);
/// How long a member may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Keys that are named of those that differ.
const KEYS_MAX: usize = 10;
/// Rounds in which the state after a landmark is waited for, to name the keys.
const SEARCH_ROUNDS_MAX: u32 = 600;

/// Writes down after which entry this member's state was found to differ.
pub(super) type Mark = Box<dyn Fn(RaftIndex) -> Result<(), DataDirError> + Send + Sync>;

/// Compares while this member leads.
pub(super) struct Comparer {
    node: Node,
    proposer: Proposer,
    /// Notes durably that this member's state differs; until it could.
    mark: Option<Mark>,
    /// Who was found to differ, and is dealt with.
    found: BTreeSet<MemberId>,
    /// Whose keys are searched, and for how many rounds yet.
    searched: Option<(MemberId, u32)>,
}

impl Comparer {
    /// `mark` notes durably that this member's own state differs.
    pub(super) fn new(node: Node, proposer: Proposer, mark: Mark) -> Self {
        Self { node, proposer, mark: Some(mark), found: BTreeSet::new(), searched: None }
    }

    /// Runs until the task is aborted.
    pub(super) fn spawn(mut self) -> JoinHandle<()> {
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(EVERY);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                self.remember();
                if self.node.status().is_leader() {
                    self.round().await;
                } else {
                    self.found.clear();
                    self.searched = None;
                }
            }
        })
    }

    /// A start must not serve what was found to be wrong before.
    fn remember(&mut self) {
        if let Some(index) = self.node.status().diverged()
            && let Some(mark) = &self.mark
        {
            match mark(index) {
                Ok(()) => self.mark = None,
                Err(error) => tracing::warn!(%error, "that this member differs could not be noted; it will be"),
            }
        }
    }

    async fn round(&mut self) {
        let me = self.node.status().member();
        let others: Vec<MemberId> =
            self.node.members().into_iter().map(|member| member.id).filter(|id| *id != me).collect();
        if others.is_empty() {
            return;
        }
        let count = others.len() + 1;
        let searching = self.searched.is_some();
        let landmarks = self.node.status().landmarks();
        landmarks.keep_next(searching);
        let ask = |id: MemberId| {
            let peers = self.node.peers().clone();
            async move { Some((id, peers.digests(id, searching, ANSWER_MAX).await.ok()?)) }
        };
        let answers = futures::future::join_all(others.into_iter().map(ask)).await;
        let mut known: Vec<(MemberId, Digests)> = answers.into_iter().flatten().collect();
        known.push((me, Digests { digests: landmarks.digests(), kept: landmarks.kept() }));
        if let Some((index, members, digests)) = common(&known) {
            match judge(&digests, count) {
                Verdict::Equal => {}
                Verdict::Minority(places) => {
                    for place in places {
                        self.minority(members[place], index).await;
                    }
                }
                Verdict::Undecided => self.undecided(&members, &digests, index).await,
            }
        }
        self.search(&known).await;
    }

    /// A member differs from what the majority holds.
    async fn minority(&mut self, member: MemberId, index: RaftIndex) {
        if !self.found.insert(member) {
            return;
        }
        tracing::error!(%member, %index, "a member's state differs from the majority's; it is told not to serve");
        self.searched = Some((member, SEARCH_ROUNDS_MAX));
        if member == self.node.status().member() {
            self.node.status().set_diverged(index);
        } else if let Err(error) = self.node.peers().tell_diverged(member, index, ANSWER_MAX).await {
            tracing::warn!(%member, %error, "it could not be told; it will be");
            self.found.remove(&member);
        }
    }

    /// Members differ, and nobody knows who is right.
    async fn undecided(&mut self, members: &[MemberId], digests: &[u64], index: RaftIndex) {
        let me = self.node.status().member();
        let own = members.iter().position(|id| *id == me).map(|place| digests[place]);
        for (member, digest) in members.iter().zip(digests) {
            if Some(*digest) == own || !self.found.insert(*member) {
                continue;
            }
            tracing::error!(%member, %index, "members' states differ, and no majority says whose is right: CORRUPT");
            self.searched = Some((*member, SEARCH_ROUNDS_MAX));
            let alarm = AlarmOp { activate: true, member: *member, kind: Some(AlarmKind::Corrupt) };
            if let Err(error) = self.proposer.propose(Command::Alarm(alarm)).await {
                tracing::warn!(%error, "the alarm could not be raised; it will be");
                self.found.remove(member);
            }
        }
    }

    /// Names the keys that differ, once both sides keep the state after one landmark.
    async fn search(&mut self, known: &[(MemberId, Digests)]) {
        let Some((member, rounds_left)) = &mut self.searched else { return };
        let member = *member;
        *rounds_left = rounds_left.saturating_sub(1);
        let over = *rounds_left == 0;
        let kept = |id: MemberId| known.iter().find(|(known, _)| *known == id).and_then(|(_, digests)| digests.kept);
        // If the leader itself is the one, any other member is the other side.
        let me = self.node.status().member();
        let other = if member == me { known.first().map_or(me, |(id, _)| *id) } else { member };
        let (own, others) = (kept(me), kept(other));
        match (own, others) {
            (Some(index), Some(same)) if index == same && other != me => {
                match self.keys_that_differ(other, index).await {
                    Ok(keys) => tracing::error!(%member, %index, ?keys, "these keys differ (the first of them)"),
                    Err(error) => tracing::warn!(%member, %error, "which keys differ could not be found out"),
                }
                self.searched = None;
            }
            _ if over => self.searched = None,
            // One of them was asked in time for an earlier landmark than the other: both begin again.
            (Some(_), Some(_)) => {
                self.node.status().landmarks().keep_next(false);
                // An answer that doesn't come changes nothing.
                let _ = self.node.peers().digests(other, false, ANSWER_MAX).await;
            }
            _ => {}
        }
    }

    async fn keys_that_differ(&self, other: MemberId, index: RaftIndex) -> Result<Vec<String>, RequestError> {
        let mut found = Vec::new();
        let mut prefixes = vec![Bytes::new()];
        while let Some(prefix) = prefixes.pop() {
            let own = self.node.status().landmarks().parts(index, &prefix).ok_or(RequestError::UnknownMethod)?;
            let theirs = self.node.peers().parts(other, index, prefix.clone(), ANSWER_MAX).await?;
            if theirs.len() != PARTS {
                return Err(RequestError::UnknownMethod);
            }
            if own[0] != theirs[0] {
                found.push(prefix.escape_ascii().to_string());
                if found.len() == KEYS_MAX {
                    break;
                }
            }
            let differs = |byte: &u8| own[1 + usize::from(*byte)] != theirs[1 + usize::from(*byte)];
            prefixes.extend((0..=u8::MAX).rev().filter(differs).map(|byte| longer(&prefix, byte)));
        }
        Ok(found)
    }
}

/// The newest entry after which more than half of those that answered, and at least two, have a digest.
fn common(known: &[(MemberId, Digests)]) -> Option<(RaftIndex, Vec<MemberId>, Vec<u64>)> {
    let (_, own) = known.last()?;
    own.digests.iter().rev().find_map(|(index, _)| {
        let at = |(id, digests): &(MemberId, Digests)| {
            digests.digests.iter().find(|(other, _)| other == index).map(|(_, digest)| (*id, *digest))
        };
        let (members, digests): (Vec<_>, Vec<_>) = known.iter().filter_map(at).unzip();
        (members.len() >= 2 && members.len() * 2 > known.len()).then_some((*index, members, digests))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_landmark_is_compared() {
        let digests = |list: &[(u64, u64)]| Digests {
            digests: list.iter().map(|(index, digest)| (RaftIndex(*index), *digest)).collect(),
            kept: None,
        };
        let known = [
            (MemberId(2), digests(&[(256, 1), (512, 2)])),
            (MemberId(3), digests(&[(256, 1)])),
            (MemberId(1), digests(&[(256, 1), (512, 3), (768, 4)])),
        ];
        let (index, members, found) = common(&known).expect("512 is known to two of three");
        assert_eq!((index, members, found), (RaftIndex(512), vec![MemberId(2), MemberId(1)], vec![2, 3]));
        assert_eq!(common(&known[2..]), None, "alone there is nothing to compare");
    }
}
