//! `StoreReader`: the read side that can be given to anyone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::counts::StoreCounts;
use super::pages::Pages;
use super::snapshot::{self, Disk, ReadError, Snapshot};
use super::{Published, Shared};
use crate::env::sync::point;
use crate::storage::values::ValueReader;
use crate::storage::{AppliedPosition, History, HistoryError, RangeQuery, RangeResult, Record, Scoped};
use crate::types::{Event, KeyValue, Revision, StorageError};

/// The read side of the store; a clone costs one reference count.
#[derive(Clone, Debug)]
pub struct StoreReader {
    shared: Arc<Shared>,
}

impl StoreReader {
    pub(in crate::storage) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// What is published now, frozen; counted in [`StoreReader::snapshots_live`] until it is dropped.
    ///
    /// One wait-free load. A single short read is cheaper by [`StoreReader::get`] or
    /// [`StoreReader::range`], which hold nothing.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(Arc::clone(&self.shared), false)
    }

    /// A snapshot whose records stay readable as long as it is held: compaction waits with removing
    /// any. For writing the state to a file, not for clients' reads.
    pub fn snapshot_pinned(&self) -> Snapshot {
        Snapshot::new(Arc::clone(&self.shared), true)
    }

    /// One key as of now, without a snapshot: one load, one descent, one look at the values in memory.
    ///
    /// Errors: [`ReadError::NeedsDisk`] if the value isn't in memory and `disk` is [`Disk::Never`].
    pub fn get(&self, key: &[u8], disk: Disk) -> Result<Scoped<Option<KeyValue>>, ReadError> {
        self.with(|published| snapshot::get(published, &self.shared.values, key, disk))
    }

    /// A range read of what is published now, without a snapshot (02 §3 of the rules).
    ///
    /// Errors: `Compacted`, `FutureRevision`; [`ReadError::NeedsDisk`] as in [`StoreReader::get`].
    pub fn range(&self, query: &RangeQuery, disk: Disk) -> Result<Scoped<RangeResult>, ReadError> {
        self.with(|published| snapshot::range(published, &self.shared.values, query, disk))
    }

    /// The values below, for what is asked of the engine and not of a revision.
    pub fn values(&self) -> &ValueReader {
        &self.shared.values
    }

    /// What was changed since the store was opened.
    pub fn counts(&self) -> &StoreCounts {
        &self.shared.counts
    }

    /// The current revision.
    pub fn revision(&self) -> i64 {
        self.with(|published| published.revision)
    }

    /// The lowest readable revision; −1 if nothing was ever compacted.
    pub fn compact_revision(&self) -> i64 {
        self.with(|published| published.compact.revision)
    }

    /// Up to where the log is in the published state.
    pub fn position(&self) -> AppliedPosition {
        self.with(|published| published.position)
    }

    /// Bytes of all kept records as of this moment, for the quota and for `db_size_in_use`.
    pub fn logical_size(&self) -> u64 {
        self.shared.values.logical_size()
    }

    /// Snapshots that someone holds.
    pub fn snapshots_live(&self) -> u64 {
        self.shared.gauge.live()
    }

    /// How long the oldest held snapshot has been held, to the second.
    pub fn snapshot_age_max(&self) -> Duration {
        self.shared.gauge.oldest()
    }

    /// The published compact revision, as it goes up.
    pub fn compacted(&self) -> watch::Receiver<i64> {
        self.shared.compacted.subscribe()
    }

    /// The compact revision whose removed versions are really gone, as it goes up.
    ///
    /// A caller that wants the space back waits until it is at or above the revision it compacted at.
    pub fn reclaimed(&self) -> watch::Receiver<i64> {
        self.shared.reclaimed.subscribe()
    }

    /// The events from main revision `from_main` on, of at most `revisions_max` revisions and about
    /// `bytes_max` bytes of keys and values, but at least one whole revision if there is one.
    ///
    /// May block on the engine: call it where blocking is allowed.
    ///
    /// Errors: [`HistoryError::Compacted`] if `from_main` is below the compact revision, also if it
    /// came to be so meanwhile.
    pub fn events(&self, from_main: i64, revisions_max: usize, bytes_max: usize) -> Result<History, HistoryError> {
        let (revision, _) = self.readable_from(from_main)?;
        let mut pages = Pages::new(Revision::new(from_main.max(0), 0), revision);
        let mut taken = Taken::new(revision.saturating_add(1), revisions_max, bytes_max);
        while !taken.full
            && let Some(page) = pages.next(&self.shared.values)?
        {
            taken.take(page);
        }
        // What a compaction removed while we read is missing from the pages.
        let (_, compact) = self.readable_from(from_main)?;
        drop_superseded(&mut taken.events, compact);
        Ok(History { next_main: taken.next_main.max(from_main), events: taken.events })
    }

    /// The record written at `at`, for an event's previous pair; `None` if it was compacted away.
    ///
    /// May block on the engine unless [`StoreReader::cached`] has it.
    pub fn record(&self, at: Revision) -> Result<Option<Record>, StorageError> {
        self.shared.values.record(at)
    }

    /// The record written at `at` if it is in memory.
    pub fn cached(&self, at: Revision) -> Option<Record> {
        self.shared.values.cached(at)
    }

    /// The current and the compact revision, if events from `from_main` on are still there.
    fn readable_from(&self, from_main: i64) -> Result<(i64, i64), HistoryError> {
        self.with(|published| match published.compact.revision {
            compact if from_main < compact => Err(HistoryError::Compacted(compact)),
            compact => Ok((published.revision, compact)),
        })
    }

    /// A short read of what is published now; the guard spares the reference count that all readers would fight for.
    fn with<T>(&self, read: impl FnOnce(&Published) -> T) -> T {
        let published = self.shared.published.load();
        point();
        read(&published)
    }
}

/// Leaves of the compact revision itself what a compaction keeps: the last change of each key.
///
/// A txn can put a key and delete it again. The put's record goes some time after the compaction;
/// until then it is left out here, so that what is seen doesn't depend on how far that is.
fn drop_superseded(events: &mut Vec<Event>, compact: i64) {
    let count = events.iter().take_while(|event| event.revision.main == compact).count();
    if count < 2 {
        return;
    }
    let mut last_of = HashMap::with_capacity(count);
    for event in &events[..count] {
        last_of.insert(event.kv.key.clone(), event.revision);
    }
    events.retain(|event| last_of.get(&event.kv.key).is_none_or(|last| event.revision >= *last));
}

/// Events taken so far, of whole revisions.
struct Taken {
    events: Vec<Event>,
    /// The first revision that isn't taken, once `full` is set; else where to go on after the last page.
    next_main: i64,
    full: bool,
    /// The revision of the last event.
    main: i64,
    revisions_left: usize,
    bytes_left: usize,
}

impl Taken {
    fn new(next_main: i64, revisions_max: usize, bytes_max: usize) -> Self {
        let revisions_left = revisions_max.max(1);
        Self { events: Vec::new(), next_main, full: false, main: -1, revisions_left, bytes_left: bytes_max }
    }

    /// Takes records in order until a revision begins that is too many.
    fn take(&mut self, page: Vec<(Revision, Record)>) {
        for (at, record) in page {
            if at.main != self.main {
                if self.revisions_left == 0 || (self.bytes_left == 0 && !self.events.is_empty()) {
                    (self.next_main, self.full) = (at.main, true);
                    return;
                }
                self.revisions_left -= 1;
                self.main = at.main;
            }
            self.bytes_left = self.bytes_left.saturating_sub(record.size());
            self.events.push(record.event(at));
        }
    }
}
