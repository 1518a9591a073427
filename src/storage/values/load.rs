//! What a start finds: position, small tables, and the heads of all records in revision order.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::RecordHead;
use super::commit::{Content, remove_physically};
use super::segment::Segment;
use super::state::{REMOVING_KEY, STATE_KEY, State, Totals, decode_removing, is_own_row};
use crate::storage::AppliedPosition;
use crate::storage::backend::{Backend, Home, Table};
use crate::types::{Revision, StorageError};

/// Bytes of segments that are read at a time.
const PAGE_BYTES: usize = 4 << 20;

/// The content at the moment of opening.
#[derive(Debug)]
pub struct Loaded {
    /// The last entry that is contained.
    pub position: AppliedPosition,
    /// The rows of `Meta` in key order, without the engine side's own.
    pub meta: Vec<(Bytes, Bytes)>,
    /// The rows of `Lease` in key order.
    pub lease: Vec<(Bytes, Bytes)>,
    /// The rows of `Auth` in key order.
    pub auth: Vec<(Bytes, Bytes)>,
    /// The heads of all records. Read it to its end: only then is it known to be complete.
    pub records: RecordHeads,
}

/// Finishes what a crash interrupted, reads the account and the small tables, and checks the one
/// by the other.
pub(super) fn load(home: &Home, engine: &Arc<dyn Backend>) -> Result<(Content, Loaded), StorageError> {
    let dir = home.engine_dir();
    let damaged = |what: String| StorageError::Damaged {
        path: dir.clone(),
        offset: 0,
        what: format!("{what} ({})", engine.name()),
    };
    let state = match engine.get(Table::Meta, STATE_KEY)? {
        Some(bytes) => State::decode(&bytes).map_err(|error| damaged(format!("the state row: {error}")))?,
        None => State::default(),
    };
    home.cross_examine(state.position)?;
    let removing = finish_removals(&**engine, damaged)?;
    let mut counted = Totals::default();
    let mut rows = |table| {
        let mut rows = Vec::new();
        engine.visit(table, &[], None, &mut |key, value| {
            if !is_own_row(table, key) {
                counted.add_row(table.id(), key, value);
                rows.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            }
            ControlFlow::Continue(())
        })?;
        Ok::<_, StorageError>(rows)
    };
    let (meta, lease, auth) = (rows(Table::Meta)?, rows(Table::Lease)?, rows(Table::Auth)?);
    if !state.rows_match(counted) {
        return Err(damaged("the small tables are not what was written".into()));
    }
    let records = RecordHeads::new(Arc::clone(engine), dir, state.records);
    let content = Content { state, removing, flush_took: Duration::ZERO };
    Ok((content, Loaded { position: state.position, meta, lease, auth, records }))
}

/// Does again what the row of removals names; whether there is one.
pub(super) fn finish_removals(
    engine: &dyn Backend,
    damaged: impl FnOnce(String) -> StorageError,
) -> Result<bool, StorageError> {
    let Some(bytes) = engine.get(Table::Meta, REMOVING_KEY)? else { return Ok(false) };
    let revisions = decode_removing(&bytes).map_err(|error| damaged(format!("the row of removals: {error}")))?;
    remove_again(engine, &revisions)?;
    Ok(true)
}

/// Does removals again whose batch is in but which a crash may have cut short.
fn remove_again(engine: &dyn Backend, revisions: &[Revision]) -> Result<(), StorageError> {
    let mut bases: Vec<u64> = revisions.iter().map(|at| Segment::base_of(at.main)).collect();
    bases.dedup();
    let mut empty = Vec::new();
    for base in bases {
        let stored = engine.get(Table::Index, &Segment::key(base))?;
        if stored.is_some_and(|value| Segment::decode(base, &value).is_ok_and(|segment| segment.is_empty())) {
            empty.push(base);
        }
    }
    remove_physically(engine, revisions, &empty)
}

/// The heads of all records in revision order. After the last one it compares what it saw with
/// what the engine should hold, and ends with an error if they differ.
#[derive(Debug)]
pub struct RecordHeads {
    engine: Arc<dyn Backend>,
    expected: Totals,
    counted: Totals,
    /// The next segment to read; `None` after the last.
    next: Option<u64>,
    heads: VecDeque<(Revision, RecordHead)>,
    dir: PathBuf,
}

impl RecordHeads {
    pub(super) fn new(engine: Arc<dyn Backend>, dir: PathBuf, expected: Totals) -> Self {
        Self { engine, expected, counted: Totals::default(), next: Some(0), heads: VecDeque::new(), dir }
    }

    /// How many records there are.
    pub fn count(&self) -> u64 {
        self.expected.count
    }

    fn damaged(&self, what: String) -> StorageError {
        StorageError::Damaged { path: self.dir.clone(), offset: 0, what }
    }

    /// Reads about [`PAGE_BYTES`] of segments; keys are slices of the segments' buffers.
    fn fill(&mut self, from: u64) -> Result<(), StorageError> {
        let mut page: Vec<(u64, Bytes)> = Vec::new();
        let mut bytes = 0;
        let mut misnamed = false;
        self.engine.visit(Table::Index, &Segment::key(from), None, &mut |key, value| {
            let Ok(key) = <[u8; 8]>::try_from(key) else {
                misnamed = true;
                return ControlFlow::Break(());
            };
            bytes += value.len();
            page.push((u64::from_be_bytes(key), Bytes::copy_from_slice(value)));
            if bytes < PAGE_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if misnamed {
            return Err(self.damaged("a segment's key is not 8 bytes long".into()));
        }
        self.next = page.last().filter(|_| bytes >= PAGE_BYTES).and_then(|(base, _)| base.checked_add(1));
        for (base, value) in page {
            let heads = &mut self.heads;
            Segment::heads(base, &value, &mut self.counted, |at, head| heads.push_back((at, head.to_head(&value))))
                .map_err(|error| StorageError::Damaged {
                    path: self.dir.clone(),
                    offset: 0,
                    what: format!("segment {base}: {error}"),
                })?;
        }
        if self.next.is_none() && self.counted != self.expected {
            return Err(self.damaged(format!(
                "{} records of {} bytes were found where {} of {} were written",
                self.counted.count, self.counted.bytes, self.expected.count, self.expected.bytes
            )));
        }
        Ok(())
    }
}

impl Iterator for RecordHeads {
    type Item = Result<(Revision, RecordHead), StorageError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(head) = self.heads.pop_front() {
                return Some(Ok(head));
            }
            let from = self.next.take()?;
            if let Err(error) = self.fill(from) {
                self.heads.clear();
                self.next = None;
                return Some(Err(error));
            }
        }
    }
}
