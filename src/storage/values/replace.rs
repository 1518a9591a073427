//! Putting a snapshot in place of everything: a new generation is filled beside the old one, and
//! then takes over in one step.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::ValueWriter;
use super::commit::Content;
use super::core::Core;
use super::segment::Segment;
use super::shared::Health;
use super::state::{STATE_KEY, State, is_own_row};
use crate::storage::backend::codec::encode_record;
use crate::storage::backend::{Backend, Batch, Home, Table};
use crate::storage::{AppliedPosition, Record, digest};
use crate::types::{Revision, StorageError};

/// A batch of about this size is written at a time: some milliseconds, after which others get their turn.
const BATCH_BYTES: usize = 512 << 10;
/// And this much is flushed at a time, so that an engine can bound its memory. The log's syncs wait for each flush on
/// the same disk, so it is little: on a common one about 5 ms.
const FLUSH_BYTES: usize = 2 << 20;

/// A new content under construction. Nothing is changed until [`ValueWriter::take_over`]; dropping it
/// before leaves the old content.
#[derive(Debug)]
pub struct Replacement {
    home: Home,
    engine: Arc<dyn Backend>,
    batch: Batch,
    unflushed: usize,
    state: State,
    segment: Segment,
    last: Option<Revision>,
}

impl ValueWriter {
    /// Begins a new content; the one that was begun before, if any, is of no use any more.
    ///
    /// # Errors
    /// Those of opening an engine.
    pub fn replace(&mut self) -> Result<Replacement, StorageError> {
        let home = self.shared.core.lock().home.next()?;
        let engine = home.engine()?;
        Ok(Replacement {
            home,
            engine,
            batch: Batch::default(),
            unflushed: 0,
            state: State::default(),
            segment: Segment::default(),
            last: None,
        })
    }
}

impl Replacement {
    /// Adds a record; in ascending order. Gives its digest.
    ///
    /// # Errors
    /// [`StorageError::Mismatch`] out of order, and the engine's.
    pub fn record(&mut self, at: Revision, record: &Record) -> Result<u64, StorageError> {
        if at.main < 0 || at.sub < 0 || self.last.is_some_and(|last| at <= last) {
            return Err(StorageError::Mismatch("records of a snapshot are out of order".into()));
        }
        self.last = Some(at);
        let base = Segment::base_of(at.main);
        if base != self.segment.base() {
            self.put_segment();
            self.segment = Segment::new(base);
        }
        let digest = digest::of_record(at, record);
        self.segment.push(at, record, digest, &mut self.state.records);
        self.batch.put_with(Table::Kv, &at.to_bytes(), |out| encode_record(at, record, out));
        self.write_full()?;
        Ok(digest)
    }

    /// Adds a row of a small table; each key once.
    ///
    /// # Errors
    /// [`StorageError::Mismatch`] for a row that isn't the caller's, and the engine's.
    pub fn row(&mut self, table: Table, key: Bytes, value: Bytes) -> Result<(), StorageError> {
        if matches!(table, Table::Kv | Table::Index) || is_own_row(table, &key) {
            return Err(StorageError::Mismatch("a snapshot's row belongs to a table that keeps its own".into()));
        }
        self.state.rows.add_row(table.id(), &key, &value);
        self.batch.put(table, &key, &value);
        self.write_full()
    }

    fn put_segment(&mut self) {
        let segment = &self.segment;
        if !segment.is_empty() {
            self.batch.put_with(Table::Index, &Segment::key(segment.base()), |out| segment.encode(out));
        }
    }

    fn write_full(&mut self) -> Result<(), StorageError> {
        if self.batch.bytes() < BATCH_BYTES {
            return Ok(());
        }
        self.engine.room(self.batch.bytes() as u64)?;
        self.engine.write(&self.batch)?;
        self.unflushed += self.batch.bytes();
        self.batch.clear();
        if self.unflushed >= FLUSH_BYTES {
            self.engine.flush()?;
            self.unflushed = 0;
        }
        Ok(())
    }

    /// Writes what is left, as the content at `position`, durably; nothing may be added after it.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn seal(&mut self, position: AppliedPosition) -> Result<(), StorageError> {
        self.put_segment();
        self.state.position = position;
        self.state.last_main = self.last.map_or(0, |last| last.main);
        self.batch.put(Table::Meta, STATE_KEY, &self.state.encode());
        self.engine.write(&self.batch)?;
        self.engine.flush()?;
        self.home.testify(position)
    }
}

impl ValueWriter {
    /// Makes a content that is [sealed](Replacement::seal) the only one, durably. What was appended before and not
    /// written is dropped: the snapshot is of a later position.
    ///
    /// # Errors
    /// Those of the engine; the old content is then still in place.
    pub fn take_over(&mut self, mut new: Replacement) -> Result<(), StorageError> {
        let position = new.state.position;
        let shared = Arc::clone(&self.shared);
        let mut core = shared.core.lock();
        if let Health::Failed(why) = &*shared.health.borrow() {
            // The store thread is gone; values have to be opened anew.
            return Err(StorageError::Closed(why.clone()));
        }
        let dropped = core.work.parts.len();
        let waiters = std::mem::take(&mut core.work.waiters);
        tracing::debug!(dropped, "a snapshot takes the place of the content");
        drop(shared.queue.take());
        let in_memory = new.engine.name() == "memory";
        if in_memory {
            // The image that outlives engines takes the content over, so it has to be opened again.
            new.engine.close()?;
        }
        new.home.take_over(&core.home)?;
        let engine = if in_memory { new.home.engine()? } else { new.engine };
        let old = shared.replace_engine(engine);
        self.pending.clear();
        shared.hot.clear();
        shared.front.clear();
        shared.listed.outdate();
        if let Err(error) = old.close() {
            tracing::warn!(%error, "closing the storage engine that a snapshot replaced failed");
        }
        let content = Content { state: new.state, removing: false, flush_took: Duration::ZERO };
        let old_home = std::mem::replace(&mut *core, Core::new(new.home, content)).home;
        old_home.remove();
        self.last_main = new.last.map_or(i64::MIN, |last| last.main);
        self.must_follow = false;
        self.position = position;
        shared.logical_bytes.store(new.state.records.bytes, Ordering::Relaxed);
        shared.removals.store(0, Ordering::Relaxed);
        shared.durable.send_replace(position);
        shared.health.send_if_modified(|health| {
            let waited = matches!(health, Health::Waiting(_));
            if waited {
                *health = Health::Good;
            }
            waited
        });
        shared.queue.signal_room();
        for (_, waiter) in waiters {
            let _ = waiter.send(position);
        }
        Ok(())
    }
}
