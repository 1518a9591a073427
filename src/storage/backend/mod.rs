//! The engines on disk behind one narrow door.
//!
//! ```text
//! values ─► Backend::write (atomic batch) ─► Backend::flush (durable) ─► position published
//! reads that memory misses ─► Backend::get / visit
//! ```
//!
//! An engine knows tables, keys and bytes; it knows nothing of revisions, records or Raft. One
//! thread writes, removes and flushes; any thread reads. After a crash an engine holds exactly
//! what it held at its last finished [`Backend::flush`], or after a later write, never a part of
//! one; removals since that flush may have happened or not, key by key.

use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::env::{Access, Env};
use crate::types::StorageError;

mod ballast;
mod batch;
pub mod codec;
mod home;
mod memory;
mod observed;
mod redb;
mod sled;

pub use batch::Batch;
pub use home::{Home, quarantine};
pub use memory::MemoryImage;
pub use observed::EngineObserver;

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
    /// sled 1.0: compresses, gives space back by itself. The default.
    Sled,
    /// redb: strict memory, cheap cold reads, twice the disk.
    Redb,
}

impl Engine {
    /// The name as on the command line and in the data directory.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Sled => "sled",
            Self::Redb => "redb",
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
    /// Bytes of the disk below which nothing new is accepted; what was before may use half of them, and is refused as full
    /// where it would go below that.
    pub reserve_bytes: u64,
    /// How often a process may move the files of an engine that failed ([`Home::move_house`]); each time takes
    /// [`BackendConfig::MOVE_FILES`] open files for good.
    pub moves_max: u64,
    /// Is told how long writes and flushes take.
    pub observer: Option<Arc<dyn EngineObserver>>,
}

impl BackendConfig {
    /// Free space that nothing new takes, so that what was accepted and a compaction find room.
    pub const RESERVE_BYTES_DEFAULT: u64 = 64 << 20;

    /// Bytes that an engine is taken to write for each that it is given.
    pub const WRITTEN_FOR_ONE: u64 = 3;

    /// Moves of a process that has files enough for them.
    pub const MOVES_DEFAULT: u64 = 8;
    /// Open files that an engine keeps which failed and was moved away from, at most.
    pub const MOVE_FILES: u64 = 80;

    /// `engine` in `dir` with 64 MiB of cache.
    pub fn new(engine: Engine, dir: impl Into<PathBuf>) -> Self {
        let reserve_bytes = Self::RESERVE_BYTES_DEFAULT;
        Self {
            engine,
            dir: dir.into(),
            cache_bytes: 64 << 20,
            reserve_bytes,
            moves_max: Self::MOVES_DEFAULT,
            observer: None,
        }
    }
}

/// What an engine that was let go of after a failure leaves of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remains {
    /// Nothing: its files can be opened again.
    Nothing,
    /// Its lock, for as long as the process lives, so that the files can't be opened where they are. It never writes
    /// into them again: this process may open them elsewhere ([`Home::move_house`]).
    Lock,
    /// Maybe more: it hasn't come to its end yet and may still write.
    Writer,
}

/// What is called for each pair of a [`Backend::visit`]; `Break` ends it.
pub type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// A key and its value, copied out of the engine.
pub type Pair = (Vec<u8>, Vec<u8>);

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

    /// Applies a batch: all of it or nothing, readable at return, durable after the next flush at
    /// the latest (an engine may make it durable earlier).
    fn write(&self, batch: &Batch) -> Result<(), StorageError>;

    /// Calls `visitor` for each of the keys that is there, in the order given. Cheaper than as many
    /// gets, and never in the writer's way.
    fn get_many(
        &self,
        table: Table,
        keys: &mut dyn Iterator<Item = Vec<u8>>,
        visitor: &mut Visitor<'_>,
    ) -> Result<(), StorageError> {
        for key in keys {
            if let Some(value) = self.get(table, &key)?
                && visitor(&key, &value).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// Whether `bytes` more may be written and flushed (0 for removals); [`StorageError::Full`] if
    /// not. Asked before a write, since a disk that is full in the middle of one may cost the engine its handle.
    fn room(&self, bytes: u64) -> Result<(), StorageError>;

    /// Removes keys for good and gives their space back; absent keys are skipped. Not atomic.
    fn remove(&self, table: Table, keys: &[Vec<u8>]) -> Result<(), StorageError>;

    /// Makes everything written durable.
    fn flush(&self) -> Result<(), StorageError>;

    /// Bytes on disk.
    fn size(&self) -> Result<u64, StorageError>;

    /// How often its handle was closed and opened again to give memory back, and how long that took in all.
    fn recycled(&self) -> (u64, Duration) {
        (0, Duration::ZERO)
    }

    /// Flushes and lets the files go. Later calls fail with [`StorageError::Closed`].
    fn close(&self) -> Result<(), StorageError>;

    /// Lets go of an engine that failed, or that can't be used for another reason; may be asked again. Later calls
    /// fail with [`StorageError::Closed`].
    fn abandon(&self) -> Remains {
        if let Err(error) = self.close() {
            tracing::debug!(%error, "an engine that failed was closed with an error");
        }
        Remains::Nothing
    }

    /// Up to `limit` pairs of `start <= key < end`, copied.
    fn scan(&self, table: Table, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<Pair>, StorageError> {
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
pub fn open(env: &Env, config: &BackendConfig) -> Result<Arc<dyn Backend>, StorageError> {
    let inner: Arc<dyn Backend> = match &config.engine {
        Engine::Memory(image) => Arc::new(memory::Memory::open(image.clone())),
        Engine::Sled => Arc::new(sled::Sled::open(env, config)?),
        Engine::Redb => Arc::new(redb::Redb::open(env, config)?),
    };
    Ok(match config.observer.clone() {
        None => inner,
        Some(observer) => Arc::new(observed::Observed { inner, env: env.clone(), observer }),
    })
}

/// Refuses when `bytes` more would leave less than half of the reserve: new requests are refused before it is touched, and what
/// removes waits behind what comes here. A flush may write several times what it was given: whole leaves or pages, and a
/// log of them. Removals (0 bytes) may use half of what is left then, since they give more back.
fn check_room(env: &Env, config: &BackendConfig, bytes: u64) -> Result<(), StorageError> {
    let part = if bytes == 0 { 4 } else { 2 };
    let written = bytes.saturating_mul(BackendConfig::WRITTEN_FOR_ONE);
    if free_bytes(env, config)? < (config.reserve_bytes / part).saturating_add(written) {
        return Err(StorageError::Full { path: config.dir.clone() });
    }
    Ok(())
}

fn free_bytes(env: &Env, config: &BackendConfig) -> Result<u64, StorageError> {
    env.disk.free_bytes(&config.dir).map_err(|error| StorageError::io("measure", &config.dir, error))
}

/// Bytes of all files below a directory.
fn disk_usage(env: &Env, dir: &Path) -> Result<u64, StorageError> {
    let io = |error| StorageError::io("measure", dir, error);
    let mut bytes = 0;
    for name in env.disk.list(dir).map_err(io)? {
        let path = dir.join(name);
        bytes += match env.disk.list(&path) {
            Ok(_) => disk_usage(env, &path)?,
            // Not a directory; or gone since, as a log that was merged.
            Err(_) => env.disk.open(&path, Access::Read).and_then(|file| file.size()).unwrap_or(0),
        };
    }
    Ok(bytes)
}
