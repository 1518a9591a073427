//! The hot cache: recent and recently read records in a table, read without a lock.
//!
//! ```text
//! revision ─ hash ─► a cache line of four slots: tag, pointer ─► one piece of memory: head · key · value
//! the hash's low bits: a line in one of the levels  │ level 0 │ 1 │   2   │       3       │ … each doubles the lines
//! ```
//! The table begins small and takes a level more when it holds a record for two lines, so that little data takes little memory. A
//! record that is moved then may be missed by a reader, or be left where nobody looks until the hand comes by: it is a cache.
//!
//! A tag beside each slot says what may be in it, so that a miss costs four loads and no pointer. What is
//! given out shares that piece of memory, so a record that is found costs two misses of the processor's
//! cache: one for the line, one for the head. The budget is in bytes; when it is passed, a
//! clock hand empties slots that were not read since it last came by. An entry is of an epoch,
//! which ends when a snapshot takes the place of everything: a reader that was late with what it
//! had read before then puts it where nobody finds it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use arc_swap::{ArcSwapAny, Guard};
use bytes::Bytes;
use smallvec::SmallVec;
use triomphe::ThinArc;

use crate::storage::{Record, VersionRecord};
use crate::types::{LeaseId, Revision};

const WAYS: usize = 4;
/// The table is made for records of this size on average.
const TYPICAL_BYTES: u64 = 384;
/// Sets of the first level, as a power of two: 16 KiB.
const FIRST_BITS: u32 = 8;
/// Larger records aren't kept: one would push out hundreds.
const RECORD_BYTES_MAX: u64 = 64 << 10;
/// What a kept record costs besides its key and value: its head, and its part of the table.
const OVERHEAD_BYTES: u64 = 112;

/// Entries that are held at a time: `ArcSwap` has eight cheap places for a thread, and two are others'.
const HELD_MAX: usize = 6;

/// Whether a slot was read since the clock hand came by; a bit that no tag has.
const READ: u64 = 1 << 62;

#[derive(Debug)]
struct Slot {
    /// The revision's hash, 0 for empty, and [`READ`]; a hint, the entry itself decides.
    tag: AtomicU64,
    entry: ArcSwapAny<Option<Entry>>,
}

impl Slot {
    /// The entry of this tag and revision, if it is still what the slot holds; marks it as read.
    fn take(&self, entry: &Guard<Option<Entry>>, tag: u64, epoch: u64, at: Revision) -> Option<Record> {
        let entry = entry.as_ref().filter(|entry| entry.header.header.is(epoch, at))?;
        // Stored only when it changes, so that a hot slot's cache line isn't written by every reader.
        if self.tag.load(Ordering::Relaxed) == tag {
            let _ = self.tag.compare_exchange(tag, tag | READ, Ordering::Relaxed, Ordering::Relaxed);
        }
        Some(record_of(entry))
    }

    fn tag(&self) -> u64 {
        self.tag.load(Ordering::Relaxed) & !READ
    }

    /// Takes the read mark away; whether there was none.
    fn unmark(&self) -> bool {
        self.tag.load(Ordering::Relaxed) & READ == 0 || self.tag.fetch_and(!READ, Ordering::Relaxed) & READ == 0
    }
}

/// One cache line, so that a lookup misses once here.
#[derive(Debug)]
#[repr(align(64))]
struct Set([Slot; WAYS]);

/// A kept record. Key and value follow the head in the same allocation.
type Entry = ThinArc<Head, u8>;

#[derive(Debug)]
struct Head {
    epoch: u64,
    at: Revision,
    key_len: u32,
    /// Whether it is a put; a tombstone's numbers are 0.
    lives: bool,
    create_revision: i64,
    version: i64,
    lease: LeaseId,
}

impl Head {
    fn is(&self, epoch: u64, at: Revision) -> bool {
        self.at == at && self.epoch == epoch
    }
}

/// Keeps an entry's memory for as long as a part of it is out.
struct Held(Entry);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.0.slice
    }
}

fn entry_of(epoch: u64, at: Revision, record: &Record) -> Entry {
    let version = record.version.as_ref();
    let mut both = SmallVec::<[u8; 512]>::new();
    both.extend_from_slice(&record.key);
    both.extend_from_slice(version.map_or(&[], |version| &version.value));
    let head = Head {
        epoch,
        at,
        key_len: record.key.len() as u32,
        lives: version.is_some(),
        create_revision: version.map_or(0, |version| version.create_revision),
        version: version.map_or(0, |version| version.version),
        lease: version.map_or(LeaseId::NONE, |version| version.lease),
    };
    ThinArc::from_header_and_slice(head, &both)
}

/// The record, which shares the entry's bytes.
fn record_of(entry: &Entry) -> Record {
    let head = &entry.header.header;
    let mut key = Bytes::from_owner(Held(entry.clone()));
    let value = key.split_off(head.key_len as usize);
    let (create_revision, version, lease) = (head.create_revision, head.version, head.lease);
    Record { key, version: head.lives.then_some(VersionRecord { value, create_revision, version, lease }) }
}

#[derive(Debug)]
pub(super) struct Hot {
    levels: Box<[OnceLock<Box<[Set]>>]>,
    first_bits: u32,
    /// How many sets are in use, as a power of two, and how many there may be.
    bits: AtomicU32,
    bits_max: u32,
    /// Somebody adds a level.
    growing: AtomicBool,
    /// Records kept.
    count: AtomicUsize,
    bytes: AtomicU64,
    bytes_max: u64,
    hand: AtomicUsize,
    epoch: AtomicU64,
}

impl Hot {
    /// A cache of about `bytes_max` bytes.
    pub(super) fn new(bytes_max: u64) -> Self {
        let sets = (bytes_max / (TYPICAL_BYTES * WAYS as u64)).clamp(1, 1 << 22);
        let bits_max = sets.next_power_of_two().ilog2();
        let first_bits = bits_max.min(FIRST_BITS);
        Self {
            levels: (first_bits..=bits_max).map(|_| OnceLock::new()).collect(),
            first_bits,
            bits: AtomicU32::new(first_bits),
            bits_max,
            growing: AtomicBool::new(false),
            count: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            bytes_max,
            hand: AtomicUsize::new(0),
            epoch: AtomicU64::new(0),
        }
    }

    fn set(&self, tag: u64) -> &[Slot; WAYS] {
        self.set_at(tag as usize & (self.sets() - 1))
    }

    /// Sets in use.
    fn sets(&self) -> usize {
        1 << self.bits.load(Ordering::Acquire)
    }

    fn set_at(&self, index: usize) -> &[Slot; WAYS] {
        // Each level but the first has as many sets as there are before it.
        let (level, start, len): (usize, usize, usize) = match (index >> self.first_bits).checked_ilog2() {
            None => (0, 0, 1 << self.first_bits),
            Some(above) => (above as usize + 1, 1 << (above + self.first_bits), 1 << (above + self.first_bits)),
        };
        let level = self.levels[level].get_or_init(|| {
            let slot = |_| Slot { tag: AtomicU64::new(0), entry: ArcSwapAny::new(None) };
            (0..len).map(|_| Set(std::array::from_fn(slot))).collect()
        });
        &level[index - start].0
    }

    /// Doubles the sets once there is a record for every other one: with one for each, of 250 records one finds its set
    /// full, and a list of them all goes to the disk.
    fn grow(&self) {
        let is_due = || {
            let bits = self.bits.load(Ordering::Acquire);
            bits < self.bits_max && self.count.load(Ordering::Relaxed) > (1 << bits) / 2
        };
        if !is_due() || self.growing.swap(true, Ordering::Acquire) {
            return;
        }
        if is_due() {
            let sets = self.sets();
            for index in 0..sets {
                for (way, slot) in self.set_at(index).iter().enumerate() {
                    let tag = slot.tag();
                    // Taken out first, so that each record is in one place and counted once.
                    if tag as usize & sets != 0
                        && let Some(entry) = slot.entry.swap(None)
                    {
                        slot.tag.store(0, Ordering::Relaxed);
                        let to = &self.set_at(index + sets)[way];
                        to.entry.store(Some(entry));
                        to.tag.store(tag, Ordering::Relaxed);
                    }
                }
            }
            self.bits.fetch_add(1, Ordering::Release);
        }
        self.growing.store(false, Ordering::Release);
    }

    /// The record of a revision, if it is here.
    pub(super) fn get(&self, at: Revision) -> Option<Record> {
        let tag = tag(at);
        let slot = self.slot(tag)?;
        slot.take(&slot.entry.load(), tag, self.epoch(), at)
    }

    /// Adds the record of each of some revisions, or `None` if it isn't here.
    ///
    /// Quicker than as many [`Hot::get`]s: the processor waits for what it doesn't have in its cache all at once.
    pub(super) fn many(&self, revisions: &[Revision], found: &mut Vec<Option<Record>>) {
        // Loads that don't depend on each other: first all lines of the table, then some entries at a time.
        std::hint::black_box(revisions.iter().fold(0, |sum, at| sum ^ self.set(tag(*at))[0].tag()));
        let epoch = self.epoch();
        for few in revisions.chunks(HELD_MAX) {
            let held: SmallVec<[_; HELD_MAX]> = few
                .iter()
                .map(|at| {
                    let tag = tag(*at);
                    self.slot(tag).map(|slot| (slot, tag, slot.entry.load()))
                })
                .collect();
            let heads = held.iter().flatten().filter_map(|(_, _, entry)| entry.as_ref());
            std::hint::black_box(
                heads.fold(0, |sum, entry| sum ^ entry.header.header.at.main ^ entry.header.header.version),
            );
            let records = few.iter().zip(&held).map(|(at, held)| {
                let (slot, tag, entry) = held.as_ref()?;
                slot.take(entry, *tag, epoch, *at)
            });
            found.extend(records);
        }
    }

    fn slot(&self, tag: u64) -> Option<&Slot> {
        self.set(tag).iter().find(|slot| slot.tag() == tag)
    }

    /// The present epoch: to be asked before what is to be inserted is read.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Keeps a copy of a record of `epoch`, in place of another one if need be.
    ///
    /// A copy, since what came off the wire is a slice of a whole frame, and keeping the slice would keep the frame.
    pub(super) fn insert(&self, epoch: u64, at: Revision, record: &Record) {
        let bytes = kept_bytes(record.size());
        if bytes > RECORD_BYTES_MAX.min(self.bytes_max) {
            return;
        }
        self.grow();
        let tag = tag(at);
        let set = self.set(tag);
        let same = set.iter().find(|slot| slot.tag() == tag);
        let free = || set.iter().find(|slot| slot.tag() == 0);
        let unread = || set.iter().find(|slot| slot.unmark());
        let slot = same.or_else(free).or_else(unread).unwrap_or(&set[(tag >> 60) as usize % WAYS]);
        slot.tag.store(tag, Ordering::Relaxed);
        // Counted before anybody can take it out.
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.gone(slot.entry.swap(Some(entry_of(epoch, at, record))));
        self.shrink();
    }

    /// Forgets a record.
    pub(super) fn remove(&self, at: Revision) {
        let tag = tag(at);
        if let Some(slot) = self.slot(tag) {
            self.empty(slot);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        for slot in (0..self.sets()).flat_map(|index| self.set_at(index)).filter(|slot| slot.tag() != 0) {
            self.empty(slot);
        }
    }

    /// Bytes kept.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether there is less room than there was.
    pub(super) fn is_half_full(&self) -> bool {
        self.bytes() >= self.bytes_max / 2
    }

    fn empty(&self, slot: &Slot) {
        slot.tag.store(0, Ordering::Relaxed);
        self.gone(slot.entry.swap(None));
    }

    fn gone(&self, old: Option<Entry>) {
        if let Some(old) = old {
            self.count.fetch_sub(1, Ordering::Relaxed);
            self.bytes.fetch_sub(kept_bytes(old.slice.len()), Ordering::Relaxed);
        }
    }

    fn shrink(&self) {
        // Two rounds at most: the first may only take the "read" marks away.
        for _ in 0..self.sets() * WAYS * 2 {
            if self.bytes() <= self.bytes_max {
                return;
            }
            let hand = self.hand.fetch_add(1, Ordering::Relaxed);
            let slot = &self.set_at(hand / WAYS % self.sets())[hand % WAYS];
            if slot.tag() != 0 && slot.unmark() {
                self.empty(slot);
            }
        }
    }
}

/// What a record with so many bytes of key and value costs.
fn kept_bytes(len: usize) -> u64 {
    len as u64 + OVERHEAD_BYTES
}

/// A hash that is never 0 and has no [`READ`].
fn tag(at: Revision) -> u64 {
    let mixed =
        (at.main as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (at.sub as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93) & !READ | 1 << 63
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(len: usize) -> Record {
        Record { key: Bytes::from(vec![1; len]), version: None }
    }

    #[test]
    fn the_budget_holds_and_recent_records_are_found() {
        let hot = Hot::new(1 << 20);
        for main in 0..50_000 {
            hot.insert(0, Revision::new(main, 0), &record(300));
            assert!(hot.bytes() <= 1 << 20);
        }
        let found = (49_000..50_000).filter(|main| hot.get(Revision::new(*main, 0)).is_some()).count();
        assert!(found > 500, "{found} of the last 1000");
        hot.clear();
        assert_eq!(hot.bytes(), 0);
        hot.insert(0, Revision::new(1, 0), &record(300));
        assert_eq!(hot.get(Revision::new(1, 0)), None, "of the epoch before");
        hot.insert(hot.epoch(), Revision::new(1, 0), &record(300));
        assert!(hot.get(Revision::new(1, 0)).is_some());
    }

    #[test]
    fn a_record_is_of_its_revision_or_absent() {
        let hot = Hot::new(64 << 10);
        for main in 1..2000 {
            hot.insert(0, Revision::new(main, main % 3), &record(main as usize % 50));
        }
        for main in 1..2000 {
            for sub in 0..3 {
                if let Some(found) = hot.get(Revision::new(main, sub)) {
                    assert_eq!((found.key.len(), sub), (main as usize % 50, main % 3));
                }
            }
        }
        hot.insert(0, Revision::new(1, 0), &record(9));
        hot.remove(Revision::new(1, 0));
        assert_eq!(hot.get(Revision::new(1, 0)), None);
    }

    #[test]
    fn many_are_as_they_were_put() {
        let hot = Hot::new(1 << 20);
        let put = |main: i64| {
            let value = Bytes::from(vec![main as u8; (main % 40) as usize]);
            let version = VersionRecord { value, create_revision: main - 1, version: main, lease: LeaseId(-main) };
            Record { key: Bytes::from(vec![b'k'; (main % 7) as usize]), version: (main % 5 != 0).then_some(version) }
        };
        for main in (1..200).filter(|main| main % 3 != 0) {
            hot.insert(0, Revision::new(main, 0), &put(main));
        }
        let revisions: Vec<_> = (1..200).map(|main| Revision::new(main, 0)).collect();
        let mut found = vec![None];
        hot.many(&revisions, &mut found);
        assert_eq!(found.len(), 200);
        for (at, found) in revisions.iter().zip(&found[1..]) {
            assert_eq!(*found, (at.main % 3 != 0).then(|| put(at.main)), "{at}");
            assert_eq!(*found, hot.get(*at));
        }
        // What was given out outlives what is kept.
        hot.clear();
        assert_eq!(found[2], Some(put(2)));
        found.clear();
        hot.many(&revisions, &mut found);
        assert!(found.iter().all(Option::is_none));
    }

    #[test]
    fn the_table_grows_with_what_it_holds_and_keeps_it() {
        let hot = Hot::new(16 << 20);
        let at = |main| Revision::new(main, 0);
        let levels = || hot.levels.iter().filter(|level| level.get().is_some()).count();
        (0..100).for_each(|main| hot.insert(0, at(main), &record(100)));
        assert_eq!(levels(), 1);
        (100..20_000).for_each(|main| hot.insert(0, at(main), &record(100)));
        assert!(levels() > 4 && hot.sets() == 1 << hot.bits_max, "{} levels", levels());
        let found = (0..20_000).filter(|main| hot.get(at(*main)).is_some()).count();
        assert!(found > 19_000, "{found} of 20000");
        assert_eq!(hot.count.load(Ordering::Relaxed), found, "each is in one place");
        (0..20_000).for_each(|main| hot.remove(at(main)));
        assert_eq!((hot.bytes(), hot.count.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn large_records_stay_out() {
        let hot = Hot::new(1 << 20);
        hot.insert(0, Revision::new(1, 0), &record(100 << 10));
        assert_eq!((hot.bytes(), hot.get(Revision::new(1, 0))), (0, None));
    }

    #[test]
    fn what_is_read_stays_longer() {
        let hot = Hot::new(256 << 10);
        hot.insert(0, Revision::new(1, 0), &record(200));
        let mut lost = 0;
        for main in 2..20_000 {
            hot.insert(0, Revision::new(main, 0), &record(200));
            if hot.get(Revision::new(1, 0)).is_none() {
                lost += 1;
                hot.insert(0, Revision::new(1, 0), &record(200));
            }
        }
        assert!(lost < 10, "lost {lost} times");
    }
}
