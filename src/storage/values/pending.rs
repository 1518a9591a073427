//! The pending map: records that are published but not yet durable, addressed by revision.
//!
//! ```text
//! directory (ArcSwap) ─► chunks by first main revision ─► a slot for each main ─► record by sub
//! ```
//!
//! Main revisions come in order and without holes, so a chunk is an array and a lookup is a
//! binary search over few chunks and one index. Readers take no lock: they load the directory,
//! and a slot is a `OnceLock` that is set once. A chunk goes when everything in it is durable.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;

use crate::env::sync::{Mutex, point};
use crate::storage::Record;
use crate::types::{Revision, StorageError};

/// Main revisions in a chunk.
const CHUNK_MAINS: usize = 512;
/// A chunk with more bytes than this is closed, so that what stays behind its flushed part is small.
const CHUNK_BYTES: u64 = 1 << 20;

/// The records of one main revision.
#[derive(Debug)]
enum Entry {
    /// One record, of sub 0: nearly all there are.
    One(Record),
    /// Records by ascending sub.
    Many(Box<[(i64, Record)]>),
}

#[derive(Debug)]
struct Chunk {
    /// Main revision of the first slot.
    first: i64,
    slots: Box<[OnceLock<Entry>]>,
}

impl Chunk {
    fn new(first: i64) -> Self {
        Self { first, slots: (0..CHUNK_MAINS).map(|_| OnceLock::new()).collect() }
    }

    fn entry(&self, main: i64) -> Option<&Entry> {
        let slot = usize::try_from(main.checked_sub(self.first)?).ok()?;
        self.slots.get(slot)?.get()
    }
}

/// Chunks by ascending first revision. An entry lies in the last chunk that begins at or before it.
type Directory = Vec<Arc<Chunk>>;

/// The shared map.
#[derive(Debug, Default)]
pub(super) struct Pending {
    directory: ArcSwap<Directory>,
    /// Held while the directory is replaced; never by readers.
    change: Mutex<()>,
    bytes: AtomicU64,
    /// Main revisions up to this one are on the engine; some may be here still, in a chunk that
    /// isn't wholly durable.
    retired: AtomicI64,
    /// No main revision below this one is here, so that most reads needn't look into the directory.
    first: AtomicI64,
}

impl Pending {
    /// The record of a revision, if it is here.
    pub(super) fn get(&self, at: Revision) -> Option<Record> {
        if at.main < self.first() {
            return None;
        }
        let directory = self.directory.load();
        if directory.first().is_none_or(|chunk| at.main < chunk.first) {
            return None;
        }
        let after = directory.partition_point(|chunk| chunk.first <= at.main);
        match directory.get(after.checked_sub(1)?)?.entry(at.main)? {
            Entry::One(record) => (at.sub == 0).then(|| record.clone()),
            Entry::Many(records) => {
                let found = records.binary_search_by_key(&at.sub, |(sub, _)| *sub).ok()?;
                Some(records[found].1.clone())
            }
        }
    }

    /// The lowest main revision that may be here.
    pub(super) fn first(&self) -> i64 {
        self.first.load(Ordering::Acquire)
    }

    /// What is here now, held for a walk.
    pub(super) fn view(&self) -> View {
        // In this order: a chunk that goes between the two loads is then still in the view.
        let directory = self.directory.load_full();
        point();
        View { directory, retired: self.retired.load(Ordering::Acquire) }
    }

    /// Bytes that are not durable yet.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Everything up to `main` is durable and readable on the engine: `bytes` of it may go.
    pub(super) fn retire(&self, main: i64, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.retired.fetch_max(main, Ordering::Release);
        point();
        let _change = self.change.lock();
        let directory = self.directory.load();
        // The last chunk stays: the writer may be filling it.
        let gone = directory.windows(2).take_while(|pair| pair[1].first <= main.saturating_add(1)).count();
        if gone > 0 {
            self.directory.store(Arc::new(directory[gone..].to_vec()));
            self.first.store(directory[gone].first, Ordering::Release);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        let _change = self.change.lock();
        // What comes next may be of lower revisions; it is shown to nobody before this is.
        self.first.store(0, Ordering::Release);
        self.directory.store(Arc::default());
        self.bytes.store(0, Ordering::Relaxed);
        self.retired.store(0, Ordering::Release);
    }
}

/// The writing end. There is one.
#[derive(Debug)]
pub(super) struct PendingWriter {
    shared: Arc<Pending>,
    tail: Option<Tail>,
}

#[derive(Debug)]
struct Tail {
    chunk: Arc<Chunk>,
    bytes: u64,
}

impl PendingWriter {
    pub(super) fn new(shared: Arc<Pending>) -> Self {
        Self { shared, tail: None }
    }

    /// Makes the records of one main revision visible. `records` are of ascending sub, not empty,
    /// and `main` is above every one before it.
    pub(super) fn push(&mut self, main: i64, mut records: Vec<(i64, Record)>, bytes: u64) {
        let entry = match records.pop() {
            Some((0, record)) if records.is_empty() => Entry::One(record),
            Some(last) => {
                records.push(last);
                Entry::Many(records.into_boxed_slice())
            }
            None => return,
        };
        self.set(main, entry, bytes);
    }

    /// The same for a single record of sub 0, without a list.
    pub(super) fn push_one(&mut self, main: i64, record: Record, bytes: u64) {
        self.set(main, Entry::One(record), bytes);
    }

    fn set(&mut self, main: i64, entry: Entry, bytes: u64) {
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        let slot = self
            .tail
            .as_ref()
            .filter(|tail| tail.bytes < CHUNK_BYTES)
            .and_then(|tail| usize::try_from(main - tail.chunk.first).ok())
            .filter(|slot| *slot < CHUNK_MAINS);
        match (slot, &mut self.tail) {
            (Some(slot), Some(tail)) => {
                tail.bytes += bytes;
                let _ = tail.chunk.slots[slot].set(entry);
            }
            _ => {
                let chunk = Arc::new(Chunk::new(main));
                let _ = chunk.slots[0].set(entry);
                let _change = self.shared.change.lock();
                let mut directory = Directory::clone(&self.shared.directory.load());
                directory.push(Arc::clone(&chunk));
                self.shared.directory.store(Arc::new(directory));
                self.tail = Some(Tail { chunk, bytes });
            }
        }
    }

    /// Forgets everything, here and for readers.
    pub(super) fn clear(&mut self) {
        self.tail = None;
        self.shared.clear();
    }
}

/// The map as it was at one moment (later records of its last chunk may show too).
#[derive(Debug)]
pub(super) struct View {
    directory: Arc<Directory>,
    retired: i64,
}

impl View {
    /// The lowest revision that has to be looked for here; everything below is on the engine.
    pub(super) fn first(&self) -> Option<Revision> {
        let first = self.directory.first()?.first;
        Some(Revision::new(first.max(self.retired.saturating_add(1)), 0))
    }

    /// The records with `from <= revision < to`, in order. A main revision that is missing before the
    /// last one is told to `hole` and ends the walk: what lies behind it is no whole history.
    pub(super) fn range<'a>(
        &'a self,
        from: Revision,
        to: Revision,
        hole: &'a mut Option<Hole>,
    ) -> impl Iterator<Item = (Revision, &'a Record)> {
        let first = self.directory.first().map_or(to.main, |chunk| chunk.first);
        let mut main = from.main.max(first);
        let mut chunk = self.directory.partition_point(|chunk| chunk.first <= main).saturating_sub(1);
        let entries = std::iter::from_fn(move || {
            if self.directory.get(chunk + 1).is_some_and(|next| next.first <= main) {
                chunk += 1;
            }
            let found = self.directory.get(chunk)?.entry(main);
            if found.is_none() && main < to.main && self.goes_on(chunk, main) {
                *hole = Some(Hole(main));
            }
            let entry = found?;
            main = main.saturating_add(1);
            Some((entry, main - 1))
        });
        entries
            .flat_map(|(entry, main)| {
                let (one, many): (_, &[(i64, Record)]) = match entry {
                    Entry::One(record) => (Some((Revision::new(main, 0), record)), &[]),
                    Entry::Many(records) => (None, records),
                };
                one.into_iter().chain(many.iter().map(move |(sub, record)| (Revision::new(main, *sub), record)))
            })
            .skip_while(move |(at, _)| *at < from)
            .take_while(move |(at, _)| *at < to)
    }

    /// Whether something is here behind `main`, which was not found in this chunk, and it still isn't.
    fn goes_on(&self, chunk: usize, main: i64) -> bool {
        let Some(this) = self.directory.get(chunk) else { return false };
        let slot = usize::try_from(main.saturating_sub(this.first)).unwrap_or(0).min(CHUNK_MAINS);
        let later = chunk + 1 < self.directory.len() || this.slots[slot..].iter().any(|slot| slot.get().is_some());
        // The writer may have set this one and the next between the two looks.
        later && this.entry(main).is_none()
    }
}

/// A main revision that is missing between two that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hole(pub(super) i64);

impl From<Hole> for StorageError {
    fn from(Hole(main): Hole) -> Self {
        Self::Mismatch(format!("revision {main} is missing among those that wait for the disk; start again"))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(name: i64) -> Record {
        Record { key: Bytes::from(name.to_string()), version: None }
    }

    fn filled(mains: std::ops::RangeInclusive<i64>) -> (Arc<Pending>, PendingWriter) {
        let shared = Arc::<Pending>::default();
        let mut writer = PendingWriter::new(Arc::clone(&shared));
        for main in mains {
            writer.push(main, vec![(0, record(main))], 10);
        }
        (shared, writer)
    }

    #[test]
    fn a_record_is_found_by_its_revision_only() {
        let (pending, mut writer) = filled(2..=2000);
        writer.push(2001, vec![(0, record(1)), (1, record(2))], 20);
        for main in 2..=2000 {
            assert_eq!(pending.get(Revision::new(main, 0)), Some(record(main)));
            assert_eq!(pending.get(Revision::new(main, 1)), None);
        }
        assert_eq!(pending.get(Revision::new(2001, 1)), Some(record(2)));
        for absent in [i64::MIN, 0, 1, 2002, i64::MAX] {
            assert_eq!(pending.get(Revision::new(absent, 0)), None);
        }
    }

    #[test]
    fn only_whole_durable_chunks_go() {
        let (pending, _writer) = filled(2..=2000);
        pending.retire(1500, 100);
        assert_eq!(pending.bytes(), 1999 * 10 - 100);
        assert_eq!(pending.get(Revision::new(2, 0)), None);
        assert_eq!(pending.get(Revision::new(1501, 0)), Some(record(1501)));
        pending.retire(2000, 0);
        assert_eq!(pending.get(Revision::new(2000, 0)), Some(record(2000)), "the writer's chunk stays");
    }

    #[test]
    fn a_walk_gives_the_range_in_order_across_chunks() {
        let (pending, mut writer) = filled(2..=600);
        writer.push(601, vec![(0, record(1)), (1, record(2))], 1);
        let (view, mut hole) = (pending.view(), None);
        let all: Vec<_> =
            view.range(Revision::new(0, 0), Revision::new(i64::MAX, 0), &mut hole).map(|(at, _)| at).collect();
        assert_eq!(all.len(), 601);
        assert!(all.is_sorted());
        let part: Vec<_> =
            view.range(Revision::new(599, 0), Revision::new(601, 1), &mut hole).map(|(at, _)| at.main).collect();
        assert_eq!(part, [599, 600, 601]);
        assert_eq!(hole, None);
    }

    /// A walk took a missing revision for the end of its chunk and went on with the next one, so that
    /// the store's position passed over records that were never written.
    #[test]
    fn a_hole_is_told_and_ends_the_walk() {
        for (last, next) in [(20, 22), (600, 602), (600, 5000)] {
            let (pending, mut writer) = filled(2..=last);
            writer.push_one(next, record(next), 1);
            let (view, mut hole) = (pending.view(), None);
            let walk = |to, hole: &mut _| view.range(Revision::new(10, 0), Revision::new(to, 0), hole).count() as i64;
            assert_eq!(walk(next + 1, &mut hole), last - 9);
            assert_eq!(hole.take(), Some(Hole(last + 1)));
            assert_eq!(walk(last + 1, &mut hole), last - 9, "nothing is missing up to there");
            assert_eq!(hole, None);
        }
    }

    /// What a snapshot brings may be of lower revisions than what was there.
    #[test]
    fn lower_revisions_are_found_after_everything_was_forgotten() {
        let (pending, mut writer) = filled(2..=2000);
        pending.retire(1500, 0);
        assert!(pending.first() > 1000);
        writer.clear();
        assert_eq!(pending.get(Revision::new(2000, 0)), None);
        writer.push_one(5, record(5), 1);
        assert_eq!(pending.get(Revision::new(5, 0)), Some(record(5)));
    }

    #[test]
    fn a_chunk_is_closed_by_its_bytes() {
        let shared = Arc::<Pending>::default();
        let mut writer = PendingWriter::new(Arc::clone(&shared));
        for main in 1..=4 {
            writer.push_one(main, record(main), CHUNK_BYTES);
        }
        shared.retire(3, 3 * CHUNK_BYTES);
        assert_eq!(shared.get(Revision::new(3, 0)), None);
        assert_eq!(shared.get(Revision::new(4, 0)), Some(record(4)));
    }
}
