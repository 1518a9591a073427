//! The state that callers and the log thread share: what the log holds once all that is queued is done.
//!
//! Callers change it at once and queue the work; the log thread performs the work in that order and
//! reports back by [`Log::publish`]. An entry stays in the cache at least until it is durable, so a
//! reader finds every entry in the cache or, once it has left it, at its place on disk.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::env::DiskFile;
use crate::types::RaftIndex;

use super::places::{Place, Places, Terms};
use super::recovery::Opened;
use super::segment::Segment;
use super::types::{EntryId, Fatal, WalEntry};

/// Called on the log thread when the work is durable or has failed.
pub(super) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Accounted for each cached entry besides its payload.
const ENTRY_BYTES: usize = size_of::<(u64, WalEntry)>();

/// What the log thread is to do.
#[derive(Debug)]
pub(super) enum Work {
    Append(std::vec::IntoIter<WalEntry>),
    Vote(Bytes),
    /// Entries from here on are void.
    Truncate(u64),
    Purge(EntryId),
    /// Only the callback, in its turn.
    Nothing,
}

/// Work in the queue.
pub(super) struct Queued {
    pub(super) op: u64,
    pub(super) work: Work,
    pub(super) done: Done,
}

/// What a synced group changed on disk.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    Push(u64, Place),
    Truncate(u64),
    Purge(u64),
}

/// Part of a range that must be read from disk.
#[derive(Debug, Default)]
pub(super) struct OnDisk {
    pub(super) places: Vec<Place>,
    pub(super) segments: BTreeMap<u64, Segment>,
}

#[derive(Default)]
pub(super) struct Log {
    pub(super) vote: Option<Bytes>,
    pub(super) purged: Option<EntryId>,
    pub(super) last: Option<EntryId>,
    pub(super) committed: Option<EntryId>,
    pub(super) terms: Terms,
    cache: VecDeque<(u64, WalEntry)>,
    cache_bytes: usize,
    cache_bytes_max: usize,
    /// As far as the log thread has come.
    pub(super) places: Places,
    segments: BTreeMap<u64, Segment>,
    durable_op: u64,
    next_op: u64,
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    /// The log thread waits to be woken.
    pub(super) is_idle: bool,
    pub(super) is_closing: bool,
    pub(super) failed: Option<Arc<Fatal>>,
}

fn refused(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

impl Log {
    pub(super) fn new(opened: Opened, cache_bytes_max: usize) -> Self {
        Self {
            vote: opened.recovered.vote,
            purged: opened.recovered.purged,
            last: opened.recovered.last,
            committed: opened.recovered.committed,
            terms: opened.replay.terms,
            places: opened.replay.places,
            segments: opened.segments,
            cache_bytes_max,
            next_op: 1,
            ..Self::default()
        }
    }

    /// Index of the first entry, if there is any.
    pub(super) fn first_index(&self) -> Option<u64> {
        let last = self.last?.index.get();
        self.terms.first().filter(|first| *first <= last)
    }

    /// Takes entries into the log.
    pub(super) fn append(&mut self, entries: Vec<WalEntry>) -> io::Result<Work> {
        let mut next = self.last.map(|last| last.index.get() + 1);
        for entry in &entries {
            let index = entry.id.index.get();
            if next.is_some_and(|next| next != index) || index == u64::MAX {
                return Err(refused(format!("entry {index} appended where {next:?} is due")));
            }
            if entry.payload.len() > WalEntry::PAYLOAD_BYTES_MAX {
                return Err(refused(format!("entry {index} has {} bytes, too many", entry.payload.len())));
            }
            next = Some(index + 1);
        }
        for entry in &entries {
            self.terms.push(&entry.id);
            self.last = Some(entry.id);
            self.cache_bytes += entry.payload.len() + ENTRY_BYTES;
            self.queued_bytes += entry.payload.len() + ENTRY_BYTES;
            self.cache.push_back((self.next_op, entry.clone()));
        }
        Ok(if entries.is_empty() { Work::Nothing } else { Work::Append(entries.into_iter()) })
    }

    pub(super) fn save_vote(&mut self, vote: Bytes) -> io::Result<Work> {
        if vote.len() > WalEntry::PAYLOAD_BYTES_MAX {
            return Err(refused(format!("a vote of {} bytes", vote.len())));
        }
        self.vote = Some(vote.clone());
        Ok(Work::Vote(vote))
    }

    /// Voids the entries after `keep`; all that aren't purged if `None`.
    pub(super) fn truncate_after(&mut self, keep: Option<RaftIndex>) -> io::Result<Work> {
        let purged = self.purged.map(|purged| purged.index.get());
        let from = match (keep, purged) {
            (Some(keep), Some(purged)) if keep.get() < purged => {
                return Err(refused(format!("truncation after {keep}, but entries up to {purged} are purged")));
            }
            (Some(keep), _) => keep.get().saturating_add(1),
            (None, Some(purged)) => purged + 1,
            (None, None) => 0,
        };
        let Some(first) = self.first_index() else { return Ok(Work::Nothing) };
        if self.last.is_none_or(|last| last.index.get() < from) {
            return Ok(Work::Nothing);
        }
        while let Some((_, entry)) = self.cache.pop_back_if(|(_, entry)| entry.id.index.get() >= from) {
            self.cache_bytes -= entry.payload.len() + ENTRY_BYTES;
        }
        self.terms.truncate_from(from);
        // An emptied log takes any index again, which the record says by a 0.
        let from = if from <= first && self.purged.is_none() { 0 } else { from };
        self.last = if from > first { self.terms.id(from - 1) } else { self.purged };
        self.committed = self.committed.filter(|committed| committed.index.get() < from);
        Ok(Work::Truncate(from))
    }

    /// Drops the entries up to `id`, which may lie beyond the last one.
    pub(super) fn purge_to(&mut self, id: EntryId) -> io::Result<Work> {
        if id.index.get() == u64::MAX {
            return Err(refused("a purge of every index there is".to_owned()));
        }
        if self.purged.is_some_and(|purged| purged.index >= id.index) {
            return Ok(Work::Nothing);
        }
        while let Some((_, entry)) = self.cache.pop_front_if(|(_, entry)| entry.id.index <= id.index) {
            self.cache_bytes -= entry.payload.len() + ENTRY_BYTES;
        }
        self.purged = Some(id);
        self.terms.purge_to(id.index.get());
        if self.last.is_none_or(|last| last.index <= id.index) {
            self.terms.clear();
            self.last = Some(id);
        }
        Ok(Work::Purge(id))
    }

    /// Queues work.
    pub(super) fn enqueue(&mut self, work: Work, done: Done) {
        self.queue.push_back(Queued { op: self.next_op, work, done });
        self.next_op += 1;
    }

    /// Gives all queued work away; `into` is empty and stays as the queue's next buffer.
    pub(super) fn take_queue(&mut self, into: &mut VecDeque<Queued>) {
        std::mem::swap(&mut self.queue, into);
        self.queued_bytes = 0;
    }

    /// Bytes of entries that wait for the log thread.
    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// The index that the next entry written to disk must have; 0 if any may come.
    pub(super) fn next_index_on_disk(&self, purged: Option<EntryId>) -> u64 {
        self.places.last().max(purged.map(|purged| purged.index.get())).map_or(0, |last| last + 1)
    }

    /// Takes over what a group made durable. `active` is the segment that is written; gives the
    /// files that hold nothing any more.
    pub(super) fn publish(
        &mut self,
        changes: &[Change],
        durable_op: u64,
        created: Option<(u64, Segment)>,
        active: u64,
    ) -> Vec<Segment> {
        let mut has_purged = false;
        for change in changes {
            match *change {
                Change::Push(index, place) => self.places.push(index, place),
                Change::Truncate(from) => self.places.truncate_from(from),
                Change::Purge(index) => {
                    self.places.purge_to(index);
                    has_purged = true;
                }
            }
        }
        self.segments.extend(created);
        self.durable_op = self.durable_op.max(durable_op);
        while self.cache_bytes > self.cache_bytes_max
            && let Some((_, entry)) = self.cache.pop_front_if(|(op, _)| *op <= self.durable_op)
        {
            self.cache_bytes -= entry.payload.len() + ENTRY_BYTES;
        }
        if has_purged { self.drop_segments(active) } else { Vec::new() }
    }

    /// Forgets the segments before the first that holds an entry; `active` always stays. A log that
    /// was never purged keeps its first one, by which a start knows that nothing is missing.
    pub(super) fn drop_segments(&mut self, active: u64) -> Vec<Segment> {
        if self.purged.is_none() {
            return Vec::new();
        }
        let keep = self.places.first().map_or(active, |(_, place)| place.segment.min(active));
        let kept = self.segments.split_off(&keep);
        std::mem::replace(&mut self.segments, kept).into_values().collect()
    }

    /// The entries in `from..to` as far as the log has them, those after the first only while they
    /// stay within `bytes_max`: the part to be read from disk, and the part after it from memory.
    pub(super) fn plan_read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<(OnDisk, Vec<WalEntry>)> {
        let mut on_disk = OnDisk::default();
        let mut cached = Vec::new();
        let (Some(first), Some(last)) = (self.first_index(), self.last) else { return Ok((on_disk, cached)) };
        let (from, to) = (from.max(first), to.min(last.index.get() + 1));
        let cache_first = self.cache.front().map_or(u64::MAX, |(_, entry)| entry.id.index.get());
        let mut bytes = 0;
        for index in from..to.min(cache_first) {
            let place =
                self.places.get(index).ok_or_else(|| io::Error::other(format!("entry {index} has no place")))?;
            bytes += place.len as usize;
            if bytes > bytes_max && index > from {
                return Ok((self.with_segments(on_disk), cached));
            }
            on_disk.places.push(place);
        }
        let cached_from = from.max(cache_first);
        let start = usize::try_from(cached_from - cache_first).unwrap_or(0);
        let count = usize::try_from(to.saturating_sub(cached_from)).unwrap_or(0);
        for (_, entry) in self.cache.iter().skip(start).take(count) {
            bytes += entry.payload.len();
            if bytes > bytes_max && entry.id.index.get() > from {
                break;
            }
            cached.push(entry.clone());
        }
        on_disk = self.with_segments(on_disk);
        Ok((on_disk, cached))
    }

    fn with_segments(&self, mut on_disk: OnDisk) -> OnDisk {
        for place in &on_disk.places {
            if let Some(segment) = self.segments.get(&place.segment) {
                on_disk.segments.entry(place.segment).or_insert_with(|| segment.clone());
            }
        }
        on_disk
    }

    /// Every segment, to be verified.
    pub(super) fn segments(&self) -> Vec<(u64, Segment)> {
        self.segments.iter().map(|(sequence, segment)| (*sequence, segment.clone())).collect()
    }

    /// Ends the log; gives the work that will never be done.
    pub(super) fn fail(&mut self, fatal: Arc<Fatal>) -> VecDeque<Queued> {
        self.failed = Some(fatal);
        std::mem::take(&mut self.queue)
    }
}

impl OnDisk {
    /// The file and seed for a place.
    pub(super) fn segment(&self, place: &Place) -> io::Result<(&Arc<dyn DiskFile>, &Segment)> {
        let segment = self.segments.get(&place.segment);
        segment.map(|segment| (&segment.file, segment)).ok_or_else(|| io::Error::other("the segment is gone"))
    }
}
