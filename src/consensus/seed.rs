//! A member whose state comes from elsewhere: what the log and the state say of Raft before the first start.
//!
//! ```text
//! state as of entry P ─► membership as of P (a row of the state, and part of the snapshot)
//! empty log           ─► purged up to P, a vote of P's term ─► start: the snapshot is installed, an election in the next
//! ```
//! All members of the new cluster get the same state, position and members, so that their logs agree.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use openraft::vote::RaftLeaderId as _;
use tokio::sync::oneshot;

use super::codec::{encode_membership, encode_vote};
use super::index::log_id_of;
use super::types::{Membership, PeerNode, StoredMembership, Vote};
use crate::storage::AppliedPosition;
use crate::types::MemberId;
use crate::wal::{EntryId, Wal};

/// The row of a state at `position` that makes `members` its voters.
///
/// # Errors
/// `InvalidInput` if they can't be a cluster.
pub fn seed_membership(position: AppliedPosition, members: BTreeMap<MemberId, PeerNode>) -> io::Result<Bytes> {
    let nodes: BTreeMap<u64, PeerNode> = members.into_iter().map(|(id, node)| (id.get(), node)).collect();
    let voters = nodes.keys().copied().collect();
    let membership = Membership::new(vec![voters], nodes);
    let membership = membership.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    Ok(encode_membership(&StoredMembership::new(log_id_of(position), membership)))
}

/// Makes an empty log that of a member whose state is a snapshot at `position`; durable at return.
///
/// # Errors
/// Those of the disk.
pub async fn seed_log(wal: &Wal, member: MemberId, position: AppliedPosition) -> io::Result<()> {
    let leader_id = openraft::impls::leader_id_std::LeaderId::new(position.term.get(), member.get());
    let vote = Vote { leader_id, committed: false };
    let (done, written) = oneshot::channel();
    wal.save_vote(encode_vote(&vote), move |result| drop(done.send(result)));
    let ended = || io::Error::other("the log thread has ended");
    written.await.map_err(|_| ended())??;
    let (done, written) = oneshot::channel();
    let id = EntryId { term: position.term, index: position.index, node: None };
    wal.purge_to(id, move |result| drop(done.send(result)));
    written.await.map_err(|_| ended())?
}
