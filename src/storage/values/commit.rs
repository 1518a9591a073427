//! One step of the store thread: everything that came in goes to the engine under one flush.
//!
//! ```text
//! records of the pending map ─► Kv      removals ─► Kv (removed), Index (rewritten)
//! their heads ─► Index (the last segment is rewritten until it is full)
//! rows ─► Meta, Lease, Auth             position and totals ─► Meta
//! ```
//!
//! A step either ends with a finished flush and a new state, or with an error and the old one.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::pending::View;
use super::queue::Work;
use super::segment::Segment;
use super::shared::Shared;
use super::state::{STATE_KEY, State};
use crate::storage::backend::codec::encode_record;
use crate::storage::backend::{Backend, Batch, Table};
use crate::types::{Revision, StorageError};

/// A batch of about this size is written at a time; all of a step's are under one flush.
const BATCH_BYTES: usize = 4 << 20;

/// The engine's content as of the last finished flush.
#[derive(Debug)]
pub(super) struct Committer {
    shared: Arc<Shared>,
    state: State,
    /// The last segment, still growing.
    tail: Segment,
}

/// A step under way.
struct Step<'a> {
    engine: &'a dyn Backend,
    batch: Batch,
    state: State,
    tail: Segment,
}

impl Committer {
    /// Continues from a state that was read at opening.
    pub(super) fn new(shared: Arc<Shared>, state: State) -> Self {
        Self { shared, state, tail: Segment::default() }
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Writes and flushes.
    pub(super) fn commit(&mut self, work: &Work, remove: &[Revision]) -> Result<(), StorageError> {
        let engine = self.shared.engine();
        let mut step = Step { engine: &*engine, batch: Batch::default(), state: self.state, tail: self.tail.clone() };
        if let Some((first, last)) = work.mains {
            step.records(&self.shared, &self.shared.pending.view(), first, last)?;
        }
        step.rows(work)?;
        step.removals(&self.shared, remove)?;
        if let Some(position) = work.position {
            step.state.position = position;
        }
        step.batch.put(Table::Meta, STATE_KEY, &step.state.encode());
        step.write()?;
        engine.flush()?;
        (self.state, self.tail) = (step.state, step.tail);
        Ok(())
    }
}

impl Step<'_> {
    fn write(&mut self) -> Result<(), StorageError> {
        self.engine.write(&self.batch)?;
        self.batch.clear();
        Ok(())
    }

    fn records(&mut self, shared: &Shared, view: &View, first: i64, last: i64) -> Result<(), StorageError> {
        let end = Revision::new(last.saturating_add(1), 0);
        for (at, record) in view.range(Revision::new(first, 0), end) {
            self.batch.put_with(Table::Kv, &at.to_bytes(), |out| encode_record(at, record, out));
            let base = Segment::base_of(at.main);
            if base != self.tail.base() || self.tail.is_empty() {
                self.put_tail();
                self.tail = self.segment(shared, base)?.unwrap_or_else(|| Segment::new(base));
            }
            self.tail.push(at, record, &mut self.state.records);
            if self.batch.bytes() >= BATCH_BYTES {
                self.write()?;
            }
        }
        self.put_tail();
        Ok(())
    }

    fn put_tail(&mut self) {
        let tail = &self.tail;
        if !tail.is_empty() {
            self.batch.put_with(Table::Index, &Segment::key(tail.base()), |out| tail.encode(out));
        }
    }

    fn segment(&self, shared: &Shared, base: u64) -> Result<Option<Segment>, StorageError> {
        let stored = self.engine.get(Table::Index, &Segment::key(base))?;
        stored
            .map(|value| Segment::decode(base, &value))
            .transpose()
            .map_err(|error| shared.undecodable(format_args!("segment {base}"), error))
    }

    fn rows(&mut self, work: &Work) -> Result<(), StorageError> {
        let mut last: BTreeMap<(Table, &[u8]), Option<&[u8]>> = BTreeMap::new();
        for (table, key, value) in &work.rows {
            last.insert((*table, key), value.as_deref());
        }
        for ((table, key), value) in last {
            if let Some(old) = self.engine.get(table, key)? {
                self.state.rows.subtract_row(table.id(), key, &old);
            }
            match value {
                Some(value) => {
                    self.state.rows.add_row(table.id(), key, value);
                    self.batch.put(table, key, value);
                }
                None => self.batch.delete(table, key),
            }
        }
        Ok(())
    }

    /// Removes the records, rewrites the segments that listed them and drops the empty ones.
    fn removals(&mut self, shared: &Shared, remove: &[Revision]) -> Result<(), StorageError> {
        if remove.is_empty() {
            return Ok(());
        }
        self.write()?;
        let mut sorted = remove.to_vec();
        sorted.sort_unstable();
        let keys: Vec<Vec<u8>> = sorted.iter().map(|at| at.to_bytes().to_vec()).collect();
        self.engine.remove(Table::Kv, &keys)?;
        let mut empty = Vec::new();
        for group in sorted.chunk_by(|a, b| Segment::base_of(a.main) == Segment::base_of(b.main)) {
            let base = Segment::base_of(group[0].main);
            let Some(mut segment) = self.segment(shared, base)? else {
                continue;
            };
            segment
                .retain(&mut self.state.records, |at| group.binary_search(&at).is_err())
                .map_err(|error| shared.undecodable(format_args!("segment {base}"), error))?;
            if base == self.tail.base() {
                self.tail = segment.clone();
            }
            if segment.is_empty() {
                empty.push(Segment::key(base).to_vec());
            } else {
                self.batch.put_with(Table::Index, &Segment::key(base), |out| segment.encode(out));
            }
            if self.batch.bytes() >= BATCH_BYTES {
                self.write()?;
            }
        }
        self.engine.remove(Table::Index, &empty)?;
        Ok(())
    }
}
