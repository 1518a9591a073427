//! `ValueWriter`: the one owner of writing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;

use super::doomed::Doomed;
use super::pending::PendingWriter;
use super::queue::{Part, Removal};
use super::shared::{Health, Shared};
use super::state::is_own_row;
use super::worker::StoreWorker;
use super::{RowChange, ValuesConfig, record_bytes};
use crate::env::Env;
use crate::storage::AppliedPosition;
use crate::storage::{Record, Table, digest};
use crate::types::{Revision, StorageError};

/// What a record in the pending map costs besides its logical bytes.
const PENDING_OVERHEAD_BYTES: u64 = 80;

/// Hands records to the store thread. There is one writer; dropping it flushes and closes.
#[derive(Debug)]
pub struct ValueWriter {
    pub(super) shared: Arc<Shared>,
    pub(super) pending: PendingWriter,
    pub(super) last_main: i64,
    /// Whether `last_main` is in the pending map (or was), so that the next one must follow it: what
    /// an engine or a snapshot ends with may lie before the state's revision.
    pub(super) must_follow: bool,
    /// Of the last append.
    pub(super) position: AppliedPosition,
}

impl ValueWriter {
    pub(super) fn start(env: &Env, shared: Arc<Shared>, config: &ValuesConfig) -> Result<Self, StorageError> {
        let worker = StoreWorker::new(env.clone(), Arc::clone(&shared), config);
        let thread = env.spawn.spawn("store", Box::new(worker));
        shared.queue.serve(thread.map_err(|error| StorageError::io("start a thread for", &*shared.dir, error))?);
        let position = *shared.durable.borrow();
        Ok(Self {
            pending: PendingWriter::new(Arc::clone(&shared.pending)),
            last_main: i64::MIN,
            must_follow: false,
            position,
            shared,
        })
    }

    /// Takes the records and row changes that lead to `position`; readers see them at return.
    ///
    /// All records of a main revision come in one call, in ascending order, above every record
    /// before, and no main revision is left out. Waits only when the pending budget is used up.
    ///
    /// # Errors
    /// [`StorageError::Closed`] after the engine was given up, [`StorageError::Mismatch`] if the
    /// revisions are out of order; nothing was taken then.
    pub fn append(
        &mut self,
        records: Vec<(Revision, Record)>,
        rows: Vec<RowChange>,
        position: AppliedPosition,
    ) -> Result<(), StorageError> {
        let digests = records.iter().map(|(at, record)| digest::of_record(*at, record)).collect();
        self.append_over(records, digests, Vec::new(), rows, position)
    }

    /// As [`ValueWriter::append`], with the records' digests, which whoever keeps an index has, and which
    /// older versions the records take the place of: those leave the hot cache, so that its budget
    /// holds what is current.
    ///
    /// # Errors
    /// As [`ValueWriter::append`].
    pub fn append_over(
        &mut self,
        records: Vec<(Revision, Record)>,
        digests: Vec<u64>,
        superseded: Vec<Revision>,
        rows: Vec<RowChange>,
        position: AppliedPosition,
    ) -> Result<(), StorageError> {
        self.wait_for_room()?;
        let in_order = records.is_sorted_by(|(a, _), (b, _)| a < b);
        if !in_order || records.first().is_some_and(|(at, _)| at.main <= self.last_main || at.main < 0) {
            return Err(StorageError::Mismatch("records were appended out of order".into()));
        }
        if digests.len() != records.len() {
            return Err(StorageError::Mismatch("records were appended without their digests".into()));
        }
        let is_whole = records.windows(2).all(|pair| pair[1].0.main - pair[0].0.main <= 1);
        let follows = |(at, _): &(Revision, Record)| !self.must_follow || at.main - 1 == self.last_main;
        if !is_whole || !records.first().is_none_or(follows) {
            return Err(StorageError::Mismatch("a revision was left out between appends".into()));
        }
        let misplaced =
            |(table, key, _): &RowChange| matches!(table, Table::Kv | Table::Index) || is_own_row(*table, key);
        if rows.iter().any(misplaced) {
            return Err(StorageError::Mismatch("a row was appended to a table that keeps its own".into()));
        }
        let mains = records.first().zip(records.last()).map(|((first, _), (last, _))| (first.main, last.main));
        let mut bytes = 0;
        let mut logical = 0;
        if records.len() > 1 {
            self.shared.front.warm(records.iter().map(|(_, record)| &record.key[..]));
        }
        // Before any of them is published: nobody reads these revisions yet.
        for (at, record) in &records {
            self.shared.front.note(&record.key, *at, record.version.is_some());
        }
        let mut records = records.into_iter().peekable();
        while let Some((at, record)) = records.next() {
            let size = record_bytes(&record);
            logical += size;
            let mut held = size + PENDING_OVERHEAD_BYTES;
            let more = |next: &(Revision, Record)| next.0.main == at.main;
            if at.sub == 0 && !records.peek().is_some_and(more) {
                self.pending.push_one(at.main, record, held);
            } else {
                let mut all = vec![(at.sub, record)];
                while let Some((next, record)) = records.next_if(more) {
                    let size = record_bytes(&record);
                    logical += size;
                    held += size + PENDING_OVERHEAD_BYTES;
                    all.push((next.sub, record));
                }
                self.pending.push(at.main, all, held);
            }
            bytes += held;
        }
        if let Some((_, last)) = mains {
            (self.last_main, self.must_follow) = (last, true);
        }
        self.shared.logical_bytes.fetch_add(logical, Ordering::Relaxed);
        let row_bytes =
            rows.iter().map(|(_, key, value)| key.len() + value.as_ref().map_or(0, |value| value.len())).sum();
        let urgent = self.shared.pending.bytes() >= self.shared.flush_at.load(Ordering::Relaxed);
        self.position = position;
        self.shared.queue.add(|work| {
            work.append(Part { mains, bytes, digests, rows, row_bytes, superseded, position, closed: false });
            work.urgent |= urgent;
        });
        Ok(())
    }

    fn wait_for_room(&self) -> Result<(), StorageError> {
        let shared = &self.shared;
        if shared.pending.bytes() >= shared.pending_bytes_max {
            shared
                .queue
                .wait_for_room(|| shared.pending.bytes() >= shared.pending_bytes_max && self.failed().is_none());
        }
        self.failed().map_or(Ok(()), |why| Err(StorageError::Closed(why)))
    }

    fn failed(&self) -> Option<String> {
        self.shared.failed()
    }

    /// Removes records for good, some at a time. The caller has stored a compaction point that
    /// makes them unreadable; after a crash it finds those that are left and asks again.
    ///
    /// Once these and all handed over before are gone from the engine, durably, `done` is raised to
    /// its number, unless it is above.
    pub fn remove(&mut self, revisions: Doomed, done: Option<(watch::Sender<i64>, i64)>) {
        let after = self.position;
        self.shared.removals.fetch_add(revisions.len(), Ordering::Relaxed);
        self.shared.queue.add(|work| {
            work.remove.push_back(Removal { after, revisions, done });
            // What makes them unreadable has to be durable first.
            work.urgent = true;
        });
    }

    /// Records that were handed to [`ValueWriter::remove`] and aren't gone yet.
    pub fn removals(&self) -> usize {
        self.shared.removals.load(Ordering::Relaxed)
    }

    /// The position of the last finished flush: the Raft log isn't needed up to there.
    pub fn durable(&self) -> watch::Receiver<AppliedPosition> {
        self.shared.durable.subscribe()
    }

    /// How the store thread is.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }

    /// Makes everything appended so far durable; gives the position that then is.
    ///
    /// The future doesn't borrow the writer.
    ///
    /// # Errors
    /// [`StorageError::Closed`] if the engine was given up first.
    pub fn flush(&self) -> impl Future<Output = Result<AppliedPosition, StorageError>> + Send + use<> {
        self.shared.flush()
    }

    /// Logical bytes of all records that are stored (see [`record_bytes`]).
    pub fn logical_size(&self) -> u64 {
        self.shared.logical_bytes.load(Ordering::Relaxed)
    }

    /// Bytes on disk.
    pub fn disk_size(&self) -> Result<u64, StorageError> {
        self.shared.engine().size()
    }
}

impl Drop for ValueWriter {
    fn drop(&mut self) {
        self.shared.queue.add(|work| (work.last, work.urgent) = (true, true));
        self.shared.queue.join();
    }
}
