//! The hot cache: recent and recently read records in a fixed table, read without a lock.
//!
//! A set of four slots by the revision's hash. A tag beside each slot says what may be in it, so
//! that a miss costs four loads and no pointer. The budget is in bytes; when it is passed, a
//! clock hand empties slots that were not read since it last came by. An entry is of an epoch,
//! which ends when a snapshot takes the place of everything: a reader that was late with what it
//! had read before then puts it where nobody finds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use smallvec::SmallVec;

use super::record_bytes;
use crate::storage::Record;
use crate::types::Revision;

const WAYS: usize = 4;
/// The table is made for records of this size on average.
const TYPICAL_BYTES: u64 = 384;
/// Larger records aren't kept: one would push out hundreds.
const RECORD_BYTES_MAX: u64 = 64 << 10;
/// What a kept record costs besides its key and value.
const OVERHEAD_BYTES: u64 = 128;

/// Records that are warmed at a time: as many entries are held, and `ArcSwap` has eight cheap places for a thread.
pub(super) const WARM_MAX: usize = 6;

/// Whether a slot was read since the clock hand came by; a bit that no tag has.
const READ: u64 = 1 << 62;

#[derive(Debug)]
struct Slot {
    /// The revision's hash, 0 for empty, and [`READ`]; a hint, the entry itself decides.
    tag: AtomicU64,
    entry: ArcSwapOption<Entry>,
}

impl Slot {
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

#[derive(Debug)]
struct Entry {
    epoch: u64,
    at: Revision,
    record: Record,
}

#[derive(Debug)]
pub(super) struct Hot {
    sets: Box<[Set]>,
    bytes: AtomicU64,
    bytes_max: u64,
    hand: AtomicUsize,
    epoch: AtomicU64,
}

impl Hot {
    /// A cache of about `bytes_max` bytes.
    pub(super) fn new(bytes_max: u64) -> Self {
        let sets = (bytes_max / (TYPICAL_BYTES * WAYS as u64)).clamp(1, 1 << 22) as usize;
        let slot = |_| Slot { tag: AtomicU64::new(0), entry: ArcSwapOption::empty() };
        Self {
            sets: (0..sets.next_power_of_two()).map(|_| Set(std::array::from_fn(slot))).collect(),
            bytes: AtomicU64::new(0),
            bytes_max,
            hand: AtomicUsize::new(0),
            epoch: AtomicU64::new(0),
        }
    }

    fn set(&self, tag: u64) -> &[Slot] {
        &self.sets[tag as usize & (self.sets.len() - 1)].0
    }

    /// The record of a revision, if it is here.
    pub(super) fn get(&self, at: Revision) -> Option<Record> {
        let tag = tag(at);
        let slot = self.set(tag).iter().find(|slot| slot.tag() == tag)?;
        let entry = slot.entry.load();
        let entry = entry.as_ref().filter(|entry| entry.at == at && entry.epoch == self.epoch())?;
        // Stored only when it changes, so that a hot slot's cache line isn't written by every reader.
        if slot.tag.load(Ordering::Relaxed) == tag {
            let _ = slot.tag.compare_exchange(tag, tag | READ, Ordering::Relaxed, Ordering::Relaxed);
        }
        Some(entry.record.clone())
    }

    /// Has the processor bring what is kept of these few revisions into its cache at the same time, since
    /// they are asked for next, one after the other. More than [`WARM_MAX`] are passed over.
    pub(super) fn warm(&self, revisions: &[Revision]) {
        let revisions = &revisions[..revisions.len().min(WARM_MAX)];
        // Loads that don't depend on each other: first all sets, then all entries, then the counts of those who
        // hold their bytes, which a copy of a record raises.
        let sets = revisions.iter().fold(0, |sum, at| sum ^ self.set(tag(*at))[0].tag());
        std::hint::black_box(sets);
        let entries: SmallVec<[_; WARM_MAX]> = revisions
            .iter()
            .filter_map(|at| {
                let tag = tag(*at);
                Some(self.set(tag).iter().find(|slot| slot.tag() == tag)?.entry.load())
            })
            .collect();
        let lives = entries.iter().fold(0, |sum, entry| sum ^ entry.as_ref().map_or(0, |entry| entry.at.main));
        std::hint::black_box(lives);
        let held =
            entries.iter().filter_map(|entry| entry.as_ref()).filter(|entry| entry.record.key.is_unique()).count();
        std::hint::black_box(held);
    }

    /// The present epoch: to be asked before what is to be inserted is read.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Keeps a record of `epoch`, in place of another one if need be.
    pub(super) fn insert(&self, epoch: u64, at: Revision, record: Record) {
        let bytes = kept_bytes(&record);
        if bytes > RECORD_BYTES_MAX.min(self.bytes_max) {
            return;
        }
        let tag = tag(at);
        let set = self.set(tag);
        let same = set.iter().find(|slot| slot.tag() == tag);
        let free = || set.iter().find(|slot| slot.tag() == 0);
        let unread = || set.iter().find(|slot| slot.unmark());
        let slot = same.or_else(free).or_else(unread).unwrap_or(&set[(tag >> 60) as usize % WAYS]);
        slot.tag.store(tag, Ordering::Relaxed);
        self.replaced(slot.entry.swap(Some(Arc::new(Entry { epoch, at, record }))), bytes);
        self.shrink();
    }

    /// Forgets a record.
    pub(super) fn remove(&self, at: Revision) {
        let tag = tag(at);
        if let Some(slot) = self.set(tag).iter().find(|slot| slot.tag() == tag) {
            self.empty(slot);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
        for slot in self.sets.iter().flat_map(|set| &set.0).filter(|slot| slot.tag() != 0) {
            self.empty(slot);
        }
    }

    /// Bytes kept.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn empty(&self, slot: &Slot) {
        slot.tag.store(0, Ordering::Relaxed);
        self.replaced(slot.entry.swap(None), 0);
    }

    fn replaced(&self, old: Option<Arc<Entry>>, new_bytes: u64) {
        self.bytes.fetch_add(new_bytes, Ordering::Relaxed);
        if let Some(old) = old {
            self.bytes.fetch_sub(kept_bytes(&old.record), Ordering::Relaxed);
        }
    }

    fn shrink(&self) {
        // Two rounds at most: the first may only take the "read" marks away.
        for _ in 0..self.sets.len() * WAYS * 2 {
            if self.bytes() <= self.bytes_max {
                return;
            }
            let hand = self.hand.fetch_add(1, Ordering::Relaxed);
            let slot = &self.sets[hand / WAYS % self.sets.len()].0[hand % WAYS];
            if slot.tag() != 0 && slot.unmark() {
                self.empty(slot);
            }
        }
    }
}

fn kept_bytes(record: &Record) -> u64 {
    record_bytes(record) + OVERHEAD_BYTES
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
            hot.insert(0, Revision::new(main, 0), record(300));
            assert!(hot.bytes() <= 1 << 20);
        }
        let found = (49_000..50_000).filter(|main| hot.get(Revision::new(*main, 0)).is_some()).count();
        assert!(found > 500, "{found} of the last 1000");
        hot.clear();
        assert_eq!(hot.bytes(), 0);
        hot.insert(0, Revision::new(1, 0), record(300));
        assert_eq!(hot.get(Revision::new(1, 0)), None, "of the epoch before");
        hot.insert(hot.epoch(), Revision::new(1, 0), record(300));
        assert!(hot.get(Revision::new(1, 0)).is_some());
    }

    #[test]
    fn a_record_is_of_its_revision_or_absent() {
        let hot = Hot::new(64 << 10);
        for main in 1..2000 {
            hot.insert(0, Revision::new(main, main % 3), record(main as usize % 50));
        }
        for main in 1..2000 {
            for sub in 0..3 {
                if let Some(found) = hot.get(Revision::new(main, sub)) {
                    assert_eq!((found.key.len(), sub), (main as usize % 50, main % 3));
                }
            }
        }
        hot.insert(0, Revision::new(1, 0), record(9));
        hot.remove(Revision::new(1, 0));
        assert_eq!(hot.get(Revision::new(1, 0)), None);
    }

    #[test]
    fn large_records_stay_out() {
        let hot = Hot::new(1 << 20);
        hot.insert(0, Revision::new(1, 0), record(100 << 10));
        assert_eq!((hot.bytes(), hot.get(Revision::new(1, 0))), (0, None));
    }

    #[test]
    fn what_is_read_stays_longer() {
        let hot = Hot::new(256 << 10);
        hot.insert(0, Revision::new(1, 0), record(200));
        let mut lost = 0;
        for main in 2..20_000 {
            hot.insert(0, Revision::new(main, 0), record(200));
            if hot.get(Revision::new(1, 0)).is_none() {
                lost += 1;
                hot.insert(0, Revision::new(1, 0), record(200));
            }
        }
        assert!(lost < 10, "lost {lost} times");
    }
}
