//! The adapter between openraft's log store and our `wal`.
//!
//! ```text
//! append ─► cache (with waiters) + wal queue ─► log thread: write, fsync ─► IOFlushed
//! read   ─► cache, else wal
//! ```

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures::{Stream, stream};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::oneshot;

use super::codec::{decode_membership, decode_vote, encode_membership, encode_vote};
use super::index::{from_raft, to_raft};
use super::log_cache::LogCache;
use super::status::NodeStatus;
use super::types::{Entry, LogData, LogId, ORIGIN_LEN, StoredMembership, TypeConfig, Vote, log_id};
use crate::env::{Clock, may_block};
use crate::types::planted::{Bug, is_planted};
use crate::types::{RaftIndex, Term};
use crate::wal::{EntryId, Wal, WalEntry};

/// An entry of openraft's with nothing in it.
const KIND_BLANK: u8 = 0;
/// An entry of commands (`apply::codec`).
const KIND_COMMANDS: u8 = 1;
/// An entry that changes the membership (`consensus::codec`).
const KIND_MEMBERSHIP: u8 = 2;
/// An entry of commands that another member forwarded: its origin, then as [`KIND_COMMANDS`].
const KIND_FORWARDED: u8 = 3;

/// The most payload bytes read from the log at a time while it is replayed.
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;
/// And for one message to another member: what a member far behind is sent must not keep this one from the others for
/// long, and keeps that one busy for some milliseconds only.
const SEND_BYTES_MAX: usize = 256 * 1024;

/// openraft's log store over our `wal`. Cheap to clone; each clone can read.
#[derive(Clone)]
pub struct LogStore {
    wal: Arc<Wal>,
    cache: Arc<LogCache>,
    status: Arc<NodeStatus>,
    clock: Option<Arc<dyn Clock>>,
    vote: Arc<parking_lot::Mutex<Option<Vote>>>,
}

/// Tells how far a log is purged, as long as it is open.
#[derive(Debug)]
pub(super) struct PurgedIndex(Weak<Wal>);

impl PurgedIndex {
    /// openraft's index of the last purged entry.
    pub(super) fn get(&self) -> Option<u64> {
        self.0.upgrade()?.purged().map(|id| from_raft(id.index))
    }
}

impl LogStore {
    /// Wraps an opened log; `vote` is what was recovered with it.
    ///
    /// # Errors
    /// The stored vote is not one of ours.
    pub fn new(
        wal: Arc<Wal>,
        vote: Option<&[u8]>,
        cache: Arc<LogCache>,
        status: Arc<NodeStatus>,
    ) -> Result<Self, io::Error> {
        status.set_logged(Some(wal.last().map_or(RaftIndex(0), |last| last.index)));
        let vote = vote.map(decode_vote).transpose().map_err(io::Error::other)?;
        if let Some(vote) = &vote {
            status.set_voted(Term(vote.leader_id.term));
        }
        Ok(Self { wal, cache, status, clock: None, vote: Arc::new(parking_lot::Mutex::new(vote)) })
    }

    /// Has it noted when entries came to be durable.
    pub fn timed(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// How far the log is purged, for one who must not keep it open.
    pub(super) fn purged_index(&self) -> PurgedIndex {
        PurgedIndex(Arc::downgrade(&self.wal))
    }

    /// A bounded piece of `range`, which must be there from its beginning: it is going to be applied.
    fn read_from(&self, range: &Range<u64>) -> Result<Vec<Entry>, io::Error> {
        let entries = self.read(range.clone(), READ_BYTES_MAX)?;
        match entries.first() {
            Some(first) if first.index() == range.start => Ok(entries),
            _ => Err(invalid(format!("the raft log lacks the entry {}", to_raft(range.start)))),
        }
    }

    /// Whether this member has taken part in an election, or heard of one.
    pub(super) fn has_voted(&self) -> bool {
        self.vote.lock().is_some()
    }

    fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<Entry>, io::Error> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(entries) = self.cache.range(range.clone(), bytes_max) {
            return Ok(entries);
        }
        let stored = may_block(|| self.wal.read(to_raft(range.start)..to_raft(range.end), bytes_max))?;
        stored.into_iter().map(entry_of).collect()
    }
}

fn wal_entry(entry: &Entry) -> WalEntry {
    let (kind, payload) = entry_parts(entry);
    WalEntry { id: wal_id(entry.log_id), kind, payload }
}

/// An entry's kind and bytes, on disk and between members.
pub(super) fn entry_parts(entry: &Entry) -> (u8, Bytes) {
    match &entry.payload {
        EntryPayload::Blank => (KIND_BLANK, Bytes::new()),
        EntryPayload::Normal(data) => {
            (if data.forwarded { KIND_FORWARDED } else { KIND_COMMANDS }, data.payload.clone())
        }
        EntryPayload::Membership(membership) => {
            let stored = StoredMembership::new(Some(entry.log_id), membership.clone());
            (KIND_MEMBERSHIP, encode_membership(&stored))
        }
    }
}

fn wal_id(id: LogId) -> EntryId {
    EntryId { term: Term(id.leader_id.term), index: to_raft(id.index), node: None }
}

fn raft_id(id: EntryId) -> LogId {
    log_id(id.term.get(), from_raft(id.index))
}

fn entry_of(stored: WalEntry) -> Result<Entry, io::Error> {
    entry_from(raft_id(stored.id), stored.kind, stored.payload)
}

/// An entry from its kind and bytes.
///
/// # Errors
/// `InvalidData` if it is of no kind that is known here.
pub(super) fn entry_from(id: LogId, kind: u8, payload: Bytes) -> Result<Entry, io::Error> {
    let payload = match kind {
        KIND_BLANK => EntryPayload::Blank,
        KIND_COMMANDS => EntryPayload::Normal(LogData::stored(payload)),
        KIND_FORWARDED if payload.len() >= ORIGIN_LEN => EntryPayload::Normal(LogData::forwarded(payload)),
        KIND_MEMBERSHIP => {
            let membership = decode_membership(&payload).map_err(invalid)?;
            EntryPayload::Membership(membership.membership().clone())
        }
        other => return Err(invalid(format!("log entry {} is of kind {other}, unknown here", to_raft(id.index)))),
    };
    Ok(Entry { log_id: id, payload })
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn bounds(range: &impl RangeBounds<u64>, next: u64) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end + 1,
        Bound::Excluded(end) => *end,
        Bound::Unbounded => next,
    };
    start..end.min(next).max(start)
}

impl LogStore {
    /// The index that the next entry gets.
    fn next_index(&self) -> u64 {
        let (last, purged) = (self.wal.last(), self.wal.purged());
        last.or(purged).map_or(0, |id| from_raft(id.index) + 1)
    }

    /// Waits for the log thread's answer to what `start` puts in its queue.
    async fn synced(
        &self,
        start: impl FnOnce(&Wal, Box<dyn FnOnce(io::Result<()>) + Send + 'static>),
    ) -> Result<(), io::Error> {
        let (done, synced) = oneshot::channel();
        // A receiver that is gone means that Raft ended meanwhile.
        start(&self.wal, Box::new(move |result| drop(done.send(result))));
        synced.await.unwrap_or_else(|_| Err(io::Error::other("the log thread has ended")))
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let store = self.clone();
        let range = bounds(&range, self.next_index());
        // Read in bounded pieces: a replay may be longer than memory.
        let pieces = stream::unfold(Some(range), move |left| {
            let store = store.clone();
            async move {
                let range = left.filter(|range| !range.is_empty())?;
                match store.read_from(&range) {
                    Ok(entries) => {
                        let next = entries.last().map(|last| last.index() + 1..range.end);
                        Some((entries.into_iter().map(Ok).collect::<Vec<_>>(), next))
                    }
                    Err(error) => Some((vec![Err(error)], None)),
                }
            }
        });
        let entries = futures::StreamExt::flat_map(pieces, stream::iter);
        Box::pin(entries)
    }

    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let mut left = bounds(&range, self.next_index());
        let mut found = Vec::new();
        while !left.is_empty() {
            let piece = self.read(left.clone(), usize::MAX)?;
            let Some(last) = piece.last() else { break };
            left.start = last.index() + 1;
            found.extend(piece);
        }
        Ok(found)
    }

    /// Nothing, if `start` is purged: what follows a hole must not be sent as if there were none.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let mut entries = self.read(bounds(&(start..end), self.next_index()), SEND_BYTES_MAX)?;
        if entries.first().is_some_and(|first| first.index() != start) {
            entries.clear();
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(*self.vote.lock())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let purged = self.wal.purged().map(raft_id);
        let last = self.wal.last().map(raft_id).or(purged);
        Ok(LogState { last_purged_log_id: purged, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let bytes = encode_vote(vote);
        if is_planted(Bug::VoteBeforeFsync) {
            self.wal.save_vote(bytes, drop);
        } else {
            self.synced(|wal, done| wal.save_vote(bytes, done)).await?;
        }
        *self.vote.lock() = Some(*vote);
        self.status.set_voted(Term(vote.leader_id.term));
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(committed) = committed {
            self.wal.note_committed(wal_id(committed));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.wal.committed().map(raft_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut records = Vec::new();
        for entry in entries {
            match &entry.payload {
                EntryPayload::Normal(data) => {
                    if let Some(local) = &data.local {
                        local.mark_appended();
                    }
                }
                // From the moment another member may count or serve, no read may skip the confirmation.
                EntryPayload::Membership(membership) => {
                    if !membership.nodes().map(|(id, _)| *id).eq([self.status.member().get()]) {
                        self.status.set_sole_leader(false);
                    }
                }
                EntryPayload::Blank => {}
            }
            records.push(wal_entry(&entry));
            self.cache.push(entry);
        }
        let (last, status) = (records.last().map(|record| record.id.index), self.status.clone());
        let clock = self.clock.clone();
        let logged = move |result: &io::Result<()>| match (result, last) {
            (Ok(()), Some(last)) => {
                if let Some(clock) = &clock {
                    status.set_logged_at(last, clock.now());
                }
                status.set_logged(Some(last));
            }
            (Ok(()), None) => {}
            (Err(_), _) => status.set_logged(None),
        };
        if is_planted(Bug::AckBeforeFsync) {
            logged(&Ok(()));
            self.wal.append(records, drop);
            callback.io_completed(Ok(()));
        } else {
            self.wal.append(records, move |result| {
                logged(&result);
                callback.io_completed(result);
            });
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.cache.truncate_after(last.map(|id| id.index));
        let keep = last.map(|id| to_raft(id.index));
        self.synced(|wal, done| wal.truncate_after(keep, done)).await?;
        // What was cut was durable and counts no longer; what comes in its place isn't there yet.
        self.status.set_logged(Some(keep.unwrap_or(RaftIndex(0))));
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let id = wal_id(upto);
        self.cache.trim(upto.index, 0);
        self.synced(|wal, done| wal.purge_to(id, done)).await
    }
}
