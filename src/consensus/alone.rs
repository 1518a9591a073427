//! `--force-new-cluster`: what is left of a lost cluster goes on as a cluster of one.
//!
//! ```text
//! log of the lost cluster ─► one more entry: the membership of this member alone ─► Raft starts, elects itself,
//!                                                                                   and commits all that is there
//! ```
//! Every entry in the log counts as committed, as in etcd: nobody is left who could say otherwise. So it
//! may only be used when the other members are gone for good.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use openraft::EntryPayload;
use tokio::sync::oneshot;

use super::codec::decode_membership;
use super::index::from_raft;
use super::log_store::{entry_from, entry_parts};
use super::types::{Entry, Membership, PeerNode, log_id};
use crate::types::{MemberId, RaftIndex};
use crate::wal::{EntryId, Wal, WalEntry};

/// Bytes of entries that are looked at at a time.
const READ_BYTES_MAX: usize = 4 << 20;

/// Makes `member` the only one in the membership that the log ends with; returns whether it was not yet.
///
/// `stored` is the membership that the store holds, if any; `own` describes this member if it is in none. With `is_told`
/// its peer URLs come before those that it had: whoever binds a survivor's data to another address says so by the
/// flags, and nobody is left who could be asked to change it. Must be called before Raft starts. Blocks on the disk while
/// the log is read.
///
/// # Errors
/// Those of the disk; `InvalidData` if a membership can't be read; `NotFound` if there is neither a log nor
/// a state that would be worth it.
pub async fn force_alone(
    wal: &Wal,
    member: MemberId,
    stored: Option<&[u8]>,
    own: PeerNode,
    is_told: bool,
) -> io::Result<bool> {
    let Some(last) = wal.last() else { return Err(io::ErrorKind::NotFound.into()) };
    let stored = stored.map(decode_membership).transpose().map_err(invalid)?;
    let newest = newest_in_log(wal)?.or(stored.map(|stored| stored.membership().clone()));
    let me = member.get();
    let is_alone = |found: &Membership| found.nodes().map(|(id, _)| *id).eq([me]) && found.voter_ids().eq([me]);
    let had = newest.as_ref().and_then(|found| found.get_node(&me));
    let is_where_told = !is_told || had.is_some_and(|had| had.peer_urls == own.peer_urls);
    if is_where_told && newest.as_ref().is_some_and(is_alone) {
        return Ok(false);
    }
    let node = match had.cloned() {
        Some(had) if is_told => PeerNode { peer_urls: own.peer_urls, ..had },
        Some(had) => had,
        None => own,
    };
    let alone = Membership::new(vec![BTreeSet::from([me])], BTreeMap::from([(me, node)])).map_err(invalid)?;
    let id = EntryId { index: RaftIndex(last.index.get() + 1), ..last };
    let entry = Entry { log_id: log_id(id.term.get(), from_raft(id.index)), payload: EntryPayload::Membership(alone) };
    let (kind, payload) = entry_parts(&entry);
    let entry = WalEntry { id, kind, payload };
    let (done, written) = oneshot::channel();
    wal.append(vec![entry], move |result| drop(done.send(result)));
    written.await.unwrap_or_else(|_| Err(io::Error::other("the log thread has ended")))?;
    tracing::warn!(%member, "the membership is this member alone from now on; all that the log holds counts as committed");
    Ok(true)
}

/// The last membership among the entries of the log.
fn newest_in_log(wal: &Wal) -> io::Result<Option<Membership>> {
    let mut newest = None;
    let mut next = wal.purged().map_or(1, |id| id.index.get() + 1);
    let end = wal.last().map_or(0, |id| id.index.get()) + 1;
    while next < end {
        let entries = wal.read(RaftIndex(next)..RaftIndex(end), READ_BYTES_MAX)?;
        let Some(last) = entries.last() else { break };
        next = last.id.index.get() + 1;
        for WalEntry { id, kind, payload } in entries {
            let entry = entry_from(log_id(id.term.get(), from_raft(id.index)), kind, payload)?;
            if let EntryPayload::Membership(membership) = entry.payload {
                newest = Some(membership);
            }
        }
    }
    Ok(newest)
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
