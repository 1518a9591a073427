//! Linearizable reads of a follower without a round: its question is the answer of a quorum.
//!
//! ```text
//! reads wait ─► vote: what this member's Raft holds now ─► question with it ─► leader: index
//!                                                       the same vote, and the two are a quorum? ─► what is committed
//!                                                                                            └ no ─► None: a round
//! ```
//! In a round the leader asks the others whether they have gone over to a later vote since a read began. A follower
//! that asks after its reads began says so itself. Where it and the leader are a quorum, as of two or three voters, nobody
//! else was elected before that without one of them. Both sides ask Raft itself: what is known without asking it may be of
//! a moment ago, when a vote was already given away.

use std::collections::BTreeSet;

use openraft::vote::RaftLeaderId;

use super::types::{LogId, Membership, Raft, Vote};
use crate::types::{MemberId, RequestError};

/// This member's vote; `None` if it isn't for `leader` as one that was elected.
pub(super) async fn vote(raft: &Raft, leader: MemberId) -> Option<Vote> {
    let vote = raft.with_raft_state(|state| *state.vote_ref()).await.ok()?;
    (vote.committed && *vote.leader_id().node_id() == leader.get()).then_some(vote)
}

/// The entry (openraft's index) that a read has to see which began at `caller` before it vouched for this vote; `None` if
/// only a round can tell.
///
/// # Errors
/// `Stopped` if Raft has ended.
pub(super) async fn index(
    raft: &Raft,
    me: MemberId,
    caller: MemberId,
    vouched: Vote,
) -> Result<Option<u64>, RequestError> {
    let index = raft.with_raft_state(move |state| {
        let members = state.membership_state.effective().membership();
        let own = *state.vote_ref();
        // A leader that starts again in its old term would know less than it had told: `enable_leader_restore` is off.
        let leads = own.committed && *own.leader_id().node_id() == me.get();
        let both = are_quorum(members, me, caller);
        // Another member may know already that an entry is committed which waits for this one's disk.
        let committed = state.local_committed().max(state.cluster_committed());
        (leads && own == vouched && both).then(|| of_term(committed, &own)).flatten()
    });
    index.await.map_err(|_| RequestError::Stopped)
}

/// Whether these two are a majority of the voters, of both sets while they change.
pub(super) fn are_quorum(members: &Membership, one: MemberId, other: MemberId) -> bool {
    let two = BTreeSet::from([one.get(), other.get()]);
    let sets = members.get_joint_config();
    !sets.is_empty() && sets.iter().all(|set| set.intersection(&two).count() > set.len() / 2)
}

/// What is committed, once an entry of the leader's own term is: before that it doesn't know what others committed.
fn of_term(committed: Option<&LogId>, own: &Vote) -> Option<u64> {
    committed.filter(|id| id.leader_id.term == own.leader_id.term).map(|id| id.index)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use openraft::raft::AppendEntriesRequest;

    use super::super::tests::{put, start};
    use super::super::types::{PeerNode, log_id};
    use super::*;
    use crate::env::MemDisk;

    #[test]
    fn two_are_a_quorum_of_three_voters_and_not_of_four() {
        let are_quorum = |sets: &[&[u64]], [one, other]: [u64; 2]| {
            let sets = sets.iter().map(|ids| ids.iter().copied().collect::<BTreeSet<_>>()).collect();
            let nodes: BTreeMap<_, _> = (1..=4).map(|id| (id, PeerNode::default())).collect();
            are_quorum(&Membership::new(sets, nodes).unwrap(), MemberId(one), MemberId(other))
        };
        assert!(are_quorum(&[&[1, 2, 3]], [1, 2]));
        assert!(are_quorum(&[&[1, 2]], [1, 2]));
        assert!(!are_quorum(&[&[1, 2, 3, 4]], [1, 2]));
        assert!(!are_quorum(&[&[1, 2, 3]], [1, 4]), "a learner's word is no vote");
        assert!(!are_quorum(&[&[1, 2, 3]], [1, 1]), "one has one vote");
        assert!(!are_quorum(&[&[1, 2, 3], &[1, 2, 3, 4]], [1, 2]), "both sets count while they change");
        assert!(are_quorum(&[&[1, 2], &[1, 2, 3]], [1, 2]));
        assert!(!are_quorum(&[], [1, 2]));
    }

    fn vote_for(term: u64, node: u64, committed: bool) -> Vote {
        Vote { leader_id: openraft::impls::leader_id_std::LeaderId::new(term, node), committed }
    }

    /// A word that is of another vote than the leader's counts for nothing, nor does a leader's that has gone over to another.
    #[tokio::test]
    async fn only_a_vote_for_the_leader_of_now_counts() {
        let disk = MemDisk::new();
        let node = start(&disk).await;
        put(&node, "k").await.unwrap();
        let (raft, me, caller) = (node.raft(), MemberId(1), MemberId(2));
        let own = vote(raft, me).await.expect("it leads");
        let term = own.leader_id.term;
        assert_eq!(vote(raft, caller).await, None, "of another leader");
        let index = async |vouched| super::index(raft, me, caller, vouched).await.unwrap();
        assert_eq!(index(own).await, node.read_index().await.ok());
        for other in [vote_for(term - 1, 1, true), vote_for(term + 1, 1, true), vote_for(term, 1, false)] {
            assert_eq!(index(other).await, None, "{other:?}");
        }
        // Another leader speaks to it.
        let (later, prev_log_id) = (vote_for(term + 1, 2, true), Some(log_id(term, index(own).await.unwrap())));
        let append = AppendEntriesRequest { vote: later, prev_log_id, entries: vec![], leader_commit: None };
        raft.append_entries(append).await.unwrap();
        assert_eq!((index(own).await, index(later).await), (None, None));
        assert_eq!((vote(raft, me).await, vote(raft, caller).await), (None, Some(later)));
    }

    #[test]
    fn a_leader_without_an_entry_of_its_own_doesnt_know_what_is_committed() {
        let own = vote_for(3, 1, true);
        assert_eq!(of_term(None, &own), None);
        assert_eq!(of_term(Some(&log_id(2, 9)), &own), None);
        assert_eq!(of_term(Some(&log_id(3, 10)), &own), Some(10));
    }
}
