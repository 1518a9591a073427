//! `Store`: the mutable state and how it is published.

use std::sync::Arc;

use bytes::Bytes;

use super::install::InstallHook;
use super::range::Records;
use super::reclaim::Reclaim;
use super::txn::{Change, WriteTxn};
use crate::env::sync::point;
use crate::failpoint::{Point, hit};
use crate::storage::index::{Index, Rows};
use crate::storage::publish::{Compaction, Published, Shared};
use crate::storage::values::{RowChange, ValueWriter};
use crate::storage::{AppliedPosition, EventBatch, EventEntry, ReadError, Record, StoreReader, Table};
use crate::types::{RequestError, Revision, StorageError};

/// The row of [`Table::Meta`] that says what was compacted.
pub(super) const COMPACT_KEY: &[u8] = b"compact_revision";

/// The row of [`Table::Meta`] of a state that is compacted at `revision`, and was at `previous` (−1: never) before.
pub fn compact_row(revision: i64, previous: i64) -> (Bytes, Bytes) {
    let row = [revision.to_be_bytes(), previous.to_be_bytes()].concat();
    (Bytes::from_static(COMPACT_KEY), row.into())
}

/// The writer of the versioned store.
///
/// Invariants: `index` is the state after all of `changes`; `revision` is the main revision of the
/// last committed change; between commands `changes` holds committed ones only.
#[derive(Debug)]
pub struct Store {
    pub(super) index: Index,
    pub(super) revision: i64,
    pub(super) compact: Compaction,
    /// Changes that aren't published yet, by revision.
    pub(super) changes: Vec<Change>,
    /// The other tables, after all of `row_changes`.
    pub(super) rows: Rows,
    /// Changes of other tables that aren't published yet.
    pub(super) row_changes: Vec<RowChange>,
    pub(super) values: ValueWriter,
    pub(super) shared: Arc<Shared>,
    pub(super) reclaim: Reclaim,
    pub(super) install_hook: Option<Box<dyn InstallHook>>,
}

impl Store {
    /// The read side.
    pub fn reader(&self) -> StoreReader {
        StoreReader::new(Arc::clone(&self.shared))
    }

    /// The revision after the last committed change.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The lowest readable revision; −1 if nothing was ever compacted.
    pub fn compact_revision(&self) -> i64 {
        self.compact.revision
    }

    /// The store thread's side: durable position, health, sizes, flush.
    pub fn values(&self) -> &ValueWriter {
        &self.values
    }

    /// Begins one command. A revision is taken only if something is changed.
    pub fn begin(&mut self) -> WriteTxn<'_> {
        WriteTxn::new(self)
    }

    /// Makes the changes of these keys quicker that come next. It is of use if they are some, since the processor
    /// then waits for their parts of the index at the same time and not one after the other.
    pub fn expect<K: AsRef<[u8]>>(&self, keys: &[K]) {
        if keys.len() > 1 {
            self.index.warm(keys);
        }
    }

    /// Sets (or removes, with `None`) a pair of another table in the same batch as the changes around it.
    pub fn put_meta(&mut self, table: Table, key: Bytes, value: Option<Bytes>) {
        self.rows.set(table, &key, value.clone());
        self.row_changes.push((table, key, value));
    }

    /// Forgets history below `revision` at once; the space is given back by [`Store::compact_step`].
    ///
    /// Errors: `Compacted` if it isn't above the last one, `FutureRevision` above the current one.
    pub fn compact(&mut self, revision: i64) -> Result<(), RequestError> {
        if revision <= self.compact.revision {
            return Err(RequestError::Compacted);
        }
        if revision > self.revision {
            return Err(RequestError::FutureRevision);
        }
        hit(Point::CompactBeforeCommitScheduledCompact);
        self.compact = Compaction { revision, previous: self.compact.revision };
        let (key, row) = compact_row(self.compact.revision, self.compact.previous);
        self.put_meta(Table::Meta, key, Some(row));
        hit(Point::CompactAfterCommitScheduledCompact);
        Ok(())
    }

    /// Shows everything committed since the last time to readers, and hands it to the disk.
    ///
    /// `None` if no key changed. Called once for each applied Raft batch.
    ///
    /// # Errors
    /// Those of [`ValueWriter::append`]: the disk has failed. Nothing is shown any more then, what was
    /// committed is gone from memory, and nobody may be answered; the log brings it back.
    pub fn publish(&mut self, position: AppliedPosition) -> Result<Option<Arc<EventBatch>>, StorageError> {
        let mut changes = std::mem::take(&mut self.changes);
        for change in &mut changes {
            // Records wait for the disk, and events for slow streams: neither may hold a whole request meanwhile.
            let wired = Record { key: std::mem::take(&mut change.record.key), version: change.record.version.take() };
            change.record = wired.detached();
        }
        let events: Vec<_> =
            changes.iter().map(|change| EventEntry::new(change.record.event(change.at), change.prev)).collect();
        let superseded = changes.iter().filter_map(|change| change.prev).collect();
        let digests = changes.iter().map(|change| change.digest).collect();
        let records = changes.into_iter().map(|change| (change.at, change.record)).collect();
        self.values.append_over(records, digests, superseded, std::mem::take(&mut self.row_changes), position)?;
        self.show(position);
        let mains = events.first().zip(events.last());
        let mains = mains.map(|(first, last)| (first.event.revision.main, last.event.revision.main));
        Ok(mains.map(|(first_main, last_main)| Arc::new(EventBatch { first_main, last_main, events })))
    }

    /// Replaces what readers see.
    pub(super) fn show(&mut self, position: AppliedPosition) {
        point();
        self.shared.published.store(Arc::new(Published {
            index: self.index.clone(),
            rows: self.rows.clone(),
            revision: self.revision,
            compact: self.compact,
            position,
        }));
        if self.reclaim.allow(self.compact.revision) {
            self.shared.compacted.send_replace(self.compact.revision);
        }
    }

    /// The record of a revision that the index names, if it needs no disk.
    pub(super) fn cached(&self, at: Revision) -> Option<Record> {
        match self.changes.binary_search_by_key(&at, |change| change.at) {
            Ok(found) => Some(self.changes[found].record.clone()),
            Err(_) => self.shared.values.cached(at),
        }
    }

    /// The record of a revision that the index names, waiting for the disk if need be.
    pub(super) fn fetch(&self, at: Revision) -> Result<Record, ReadError> {
        if let Some(record) = self.cached(at) {
            return Ok(record);
        }
        let missing = || StorageError::Closed(format!("the record of revision {at} is missing"));
        Ok(self.shared.values.record(at)?.ok_or_else(missing)?)
    }
}

impl Records for Store {
    fn cached_many(&self, revisions: &[Revision], found: &mut Vec<Option<Record>>) {
        let start = found.len();
        self.shared.values.cached_many(revisions, found);
        if !self.changes.is_empty() {
            // What this command and those of its batch have written isn't among the values yet.
            for (record, at) in found[start..].iter_mut().zip(revisions).filter(|(record, _)| record.is_none()) {
                *record = self.cached(*at);
            }
        }
    }

    fn fetch_many(&self, revisions: &[Revision], bytes_max: usize) -> Result<Vec<(Revision, Record)>, ReadError> {
        Ok(self.shared.values.bring(revisions, bytes_max)?)
    }

    fn fetch(&self, at: Revision) -> Result<Record, ReadError> {
        Self::fetch(self, at)
    }
}
