//! What a start finds: position, small tables, and the heads of all records in revision order.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::segment::Segment;
use super::state::{STATE_KEY, State, Totals};
use super::{RecordHead, shared::compact};
use crate::storage::AppliedPosition;
use crate::storage::backend::{Backend, BackendConfig, Table};
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

/// Reads the account and the small tables, and checks the one by the other.
pub(super) fn load(engine: &Arc<dyn Backend>, config: &BackendConfig) -> Result<(State, Loaded), StorageError> {
    let damaged = |what: String| StorageError::Damaged {
        path: config.dir.clone(),
        offset: 0,
        what: format!("{what} ({})", engine.name()),
    };
    let stored = engine.get(Table::Meta, STATE_KEY)?;
    let state = match &stored {
        Some(bytes) => State::decode(bytes).map_err(|error| damaged(format!("the state row: {error}")))?,
        None => State::default(),
    };
    let mut counted = Totals::default();
    let mut tables = [Table::Meta, Table::Lease, Table::Auth].into_iter().map(|table| {
        let mut rows = Vec::new();
        engine.visit(table, &[], None, &mut |key, value| {
            // The engine side's own rows are in `Meta` only: a lease's key may well begin with a zero byte.
            if table != Table::Meta || key.first() != Some(&0) {
                counted.add_row(table.id(), key, value);
                rows.push((compact(key), compact(value)));
            }
            ControlFlow::Continue(())
        })?;
        Ok::<_, StorageError>(rows)
    });
    let mut next = || tables.next().unwrap_or_else(|| Ok(Vec::new()));
    let (meta, lease, auth) = (next()?, next()?, next()?);
    drop(tables);
    if !state.rows_match(counted) {
        return Err(damaged("the small tables are not what was written".into()));
    }
    let records = RecordHeads {
        engine: Arc::clone(engine),
        expected: state.records,
        counted: Totals::default(),
        next: Some(0),
        heads: VecDeque::new(),
        config: config.clone(),
    };
    Ok((state, Loaded { position: state.position, meta, lease, auth, records }))
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
    config: BackendConfig,
}

impl RecordHeads {
    /// How many records there are.
    pub fn count(&self) -> u64 {
        self.expected.count
    }

    fn damaged(&self, what: String) -> StorageError {
        StorageError::Damaged { path: self.config.dir.clone(), offset: 0, what }
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
                    path: self.config.dir.clone(),
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
