//! `SharedEvent`: one live event, encoded once, shared by every stream that it goes to.
//!
//! It keeps its own encoded bytes and nothing of the batch it came from, so that a stream that stands still pins
//! what its mailbox was charged for and no more. The form with the previous pair is made by the first stream that
//! needs it and kept by the hub's bounded [`PrevCache`] only; for a stream that comes late it is made again.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use super::encode::{event_field, event_field_with_prev};
use super::history::HistorySource;
use crate::storage::{EventEntry, Record};
use crate::types::{Revision, StorageError};

/// What an event costs a mailbox besides its bytes: the shared parts and their allocations.
const EVENT_OVERHEAD_BYTES: usize = 192;

/// An event on its way to streams.
#[derive(Debug)]
pub(crate) struct SharedEvent {
    /// Main revision.
    pub(crate) main: i64,
    /// The whole `events` field without a previous pair.
    pub(crate) plain: Bytes,
    prev: Option<Revision>,
    with_prev: Mutex<Weak<Bytes>>,
}

impl SharedEvent {
    /// Encodes an event of a batch.
    pub(crate) fn new(entry: &EventEntry) -> Arc<Self> {
        Arc::new(Self {
            main: entry.event.revision.main,
            plain: event_field(&entry.event, None),
            prev: entry.prev,
            with_prev: Mutex::new(Weak::new()),
        })
    }

    /// Bytes that it is charged with.
    pub(crate) fn cost(&self) -> usize {
        self.plain.len() + EVENT_OVERHEAD_BYTES
    }

    /// The field with the previous pair if that can be had without blocking.
    pub(crate) fn with_prev_now(&self, source: &dyn HistorySource, cache: &PrevCache) -> Option<Bytes> {
        let Some(at) = self.prev else { return Some(self.plain.clone()) };
        if let Some(made) = self.with_prev.lock().upgrade() {
            return Some(made.as_ref().clone());
        }
        source.cached(at).map(|record| self.make(at, Some(&record), cache))
    }

    /// The field with the previous pair, read from the disk if need be; without it if it was compacted away.
    pub(crate) fn with_prev(&self, source: &dyn HistorySource, cache: &PrevCache) -> Result<Bytes, StorageError> {
        if let Some(made) = self.with_prev_now(source, cache) {
            return Ok(made);
        }
        let Some(at) = self.prev else { return Ok(self.plain.clone()) };
        let record = source.record(at)?;
        Ok(self.make(at, record.as_ref(), cache))
    }

    fn make(&self, at: Revision, record: Option<&Record>, cache: &PrevCache) -> Bytes {
        let Some(prev) = record.and_then(|record| record.key_value(at)) else { return self.plain.clone() };
        let made = Arc::new(event_field_with_prev(&self.plain, &prev));
        *self.with_prev.lock() = Arc::downgrade(&made);
        let bytes = made.as_ref().clone();
        cache.keep(made);
        bytes
    }
}

/// The events of one batch that one group of watchers wants, in order; never empty.
#[derive(Debug)]
pub(crate) struct Matched {
    pub(crate) events: Vec<Arc<SharedEvent>>,
    /// What the events cost a mailbox.
    pub(crate) cost: usize,
}

impl Matched {
    pub(crate) fn new(events: Vec<Arc<SharedEvent>>) -> Arc<Self> {
        let cost = EVENT_OVERHEAD_BYTES + events.iter().map(|event| event.cost()).sum::<usize>();
        Arc::new(Self { events, cost })
    }

    /// The first main revision.
    pub(crate) fn first(&self) -> i64 {
        self.events.first().map_or(0, |event| event.main)
    }
}

/// The newest encoded events with their previous pairs, up to a number of bytes; at least the newest one.
#[derive(Debug)]
pub(crate) struct PrevCache {
    bytes_max: usize,
    kept: Mutex<(VecDeque<Arc<Bytes>>, usize)>,
}

impl PrevCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self { bytes_max, kept: Mutex::default() }
    }

    fn keep(&self, made: Arc<Bytes>) {
        let mut kept = self.kept.lock();
        let (queue, bytes) = &mut *kept;
        *bytes += made.len();
        queue.push_back(made);
        // The newest stays, however large: each stream that asks for it would make it anew.
        while *bytes > self.bytes_max && queue.len() > 1 {
            let Some(old) = queue.pop_front() else { break };
            *bytes -= old.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cause: an event larger than the whole cache took itself out. Symptom: a thousand streams that watch a key of more than
    /// a megabyte with the pair before read it a thousand times, and held as many copies.
    #[test]
    fn the_newest_event_is_shared_however_large() {
        let cache = PrevCache::new(10);
        let (large, small) = (Arc::new(Bytes::from(vec![0; 100])), Arc::new(Bytes::from(vec![0; 6])));
        let held = [&large, &small].map(Arc::downgrade);
        cache.keep(large);
        assert!(held[0].upgrade().is_some());
        cache.keep(small);
        assert!(held[0].upgrade().is_none() && held[1].upgrade().is_some());
        cache.keep(Arc::new(Bytes::from(vec![0; 4])));
        assert!(held[1].upgrade().is_some(), "both fit");
    }
}
