//! The engines on disk behind one narrow door.
//!
//! ```text
//! values ─► Backend::write (atomic batch) ─► Backend::flush (durable) ─► position published
//! reads that memory misses ─► Backend::get / visit
//! ```
//!
//! An engine knows tables, keys and bytes; it knows nothing of revisions, records or Raft. One
//! thread writes, removes and flushes; any thread reads. After a crash an engine holds exactly
//! what it held at its last finished [`Backend::flush`], or at a later write, never a part of one.

use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use crate::env::Env;
use crate::types::StorageError;

mod batch;
pub mod codec;
mod memory;

pub use batch::Batch;
pub use memory::MemoryImage;

/// The logical tables. Their numbers are on disk and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Records by revision.
    Kv = 1,
    /// Small things that there is one of: position, compaction point, membership, alarms.
    Meta = 2,
    /// Leases by id.
    Lease = 3,
    /// Users, roles and the switch.
    Auth = 4,
    /// Record heads in packed segments, so that a start needn't read values.
    Index = 5,
}

impl Table {
    /// Every table, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Kv, Self::Meta, Self::Lease, Self::Auth, Self::Index];

    /// The number on disk.
    pub const fn id(self) -> u8 {
        self as u8
    }
}

/// Which engine keeps the data. Chosen when the data directory is made.
#[derive(Clone, Debug)]
pub enum Engine {
    /// An ordered map; what is flushed lives in the image, which outlives the engine.
    Memory(MemoryImage),
}

impl Engine {
    /// The name as on the command line and in the data directory.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
        }
    }
}

/// How to open an engine.
#[derive(Clone, Debug)]
pub struct BackendConfig {
    /// Which.
    pub engine: Engine,
    /// Its directory; made if absent. Nothing else may live there.
    pub dir: PathBuf,
    /// Bytes of memory that the engine may use for its own cache.
    pub cache_bytes: u64,
    /// Bytes that must stay free on the disk; a write that would go below is refused as full.
    pub reserve_bytes: u64,
}

impl BackendConfig {
    /// Free space that is never used up, so that a compaction can still run.
    pub const RESERVE_BYTES_DEFAULT: u64 = 64 << 20;

    /// `engine` in `dir` with 64 MiB of cache.
    pub fn new(engine: Engine, dir: impl Into<PathBuf>) -> Self {
        Self { engine, dir: dir.into(), cache_bytes: 64 << 20, reserve_bytes: Self::RESERVE_BYTES_DEFAULT }
    }
}

/// What is called for each pair of a [`Backend::visit`]; `Break` ends it.
pub type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// An engine: ordered tables of bytes, one atomic batch, one flush.
///
/// `write`, `remove` and `flush` are called by one thread at a time. A failure of theirs other
/// than [`StorageError::Full`] may leave the engine unusable: close it and open it again; it then
/// holds what the last finished flush made durable.
pub trait Backend: Send + Sync + fmt::Debug {
    /// The engine's name.
    fn name(&self) -> &'static str;

    /// The value of one key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError>;

    /// Calls `visitor` for each pair with `start <= key < end` in key order.
    ///
    /// An engine may hold a lock meanwhile: the visitor must not block, and callers page.
    fn visit(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        visitor: &mut Visitor<'_>,
    ) -> Result<(), StorageError>;

    /// Applies a batch: all of it or nothing, readable at return, durable after the next flush.
    fn write(&self, batch: &Batch) -> Result<(), StorageError>;

    /// Removes keys for good and gives their space back; absent keys are skipped. Not atomic.
    fn remove(&self, table: Table, keys: &[Vec<u8>]) -> Result<(), StorageError>;

    /// Makes everything written durable.
    fn flush(&self) -> Result<(), StorageError>;

    /// Bytes on disk.
    fn size(&self) -> Result<u64, StorageError>;

    /// Flushes and lets the files go. Later calls fail with [`StorageError::Closed`].
    fn close(&self) -> Result<(), StorageError>;

    /// Up to `limit` pairs of `start <= key < end`, copied.
    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StorageError> {
        let mut pairs = Vec::new();
        if limit == 0 {
            return Ok(pairs);
        }
        self.visit(table, start, end, &mut |key, value| {
            pairs.push((key.to_vec(), value.to_vec()));
            if pairs.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(pairs)
    }
}

/// Opens the engine that `config` names.
///
/// # Errors
/// [`StorageError::Damaged`] if what is there can't be trusted, I/O errors otherwise.
pub fn open(_env: &Env, config: &BackendConfig) -> Result<Arc<dyn Backend>, StorageError> {
    match &config.engine {
        Engine::Memory(image) => Ok(Arc::new(memory::Memory::open(image.clone()))),
    }
}
