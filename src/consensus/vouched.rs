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

use super::types::{LogId, Raft, Vote};
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
        let leads = own.committed && *own.leader_id().node_id() == me.get();
        let both = are_quorum(members.get_joint_config(), [me.get(), caller.get()]);
        // Another member may know already that an entry is committed which waits for this one's disk.
        let committed = state.local_committed().max(state.cluster_committed());
        (leads && own == vouched && both).then(|| of_term(committed, &own)).flatten()
    });
    index.await.map_err(|_| RequestError::Stopped)
}

/// Whether these two are a majority of the voters, of both sets while they change.
fn are_quorum(voters: &[BTreeSet<u64>], two: [u64; 2]) -> bool {
    let has_most = |set: &BTreeSet<u64>| two.iter().filter(|id| set.contains(id)).count() > set.len() / 2;
    !voters.is_empty() && voters.iter().all(has_most)
}

/// What is committed, once an entry of the leader's own term is: before that it doesn't know what others committed.
fn of_term(committed: Option<&LogId>, own: &Vote) -> Option<u64> {
    committed.filter(|id| id.leader_id.term == own.leader_id.term).map(|id| id.index)
}

#[cfg(test)]
mod tests {
    use super::super::types::log_id;
    use super::*;

    #[test]
    fn two_are_a_quorum_of_three_voters_and_not_of_four() {
        let voters = |sets: &[&[u64]]| sets.iter().map(|ids| ids.iter().copied().collect()).collect::<Vec<_>>();
        assert!(are_quorum(&voters(&[&[1, 2, 3]]), [1, 2]));
        assert!(are_quorum(&voters(&[&[1, 2]]), [1, 2]));
        assert!(!are_quorum(&voters(&[&[1, 2, 3, 4]]), [1, 2]));
        assert!(!are_quorum(&voters(&[&[1, 2, 3]]), [1, 4]), "a learner's word is no vote");
        assert!(!are_quorum(&voters(&[&[1, 2, 3], &[1, 2, 3, 4]]), [1, 2]), "both sets count while they change");
        assert!(are_quorum(&voters(&[&[1, 2], &[1, 2, 3]]), [1, 2]));
        assert!(!are_quorum(&[], [1, 2]));
    }

    #[test]
    fn a_leader_without_an_entry_of_its_own_doesnt_know_what_is_committed() {
        let leader_id = openraft::impls::leader_id_std::LeaderId::new(3, 1);
        let own = Vote { leader_id, committed: true };
        assert_eq!(of_term(None, &own), None);
        assert_eq!(of_term(Some(&log_id(2, 9)), &own), None);
        assert_eq!(of_term(Some(&log_id(3, 10)), &own), Some(10));
    }
}
