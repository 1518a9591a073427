//! Values by revision: pending, hot, and on the engine.
//!
//! ```text
//! append ─► pending map ──────────────┬─► store thread: batch ─► write ─► flush ─► durable position
//!             (readable at once)      └── leaves pending only after the flush
//! read   ─► pending ─► hot cache ─► engine (may block)
//! ```
//!
//! No put and no read of a recent value touches the engine. The engine's content is always the
//! state at exactly one [`AppliedPosition`](crate::storage::AppliedPosition): records, their heads, the small tables and the
//! position go in batches under one flush, and what isn't flushed is still in the pending map, so
//! that a failed engine is opened again and written again without loss.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::env::Env;
use crate::storage::Record;
use crate::storage::backend::{BackendConfig, Engine, Home, Table};
use crate::types::{LeaseId, StorageError};

mod commit;
mod core;
mod digests;
mod doomed;
mod freeze;
mod front;
mod hot;
mod listed;
mod load;
mod pace;
mod pending;
mod queue;
mod reader;
mod replace;
mod segment;
mod shared;
mod state;
mod worker;
mod writer;

pub use doomed::Doomed;
pub use freeze::Frozen;
pub use load::{Loaded, RecordHeads};
pub use reader::{Page, PageLimits, ValueReader, Warmed};
pub use replace::Replacement;
pub use shared::Health;
pub use writer::ValueWriter;

/// Logical bytes that a stored record counts besides its key and value.
pub const RECORD_OVERHEAD_BYTES: u64 = 48;

/// A record's logical size: what the quota counts, the same on every engine.
pub fn record_bytes(record: &Record) -> u64 {
    let value = record.version.as_ref().map_or(0, |version| version.value.len());
    RECORD_OVERHEAD_BYTES + record.key.len() as u64 + value as u64
}

/// What an index needs to know of a record: everything but the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordHead {
    /// The key.
    pub key: Bytes,
    /// The version, or `None` for a tombstone.
    pub version: Option<VersionHead>,
}

/// The stored part of a put without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionHead {
    /// Main revision of the put that began the generation.
    pub create_revision: i64,
    /// Puts since creation, 1 for the first.
    pub version: i64,
    /// The lease, or none.
    pub lease: LeaseId,
    /// Length of the value in bytes.
    pub value_bytes: u64,
    /// The record's digest (`storage::digest`), which covers the value.
    pub digest: u64,
}

/// A row of a small table, to set or (with `None`) to unset.
pub type RowChange = (Table, Bytes, Option<Bytes>);

/// How the values are kept.
#[derive(Clone, Debug)]
pub struct ValuesConfig {
    /// The engine and where it lies; its `cache_bytes` is set from the budget below.
    pub backend: BackendConfig,
    /// The whole memory budget in bytes: a quarter for pending, half for hot and what leads to it, an eighth for
    /// the engine; the rest for what all of them hold around that.
    pub cache_bytes: u64,
    /// The longest time between an append and its flush. The log has what isn't flushed, so the interval costs
    /// nobody but a restart after a crash, and that no more than `flush_bytes`; each flush writes the engine's newest
    /// leaves anew, of which one holds the heads of thousands of revisions.
    pub flush_interval: Duration,
    /// Pending bytes from which a flush is begun at once: what a restart replays, and memory.
    pub flush_bytes: u64,
    /// The most records that a flush removes, or as many more as the last segment has; by its time a
    /// step removes fewer, so that a compaction leaves room for writes.
    pub remove_step: usize,
}

impl ValuesConfig {
    /// The budget's default.
    pub const CACHE_BYTES_DEFAULT: u64 = 256 << 20;

    /// The defaults for an engine in a directory.
    pub fn new(engine: Engine, dir: impl Into<std::path::PathBuf>) -> Self {
        Self {
            backend: BackendConfig::new(engine, dir),
            cache_bytes: Self::CACHE_BYTES_DEFAULT,
            flush_interval: Duration::from_secs(30),
            flush_bytes: 4 << 20,
            remove_step: 1 << 18,
        }
    }
}

/// Opens the values: the one writer, a reader to clone, and what is there.
///
/// # Errors
/// [`StorageError::Damaged`] if the content doesn't agree with its own account of itself; the
/// caller puts the directory aside and rebuilds it from a snapshot and the log.
pub fn open(env: &Env, mut config: ValuesConfig) -> Result<(ValueWriter, ValueReader, Loaded), StorageError> {
    config.backend.cache_bytes = config.cache_bytes / 8;
    let home = Home::open(env, &config.backend)?;
    let engine = home.engine()?;
    let (content, loaded) = load::load(&home, &engine)?;
    let shared = Arc::new(shared::Shared::new(env, engine, &config, core::Core::new(home, content)));
    let reader = ValueReader::new(Arc::clone(&shared));
    let writer = ValueWriter::start(env, shared, &config)?;
    Ok((writer, reader, loaded))
}

#[cfg(test)]
mod tests;
