//! The sled engine, with a fence around each of its known traps.
//!
//! ```text
//! write ─► one batch of one tree (keys carry the table) ─► flush ─► many bytes since opening? recycle
//! get   ─► a reader slot's clone of the tree              visit ─► under the writer's lock
//! ```
//!
//! - A leaf written since opening stays in memory: the handle is closed and opened again
//!   ([`handle`]) when [`Sled::recycle_bytes`] were written, or less in a longer time. Readers wait only then.
//! - A leaf holds up to 128 values of any size and is rewritten as a whole: large values are kept
//!   in pieces ([`pieces`]).
//! - Dropping a clone or an iterator flushes: clones stay in their slots, and what iterates holds
//!   the writer's lock. A flush at any moment is harmless, since a step is one atomic batch.
//! - `Batch::remove` leaves empty leaves behind: [`Backend::remove`] uses `Tree::remove`.
//! - A damaged metadata log is read as a shorter one, and reads may then spin: the log is checked
//!   by us before it is opened ([`verify`]), and opening has a time limit.
//! - After an I/O error the handle refuses everything, and one whose flush failed can't even be dropped: that would wait
//!   for ever, with the directory's lock ([`closing`]). It is forgotten, and the caller opens the files elsewhere.
//! - A flush that nobody sees fail is followed by one that never ends: what flushes in the end of a clone or an iterator
//!   is flushed by us before.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use sled::{InlineArray, Tree};

use super::{Backend, BackendConfig, Batch, Remains, Table, Visitor};
use crate::env::Env;
use crate::types::StorageError;

mod closing;
mod handle;
mod pieces;
mod verify;

use closing::Closing;
use handle::{CLOSE_FAILED_LIMIT, CLOSE_LIMIT, Handle};

/// Entries in a leaf: smaller leaves are cheaper to rewrite, larger ones compress better.
const FANOUT: usize = 128;
/// How far apart, as a power of two, keys that begin with a number may be to count as of one leaf.
const NEIGHBOURS: u32 = 6;
/// What values in a leaf are taken to be.
const TYPICAL_VALUES: usize = FANOUT / 2;
/// What one of them is taken to hold at least.
const TYPICAL_BYTES: usize = 256;
/// What a leaf with both removals and values is taken to keep at least: what stays may be larger than what goes.
const TYPICAL_LEAF_BYTES: usize = 16 << 10;
/// What a leaf in memory takes besides.
const LEAF_BYTES: usize = 4 << 10;
/// What is held is worth an opening at less than the bytes for one, too, once it has been held for longer: when bytes times
/// time are as much as those bytes for this time. Seldom where little is written: what an opening syncs, others' syncs wait for.
const HELD: Duration = Duration::from_secs(64);
/// The least that is worth one, as a part of those bytes.
const LEAST_PART: u64 = 16;
/// Clones of the tree for concurrent reads (a tree can be sent but not shared).
const READERS: usize = 4;

type Reader = Mutex<Option<Tree<FANOUT>>>;

/// The engine.
pub(super) struct Sled {
    env: Env,
    config: BackendConfig,
    /// The writer's handle; `None` once closed or failed.
    writer: Mutex<Option<Handle>>,
    readers: Box<[Reader]>,
    /// The handle that was let go last.
    closing: Mutex<Closing>,
    next_reader: AtomicUsize,
    /// Set by the first failure, which sled remembers too: it refuses everything from then on, and
    /// the second flush after a failed one never ends. So nothing is tried any more.
    failed: AtomicBool,
    recycle_bytes: u64,
    recycled: AtomicU64,
    recycling_us: AtomicU64,
}

impl fmt::Debug for Sled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sled").field("dir", &self.config.dir).finish_non_exhaustive()
    }
}

impl Sled {
    /// Opens what is in the directory, or makes it.
    pub(super) fn open(env: &Env, config: &BackendConfig) -> Result<Self, StorageError> {
        // Opening runs the program `sync` twice, which waits for everything that the machine has to write: let that be done
        // before the time limit runs and, below, before readers are shut out.
        env.disk.settle();
        let writer = Handle::open(env, config)?;
        let readers = (0..READERS).map(|_| Mutex::new(Some(writer.tree()))).collect();
        Ok(Self {
            env: env.clone(),
            config: config.clone(),
            writer: Mutex::new(Some(writer)),
            readers,
            closing: Mutex::new(Closing::Done(Remains::Nothing)),
            next_reader: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            // Pending records, which are many only when nothing was written for a while, leave room for it.
            recycle_bytes: config.cache_bytes.clamp(4 << 20, 64 << 20),
            recycled: AtomicU64::new(0),
            recycling_us: AtomicU64::new(0),
        })
    }

    fn closed(&self) -> StorageError {
        StorageError::Closed(format!("the sled engine in {}", self.config.dir.display()))
    }

    /// Remembers a failure. (A full disk is one as well: sled has noted it.)
    fn watch<T>(&self, result: Result<T, StorageError>) -> Result<T, StorageError> {
        if result.is_err() {
            self.failed.store(true, Ordering::Relaxed);
        }
        result
    }

    fn check(&self) -> Result<(), StorageError> {
        if self.failed.load(Ordering::Relaxed) { Err(self.closed()) } else { Ok(()) }
    }

    /// Runs `work` on a reader's tree.
    fn read<T>(&self, work: impl FnOnce(&Tree<FANOUT>) -> Result<T, StorageError>) -> Result<T, StorageError> {
        let first = self.next_reader.fetch_add(1, Ordering::Relaxed);
        let order = (0..self.readers.len()).map(|step| &self.readers[(first + step) % self.readers.len()]);
        let slot = order.into_iter().find_map(Mutex::try_lock);
        let slot = slot.unwrap_or_else(|| self.readers[first % self.readers.len()].lock());
        let tree = slot.as_ref().ok_or_else(|| self.closed())?;
        self.check()?;
        let done = catch_unwind(AssertUnwindSafe(|| work(tree)));
        self.watch(done.unwrap_or_else(|_| Err(panicked(&self.config, tree))))
    }

    /// Runs `work` on the writer's handle.
    fn write_with<T>(&self, work: impl FnOnce(&mut Handle) -> Result<T, StorageError>) -> Result<T, StorageError> {
        let mut writer = self.writer.lock();
        let handle = writer.as_mut().ok_or_else(|| self.closed())?;
        self.check()?;
        let done = catch_unwind(AssertUnwindSafe(|| work(handle)));
        self.watch(done.unwrap_or_else(|_| Err(panicked(&self.config, handle.tree_ref()))))
    }

    /// Closes the handle and opens another, with readers shut out meanwhile.
    fn recycle(&self, writer: &mut Option<Handle>) -> Result<(), StorageError> {
        self.env.disk.settle();
        let begun = self.env.clock.now();
        let mut slots: Vec<_> = self.readers.iter().map(Mutex::lock).collect();
        let trees = slots.iter_mut().filter_map(|slot| slot.take()).collect();
        if let Some(handle) = writer.take() {
            let mut closing = self.closing.lock();
            *closing = handle.close(&self.env, &self.config, trees);
            closing.wait(&self.config, CLOSE_LIMIT)?;
        }
        // Whether it is damaged a start finds out in the same way, with nothing else that could have hindered this.
        let handle = Handle::open(&self.env, &self.config).map_err(StorageError::undecided)?;
        for slot in &mut slots {
            **slot = Some(handle.tree());
        }
        *writer = Some(handle);
        let took = self.env.clock.now().saturating_duration_since(begun);
        self.recycling_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.recycled.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Backend for Sled {
    fn name(&self) -> &'static str {
        "sled"
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.read(|tree| pieces::get(tree, &self.config, &full_key(table, key)))
    }

    fn get_many(
        &self,
        table: Table,
        keys: &mut dyn Iterator<Item = Vec<u8>>,
        visitor: &mut Visitor<'_>,
    ) -> Result<(), StorageError> {
        self.read(|tree| {
            for key in keys {
                if let Some(value) = pieces::get(tree, &self.config, &full_key(table, &key))?
                    && visitor(&key, &value).is_break()
                {
                    break;
                }
            }
            Ok(())
        })
    }

    fn visit(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        visitor: &mut Visitor<'_>,
    ) -> Result<(), StorageError> {
        self.write_with(|handle| {
            handle.drain(&self.config)?;
            let tree = handle.tree_ref();
            let end = end.map_or(vec![table.id() + 1], |end| full_key(table, end));
            for pair in tree.range(full_key(table, start)..end) {
                let (key, value) = pair.map_err(|error| failure(&self.config, "read", error))?;
                let flow = match pieces::inline(&value) {
                    Some(value) => visitor(&key[1..], value),
                    // Gone in between only if it was removed, and the writer's lock is ours.
                    None => match pieces::get(tree, &self.config, &key)? {
                        Some(value) => visitor(&key[1..], &value),
                        None => ControlFlow::Continue(()),
                    },
                };
                if flow.is_break() {
                    break;
                }
            }
            // The iterator's end flushed, and would not have told of a failure.
            tree.check_error().map_err(|error| failure(&self.config, "flush", error))
        })
    }

    fn write(&self, batch: &Batch) -> Result<(), StorageError> {
        self.write_with(|handle| {
            let tree = handle.tree_ref();
            let mut writes = sled::Batch::default();
            for (table, key, value) in batch.iter() {
                // Records are written once and never in another length; the rest may have pieces to drop.
                if table != Table::Kv {
                    pieces::drop_old(tree, &self.config, &full_key(table, key), value, &mut writes)?;
                }
                match value {
                    Some(value) => pieces::put(&full_key(table, key), value, &mut writes),
                    None => writes.remove(full_key(table, key)),
                }
            }
            tree.apply_batch(writes).map_err(|error| failure(&self.config, "write to", error))?;
            handle.written += batch.bytes() as u64;
            Ok(())
        })
    }

    fn remove(&self, table: Table, keys: &[Vec<u8>]) -> Result<(), StorageError> {
        let mut rest = keys;
        loop {
            rest = &rest[self.remove_some(table, rest)?..];
            if rest.is_empty() {
                return Ok(());
            }
            // What leaves keep by now is worth an opening; by the end of a long list of large values it would be gigabytes.
            self.flush()?;
        }
    }

    fn flush(&self) -> Result<(), StorageError> {
        self.write_with(|handle| handle.flush(&self.config))?;
        let mut writer = self.writer.lock();
        let is_due = |handle: &Handle| {
            let held_for = self.env.clock.now().saturating_duration_since(handle.opened);
            is_due(handle.written, held_for, self.recycle_bytes)
        };
        if writer.as_ref().is_some_and(is_due) {
            return self.watch(self.recycle(&mut writer));
        }
        Ok(())
    }

    fn room(&self, bytes: u64) -> Result<(), StorageError> {
        super::check_room(&self.env, &self.config, bytes)
    }

    fn size(&self) -> Result<u64, StorageError> {
        super::disk_usage(&self.env, &self.config.dir)
    }

    fn recycled(&self) -> (u64, Duration) {
        let took = Duration::from_micros(self.recycling_us.load(Ordering::Relaxed));
        (self.recycled.load(Ordering::Relaxed), took)
    }

    fn close(&self) -> Result<(), StorageError> {
        let failed = self.failed.swap(true, Ordering::Relaxed);
        let mut closing = self.let_go();
        closing.wait(&self.config, if failed { CLOSE_FAILED_LIMIT } else { CLOSE_LIMIT })?;
        if closing.remains() == Remains::Nothing { Ok(()) } else { Err(self.closed()) }
    }

    fn abandon(&self) -> Remains {
        self.failed.store(true, Ordering::Relaxed);
        let mut closing = self.let_go();
        if let Err(error) = closing.wait(&self.config, CLOSE_FAILED_LIMIT) {
            tracing::debug!(%error, "sled could not be closed after a failure");
        }
        closing.remains()
    }
}

impl Sled {
    /// Removes the first keys, until all are gone or leaves keep enough for an opening; gives how many it has removed.
    fn remove_some(&self, table: Table, keys: &[Vec<u8>]) -> Result<usize, StorageError> {
        self.write_with(|handle| {
            let (mut absent, mut done) = (Vec::new(), 0);
            // Neighbours are taken to share a leaf, which a removal makes one that was written.
            let place = |key: &[u8]| key.first_chunk().map(|start| u64::from_be_bytes(*start) >> NEIGHBOURS);
            for near in keys.chunk_by(|a, b| place(a).is_some_and(|a| place(b) == Some(a))) {
                let mut removed = Removed::default();
                for key in near {
                    let key = full_key(table, key);
                    match pieces::remove(handle.tree_ref(), &self.config, &key)? {
                        Some(taken) => removed.add(taken),
                        None => absent.push(key),
                    }
                }
                done += near.len();
                handle.written += removed.held();
                if handle.written >= self.recycle_bytes {
                    break;
                }
            }
            // An earlier try may have come as far as their heads.
            absent.sort_unstable();
            if !absent.is_empty() {
                handle.drain(&self.config)?;
            }
            pieces::remove_orphans(handle.tree_ref(), &self.config, &absent)?;
            Ok(done)
        })
    }

    /// Lets the handle go, if it has one, with nobody in it any more.
    fn let_go(&self) -> MutexGuard<'_, Closing> {
        let mut writer = self.writer.lock();
        let trees = self.readers.iter().filter_map(|slot| slot.lock().take()).collect();
        let mut closing = self.closing.lock();
        if let Some(handle) = writer.take() {
            *closing = handle.close(&self.env, &self.config, trees);
        }
        closing
    }
}

impl Drop for Sled {
    fn drop(&mut self) {
        if self.writer.get_mut().is_some()
            && let Err(error) = self.close()
        {
            tracing::warn!(%error, "closing sled failed");
        }
    }
}

/// Whether what was written since opening is worth another opening; `bytes` are without regard to the time.
fn is_due(written: u64, held_for: Duration, bytes: u64) -> bool {
    let is_old = u128::from(written) * held_for.as_millis() >= u128::from(bytes) * HELD.as_millis();
    written >= bytes || (written >= bytes / LEAST_PART && is_old)
}

/// What was removed of neighbours.
#[derive(Default)]
struct Removed {
    values: usize,
    /// Bytes in the leaves of their keys.
    bytes: usize,
    /// Those of them that were cut in pieces, and the bytes of the pieces.
    cut: usize,
    cut_bytes: usize,
}

impl Removed {
    fn add(&mut self, taken: pieces::Taken) {
        self.values += 1;
        self.bytes += taken.stored;
        self.cut += usize::from(taken.pieces > 0);
        self.cut_bytes += taken.pieces;
    }

    /// What leaves keep in memory after it: themselves, and the rest of their values, taken to be like those.
    fn held(&self) -> u64 {
        let Some(mean) = self.bytes.checked_div(self.values) else { return 0 };
        let leaves = LEAF_BYTES.saturating_mul(1 + self.values / TYPICAL_VALUES);
        let rest = TYPICAL_VALUES.saturating_sub(self.values);
        let values = rest.saturating_mul(mean.clamp(TYPICAL_BYTES, pieces::PIECE_BYTES));
        let heads = leaves.saturating_add(values).max(if rest > 0 { TYPICAL_LEAF_BYTES } else { 0 });
        heads.saturating_add(self.held_of_pieces(rest)) as u64
    }

    /// The same of the leaves of pieces, where each value touches one, and the last one another, as long as there are
    /// other values to share it with.
    fn held_of_pieces(&self, rest: usize) -> usize {
        let Some(mean) = self.cut_bytes.checked_div(self.cut) else { return 0 };
        let leaf = TYPICAL_VALUES * pieces::PIECE_BYTES;
        leaf.saturating_mul(self.cut).min(rest.saturating_mul(mean)).saturating_add(leaf)
    }
}

/// One tree holds all tables: the table's number comes first.
fn full_key(table: Table, key: &[u8]) -> Vec<u8> {
    let mut full = Vec::with_capacity(key.len() + 1);
    full.push(table.id());
    full.extend_from_slice(key);
    full
}

/// What a panic of the engine says: it asserts where it doubts what it read, and where an error that it noted has ended
/// a part of it.
fn panicked(config: &BackendConfig, tree: &Tree<FANOUT>) -> StorageError {
    match tree.check_error() {
        Err(noted) => failure(config, "work in", noted),
        Ok(()) => damaged(config, "sled met what it can't work with and panicked"),
    }
}

fn damaged(config: &BackendConfig, what: &str) -> StorageError {
    StorageError::Damaged { path: config.dir.clone(), offset: 0, what: what.to_owned() }
}

fn failure(config: &BackendConfig, action: &'static str, error: io::Error) -> StorageError {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => damaged(config, &error.to_string()),
        _ => StorageError::io(action, &config.dir, error),
    }
}

/// Short name for what goes into a batch.
type Bytes = InlineArray;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::backend::Engine;

    // Cause: a new directory's first leaf isn't on the disk until it is written, and a cache that it doesn't fit in let it go
    // when it was read. Symptom: the next look for it never came to an end.
    #[test]
    fn a_new_store_can_be_read_whatever_its_cache() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = BackendConfig { cache_bytes: 0, ..BackendConfig::new(Engine::Sled, dir.path().join("sled")) };
        let engine = Sled::open(&Env::real(), &config).expect("opened");
        for _ in 0..2 {
            assert_eq!(engine.get(Table::Meta, b"k").expect("read"), None);
        }
        let mut batch = Batch::default();
        batch.put(Table::Meta, b"k", b"v");
        engine.write(&batch).expect("written");
        engine.flush().expect("flushed");
        assert_eq!(engine.get(Table::Meta, b"k").expect("read"), Some(b"v".to_vec()));
    }

    #[test]
    fn what_is_removed_is_not_held() {
        let held = |values, bytes| Removed { values, bytes, ..Removed::default() }.held();
        assert_eq!(held(0, 0), 0);
        assert_eq!(held(1, 300), 4096 + 63 * 300);
        assert_eq!(held(51, 51 * 300), 16 << 10);
        assert_eq!(held(32, 32 << 20), 4096 + 32 * (16 << 10));
        assert_eq!(held(1, 10), 4096 + 63 * 256);
        assert_eq!(held(640, 640 * 300), 11 * 4096);
    }

    // Cause: what stays in leaves of pieces wasn't counted. Symptom: a compaction of large values took all memory.
    #[test]
    fn the_pieces_of_what_stays_are_held() {
        let held = |values, mean: usize| {
            let mut removed = Removed::default();
            (0..values).for_each(|_| removed.add(pieces::Taken { stored: 14, pieces: mean }));
            removed.held() - Removed { values, bytes: 14 * values, ..Removed::default() }.held()
        };
        assert_eq!(held(1, 1 << 20), 2 << 20);
        assert_eq!(held(32, 1 << 20), 33 << 20);
        assert_eq!(held(32, 100 << 10), (32 * (100 << 10)) + (1 << 20));
        assert_eq!(held(64, 1 << 20), 1 << 20, "nothing is left beside them");
    }

    #[test]
    fn the_less_is_written_the_less_is_held_and_the_longer() {
        const MIB: u64 = 1 << 20;
        let is_due = |written: u64, secs: u64| is_due(written, Duration::from_secs(secs), 32 * MIB);
        assert!(is_due(32 * MIB, 0) && !is_due(31 * MIB, 1), "much is written");
        assert!(is_due(16 * MIB, 128) && !is_due(16 * MIB, 127));
        assert!(is_due(4 * MIB, 512) && !is_due(4 * MIB, 511));
        assert!(is_due(2 * MIB, 1024) && !is_due(2 * MIB, 1023));
        assert!(!is_due(MIB, 1_000_000), "not worth it");
    }
}
