//! One step of the store thread: some parts of the work go to the engine under one flush.
//!
//! ```text
//! records of the pending map ─► Kv          ┐
//! their heads ─► Index (segments rewritten) │ one batch, then the removals
//! rows ─► Meta, Lease, Auth                 │ from Kv, then one flush
//! position, totals, what is removed ─► Meta ┘
//! ```
//!
//! The batch is atomic and holds a position with all that belongs to it. Removals are not atomic:
//! the batch takes them out of the segments and totals and notes them in a row, and a start does
//! again what the row says.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use super::pending::{Hole, View};
use super::queue::Part;
use super::segment::Segment;
use super::shared::Shared;
use super::state::{REMOVING_KEY, STATE_KEY, State, encode_removing};
use crate::failpoint::{Point, hit};
use crate::storage::backend::codec::encode_record;
use crate::storage::backend::{Backend, Batch, Table};
use crate::types::{Revision, StorageError};

/// The engine's content as of the last finished flush.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content {
    pub(super) state: State,
    /// Whether the row of removals is there.
    pub(super) removing: bool,
    /// How long the flush took that made it durable, an opening to give memory back aside.
    pub(super) flush_took: Duration,
}

impl Content {
    /// Writes and flushes; gives the new content. The engine is in between after an error.
    pub(super) fn advance<'a>(
        self,
        shared: &Shared,
        engine: &dyn Backend,
        parts: impl Iterator<Item = &'a Part> + Clone,
        remove: &[Revision],
    ) -> Result<Self, StorageError> {
        hit(Point::CommitBeforePreCommitHook);
        // What a record counts while it is pending is more than what it and its head take here.
        let bytes: u64 = parts.clone().map(|part| part.bytes).sum();
        let batch = Batch::with_room(usize::try_from(bytes).unwrap_or(0));
        let mut step = Step { shared, engine, batch, state: self.state, segments: BTreeMap::new() };
        let view = shared.pending.view();
        for part in parts.clone() {
            if let Some((first, last)) = part.mains {
                step.records(&view, first, last, &part.digests)?;
                step.state.last_main = last;
            }
            step.state.position = part.position;
        }
        step.rows(parts)?;
        let empty = step.removals(remove)?;
        for segment in step.segments.values() {
            step.batch.put_with(Table::Index, &Segment::key(segment.base()), |out| segment.encode(out));
        }
        if !remove.is_empty() {
            step.batch.put(Table::Meta, REMOVING_KEY, &encode_removing(remove));
        } else if self.removing {
            step.batch.delete(Table::Meta, REMOVING_KEY);
        }
        step.batch.put(Table::Meta, STATE_KEY, &step.state.encode());
        hit(Point::BeforeCommit);
        engine.write(&step.batch)?;
        remove_physically(engine, remove, &empty)?;
        let (begun, recycling) = (shared.now(), engine.recycled().1);
        engine.flush()?;
        let recycled = engine.recycled().1.saturating_sub(recycling);
        let flush_took = shared.now().saturating_duration_since(begun).saturating_sub(recycled);
        hit(Point::AfterCommit);
        Ok(Self { state: step.state, removing: !remove.is_empty(), flush_took })
    }
}

/// Removes records, and segments that list nothing any more.
pub(super) fn remove_physically(
    engine: &dyn Backend,
    records: &[Revision],
    segments: &[u64],
) -> Result<(), StorageError> {
    if !records.is_empty() {
        let keys: Vec<Vec<u8>> = records.iter().map(|at| at.to_bytes().to_vec()).collect();
        engine.remove(Table::Kv, &keys)?;
    }
    if !segments.is_empty() {
        let keys: Vec<Vec<u8>> = segments.iter().map(|base| Segment::key(*base).to_vec()).collect();
        engine.remove(Table::Index, &keys)?;
    }
    Ok(())
}

/// A step under way.
struct Step<'a> {
    shared: &'a Shared,
    engine: &'a dyn Backend,
    batch: Batch,
    state: State,
    /// Segments that the step changes.
    segments: BTreeMap<u64, Segment>,
}

impl Step<'_> {
    /// The records of these main revisions, which have so many digests as they are.
    fn records(&mut self, view: &View, first: i64, last: i64, digests: &[u64]) -> Result<(), StorageError> {
        let end = Revision::new(last.saturating_add(1), 0);
        let (mut hole, mut reached) = (None, first.saturating_sub(1));
        let mut left = digests.iter();
        for (at, record) in view.range(Revision::new(first, 0), end, &mut hole) {
            let Some(digest) = left.next() else { break };
            reached = at.main;
            self.batch.put_with(Table::Kv, &at.to_bytes(), |out| encode_record(at, record, out));
            let mut totals = self.state.records;
            self.segment(Segment::base_of(at.main))?.push(at, record, *digest, &mut totals);
            self.state.records = totals;
        }
        // The position that is stored with them must not pass over records that aren't there.
        if hole.is_some() || reached != last || left.next().is_some() {
            return Err(hole.unwrap_or(Hole(reached.saturating_add(1))).into());
        }
        Ok(())
    }

    /// A segment to change: the one that the step has already, or the engine's, or a new one.
    fn segment(&mut self, base: u64) -> Result<&mut Segment, StorageError> {
        Ok(match self.segments.entry(base) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let stored = self.engine.get(Table::Index, &Segment::key(base))?;
                let segment = match stored {
                    Some(value) => Segment::decode(base, &value)
                        .map_err(|error| self.shared.undecodable(format_args!("segment {base}"), error))?,
                    None => Segment::new(base),
                };
                entry.insert(segment)
            }
        })
    }

    /// The last change of each row; what was there is counted out.
    fn rows<'a>(&mut self, parts: impl Iterator<Item = &'a Part>) -> Result<(), StorageError> {
        let mut last: BTreeMap<(Table, &[u8]), Option<&[u8]>> = BTreeMap::new();
        for (table, key, value) in parts.flat_map(|part| &part.rows) {
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

    /// Takes revisions (ascending) out of their segments; gives the segments that are then empty.
    fn removals(&mut self, remove: &[Revision]) -> Result<Vec<u64>, StorageError> {
        let mut empty = Vec::new();
        for group in remove.chunk_by(|a, b| Segment::base_of(a.main) == Segment::base_of(b.main)) {
            let base = Segment::base_of(group[0].main);
            let (shared, mut totals) = (self.shared, self.state.records);
            let segment = self.segment(base)?;
            let mut group = group.iter().peekable();
            segment
                .retain(&mut totals, |at| {
                    while group.next_if(|doomed| **doomed < at).is_some() {}
                    group.peek() != Some(&&at)
                })
                .map_err(|error| shared.undecodable(format_args!("segment {base}"), error))?;
            if segment.is_empty() {
                empty.push(base);
            }
            self.state.records = totals;
        }
        Ok(empty)
    }
}
