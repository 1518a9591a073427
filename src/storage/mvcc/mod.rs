//! The versioned store's writer: a single owner, plain values, no lock.
//!
//! ```text
//! begin ─► WriteTxn (put, delete, range) ─► commit ─► … ─► publish ─► ValueWriter, ArcSwap, EventBatch
//! ```

mod txn;

pub use txn::{PutOutcome, WriteTxn};

use std::sync::Arc;

use bytes::Bytes;

use crate::storage::{AppliedPosition, EventBatch, StoreReader, Table};
use crate::types::RequestError;

/// What a store found on disk when it was opened, for the rooms above.
#[derive(Debug, Default)]
pub struct Opened {
    /// Up to where the log is in it.
    pub position: AppliedPosition,
    /// The pairs of [`Table::Meta`].
    pub meta: Vec<(Bytes, Bytes)>,
    /// The pairs of [`Table::Lease`].
    pub leases: Vec<(Bytes, Bytes)>,
    /// The pairs of [`Table::Auth`].
    pub auth: Vec<(Bytes, Bytes)>,
}

/// The writer of the versioned store.
#[derive(Debug)]
pub struct Store {}

impl Store {
    /// The read side.
    pub fn reader(&self) -> StoreReader {
        StoreReader {}
    }

    /// The revision after the last committed change.
    pub fn revision(&self) -> i64 {
        1
    }

    /// The lowest readable revision; −1 if nothing was ever compacted.
    pub fn compact_revision(&self) -> i64 {
        -1
    }

    /// Begins one command. A revision is taken only if something is changed.
    pub fn begin(&mut self) -> WriteTxn<'_> {
        WriteTxn::new(self)
    }

    /// Sets (or removes, with `None`) a pair of another table in the same batch as the changes around it.
    pub fn put_meta(&mut self, table: Table, key: Bytes, value: Option<Bytes>) {
        let _ = (table, key, value);
    }

    /// Forgets history below `revision` at once; the space is given back by steps.
    ///
    /// Errors: `Compacted` if it isn't above the last one, `FutureRevision` above the current one.
    pub fn compact(&mut self, revision: i64) -> Result<(), RequestError> {
        let _ = revision;
        Ok(())
    }

    /// Shows everything committed since the last time to readers, and hands it to the disk.
    ///
    /// `None` if no key changed. Called once for each applied Raft batch.
    pub fn publish(&mut self, position: AppliedPosition) -> Option<Arc<EventBatch>> {
        let _ = position;
        None
    }
}

impl Store {
    /// An empty store whose disk is memory; for tests and for trying things out.
    pub fn in_memory() -> Self {
        Self {}
    }
}
