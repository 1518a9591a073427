//! The published state: one `ArcSwap` between the one writer and all readers.
//!
//! ```text
//! Store ─ publish ─► ArcSwap<Published> ─ one load ─► Snapshot (frozen) ─► index ─► value
//! ```
//!
//! Nothing here writes: a [`StoreReader`] can be given to anyone.

mod snapshot;

pub use snapshot::{Disk, HashKv, ReadError, Snapshot};

use crate::storage::{AppliedPosition, History, HistoryError, Record};
use crate::types::{Revision, StorageError};

/// The read side of the store; cheap to clone.
#[derive(Clone, Debug)]
pub struct StoreReader {}

impl StoreReader {
    /// What is published now, frozen; counted in [`StoreReader::snapshots_live`] until it is dropped.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {}
    }

    /// The current revision, without a snapshot.
    pub fn revision(&self) -> i64 {
        1
    }

    /// What of the log the published state holds.
    pub fn position(&self) -> AppliedPosition {
        AppliedPosition::default()
    }

    /// Snapshots that someone holds.
    pub fn snapshots_live(&self) -> u64 {
        0
    }

    /// The events from main revision `from_main` on, of at most `revisions_max` revisions and about
    /// `bytes_max` bytes of keys and values, but at least one whole revision.
    ///
    /// May block on the engine: call it where blocking is allowed.
    pub fn events(&self, from_main: i64, revisions_max: usize, bytes_max: usize) -> Result<History, HistoryError> {
        let _ = (revisions_max, bytes_max);
        Ok(History { events: Vec::new(), next_main: from_main })
    }

    /// The record written at `at`, for an event's previous pair; `None` if it was compacted away.
    ///
    /// May block on the engine unless [`StoreReader::cached`] has it.
    pub fn record(&self, at: Revision) -> Result<Option<Record>, StorageError> {
        let _ = at;
        Ok(None)
    }

    /// The record written at `at` if it is in memory.
    pub fn cached(&self, at: Revision) -> Option<Record> {
        let _ = at;
        None
    }
}
