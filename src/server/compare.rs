//! The leader compares the members' states (`consensus::Landmarks`).
//!
//! ```text
//! every second: digests of all ─► equal ─► rest
//!                               ─► a minority differs ─► it is told, and its alarm raised ─► which keys? ─► named in the log
//!                               ─► nobody knows who is right ─► the CORRUPT alarm, for whoever differs from the leader
//! all of them equal, and some the copies of others ─► all note that they were: from then on each is a witness
//! found to differ before ─► no witness; told again, as long as it differs from the majority of the others
//! ```
//! A leader that differs itself judges nobody.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::differing;
use super::marks::Marks;
use super::witnesses::{Common, common, own_digests, witnesses};
use crate::apply::{AlarmKind, AlarmOp, AlarmView, Command};
use crate::auth::AuthView;
use crate::consensus::peer::Digests;
use crate::consensus::{Finding, Node, Verdict, Witness, judge, should_agree};
use crate::propose::Proposer;
use crate::types::{MemberId, RaftIndex, RequestError, Term};

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(1);
/// How long a member may take to answer.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long keys that differ are looked for: meanwhile nobody is compared, and the member isn't healed.
const SEARCH_MAX: Duration = Duration::from_secs(10);
/// Rounds in which the state after a landmark is waited for, to name the keys.
const SEARCH_ROUNDS_MAX: u32 = 20;

/// Rounds in which members that don't answer are waited for, as they may say who is right.
const UNDECIDED_ROUNDS: u32 = 10;
/// Rounds after which a search takes care by itself that there is a landmark.
const ROUNDS_WITHOUT_WRITES: u32 = 3;

/// Compares while this member leads.
pub(super) struct Comparer {
    node: Node,
    proposer: Proposer,
    alarms: AlarmView,
    auth: AuthView,
    /// Where this member notes that its own state differs.
    marks: Arc<Marks>,
    /// Rounds in which nobody could say who is right, while not all members answered.
    undecided: u32,
    /// Who was found to differ, and is dealt with.
    found: BTreeSet<MemberId>,
    /// Whose keys are searched, and for how many rounds yet.
    searched: Option<(MemberId, u32)>,
}

impl Comparer {
    /// `marks` is where this member notes that its own state differs.
    pub(super) fn new(
        node: Node,
        proposer: Proposer,
        (alarms, auth): (AlarmView, AuthView),
        marks: Arc<Marks>,
    ) -> Self {
        Self { node, proposer, alarms, auth, marks, undecided: 0, found: BTreeSet::new(), searched: None }
    }

    /// Runs until the task is aborted.
    pub(super) fn spawn(mut self) -> JoinHandle<()> {
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(EVERY);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                self.marks.remember();
                // Before it is asked who leads: what is judged is never of a later term than it says.
                let term = self.node.status().term();
                if self.node.status().is_leader() {
                    self.round(term).await;
                } else {
                    self.forget();
                }
                self.node.status().set_naming(self.searched.map(|(member, _)| member));
            }
        })
    }

    fn forget(&mut self) {
        self.found.clear();
        self.searched = None;
        self.undecided = 0;
    }

    async fn round(&mut self, term: Term) {
        let me = self.node.status().member();
        let others: Vec<MemberId> =
            self.node.members().into_iter().map(|member| member.id).filter(|id| *id != me).collect();
        if others.is_empty() {
            return;
        }
        let count = others.len() + 1;
        self.forget_alarms(&others).await;
        if self.node.status().diverged().is_some() {
            return self.forget();
        }
        let searching = self.searched.is_some();
        let landmarks = self.node.status().landmarks();
        landmarks.keep_next(searching);
        let ask = |id: MemberId| {
            let peers = self.node.peers().clone();
            async move { Some((id, peers.digests(id, Some(searching), ANSWER_MAX).await.ok()?)) }
        };
        let answers = futures::future::join_all(others.into_iter().map(ask)).await;
        let mut known: Vec<(MemberId, Digests)> = answers.into_iter().flatten().collect();
        known.push((me, own_digests(&self.node)));
        let [trusted, doubtful] = witnesses(known.clone(), &self.alarms);
        for one in doubtful {
            let (member, says_so) = (one.0, one.1.differs);
            self.tell_again(one, &trusted, count, term).await;
            // Whoever isn't served has its alarm, also if nothing shows any more or somebody has cleared it by hand: without it
            // the member would have no turn, and not be healed.
            if says_so {
                self.raise(member, AlarmKind::Diverged, true).await;
            }
        }
        if let Some(Common { index, members, witnesses }) = common(&trusted) {
            let mut waits = false;
            match judge(&witnesses, count) {
                Verdict::Equal => {
                    // Whoever was healed may come to differ again.
                    self.found.retain(|id| !members.contains(id));
                    if members.len() == count && should_agree(index, &witnesses) {
                        self.agree(&members, index, witnesses[0].digest).await;
                    }
                }
                Verdict::Minority(places) => {
                    let differs = |id: &MemberId| places.iter().any(|place| members[*place] == *id);
                    self.found.retain(|id| !members.contains(id) || differs(id));
                    for place in places {
                        let finding = Finding { index, digest: witnesses[place].digest, term };
                        self.minority(members[place], &finding).await;
                    }
                }
                Verdict::Undecided | Verdict::Copies(_)
                    if members.len() < count && self.undecided < UNDECIDED_ROUNDS =>
                {
                    waits = true;
                }
                Verdict::Undecided => self.undecided(&members, &witnesses, index).await,
                Verdict::Copies(places) => {
                    self.tell_copies(&members, &witnesses, &places);
                    self.undecided(&members, &witnesses, index).await;
                }
            }
            self.undecided = if waits { self.undecided + 1 } else { 0 };
        }
        self.search(&known).await;
    }

    /// One that was found to differ, and isn't healed: by others than itself, or not at all.
    async fn tell_again(
        &mut self,
        one: (MemberId, Digests),
        trusted: &[(MemberId, Digests)],
        count: usize,
        term: Term,
    ) {
        let member = one.0;
        let all: Vec<_> = [one].into_iter().chain(trusted.iter().cloned()).collect();
        let Some(Common { index, members, witnesses }) = common(&all) else { return };
        let Some(place) = members.iter().position(|id| *id == member) else { return };
        if matches!(judge(&witnesses, count), Verdict::Minority(places) if places.contains(&place)) {
            self.minority(member, &Finding { index, digest: witnesses[place].digest, term }).await;
        }
    }

    /// A member differs from what the majority holds.
    async fn minority(&mut self, member: MemberId, finding: &Finding) {
        let index = finding.index;
        let is_new = self.found.insert(member);
        if is_new {
            tracing::error!(%member, %index, "a member's state differs from the majority's; it is told not to serve");
        }
        if member == self.node.status().member() {
            // It hands the lead over, and the next leader finds and names it again. An error is said, and remembered.
            let _ = self.marks.found(finding);
            return;
        }
        if is_new {
            self.searched = Some((member, SEARCH_ROUNDS_MAX));
            // Before it can ask to be healed.
            self.node.status().set_naming(Some(member));
        }
        // In every round: it may have ended before it noted what it was told, or was found while nobody knew who is right.
        match self.node.peers().tell_diverged(member, *finding, ANSWER_MAX).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::info!(%member, %index, "it holds another state by now; it is compared again");
                self.found.remove(&member);
                return;
            }
            Err(error) => {
                tracing::warn!(%member, %error, "it could not be told; it will be");
                self.found.remove(&member);
                return;
            }
        }
        // Not before it knows: it clears the alarm once it doesn't differ.
        if !self.raise(member, AlarmKind::Diverged, true).await {
            self.found.remove(&member);
        }
    }

    /// Raises an alarm, or clears it; false if that is to be tried again.
    async fn raise(&self, member: MemberId, kind: AlarmKind, activate: bool) -> bool {
        let raised = self.alarms.load().list(Some(kind)).contains(&(member, kind));
        if raised == activate {
            return true;
        }
        let alarm = AlarmOp { activate, member, kind: Some(kind) };
        let proposed = self.proposer.propose(Command::Alarm(alarm).by_member(&self.auth)).await;
        if let Err(error) = &proposed {
            tracing::warn!(%error, "an alarm could not be changed; it will be");
        }
        proposed.is_ok()
    }

    /// Whoever was removed differs no more.
    async fn forget_alarms(&self, others: &[MemberId]) {
        let me = self.node.status().member();
        for (member, kind) in self.alarms.load().list(Some(AlarmKind::Diverged)) {
            if member != me && !others.contains(&member) {
                self.raise(member, kind, false).await;
            }
        }
    }

    /// All hold the same: what differs later on has rotted later on.
    async fn agree(&self, members: &[MemberId], index: RaftIndex, digest: u64) {
        let me = self.node.status().member();
        // Whoever doesn't note it is no worse a witness than before, and all are asked again after another entry.
        let others = members.iter().filter(|id| **id != me);
        let asked = others.map(|id| self.node.peers().agree(*id, (index, digest), ANSWER_MAX));
        let (own, theirs) = tokio::join!(self.node.agree(index, digest), futures::future::join_all(asked));
        if theirs.iter().chain([&own]).all(|noted| *noted == Ok(true)) {
            tracing::info!(%index, "all members hold the same, copies of one state among them: noted");
        }
    }

    /// A majority that may be one state and its copies proves nothing; said when it is found.
    fn tell_copies(&self, members: &[MemberId], witnesses: &[Witness], differ: &[usize]) {
        if differ.iter().all(|place| self.found.contains(&members[*place])) {
            return;
        }
        for (member, witness) in members.iter().zip(witnesses) {
            if let Some(of) = witness.lineage.copied_from() {
                let since = witness.lineage.since();
                tracing::error!(%member, %of, %since, "its state is a copy, which says nothing of what was before that");
            }
        }
    }

    /// Members differ, and nobody knows who is right.
    async fn undecided(&mut self, members: &[MemberId], witnesses: &[Witness], index: RaftIndex) {
        let me = self.node.status().member();
        let own = members.iter().position(|id| *id == me).map(|place| witnesses[place].digest);
        for (member, witness) in members.iter().zip(witnesses) {
            if Some(witness.digest) == own || !self.found.insert(*member) {
                continue;
            }
            tracing::error!(%member, %index, "members' states differ, and no majority says whose is right: CORRUPT");
            self.searched = Some((*member, SEARCH_ROUNDS_MAX));
            if !self.raise(*member, AlarmKind::Corrupt, true).await {
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
        if *rounds_left == SEARCH_ROUNDS_MAX - ROUNDS_WITHOUT_WRITES && self.node.go_to_landmark().await.is_err() {
            return;
        }
        let kept = |id: MemberId| known.iter().find(|(known, _)| *known == id).and_then(|(_, digests)| digests.kept);
        match (kept(self.node.status().member()), kept(member)) {
            (Some(index), Some(same)) if index == same => {
                match self.keys_that_differ(member, index).await {
                    Ok(keys) if keys.is_empty() => tracing::error!(
                        %member, %index, "no key differs: leases, users or roles do, or what is compacted"
                    ),
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
                let _ = self.node.peers().digests(member, Some(false), ANSWER_MAX).await;
            }
            _ => {}
        }
    }

    async fn keys_that_differ(&self, other: MemberId, index: RaftIndex) -> Result<Vec<String>, RequestError> {
        let own = |prefix: &[u8]| self.node.status().landmarks().parts(index, prefix);
        let ask = |prefix: Bytes| {
            let peers = self.node.peers().clone();
            async move { peers.parts(other, index, prefix, ANSWER_MAX).await }
        };
        differing::keys_that_differ(own, ask, Instant::now() + SEARCH_MAX).await
    }
}
