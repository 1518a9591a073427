//! `Front`: where a key's newest record is, so that most gets needn't search the index.
//!
//! ```text
//! key ─ hash ─► a cache line of eight slots: mark · sub · main ─► the record of that revision ─► is it this key's?
//! ```
//!
//! Only the writer notes here, each change before it is published. So to whoever reads the published
//! revision R, a slot that names a revision up to R names the newest one: a newer change up to R would have
//! taken the slot, or emptied it, before R was published. A slot above R is of a change under way. What isn't
//! here, or was pushed out by other keys, is in the index; a mark that two keys share is told by the record's key.
//!
//! The table begins with a part of its lines and doubles when keys push each other out: some bits of a mark say in which
//! of the later parts its key's line is. The writer copies what moves before it says so; a reader that saw too few
//! lines loaded its revision before that, too, and finds in the old line what was the newest then, or nothing.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::types::Revision;

/// Slots of a cache line.
const WAYS: usize = 8;
/// Lines that are made at once when the first of them is needed, so that an empty server has none.
const BLOCK_LINES: usize = 64;
const LINE_BYTES: u64 = 64;

const MAIN_BITS: u32 = 44;
const SUB_BITS: u32 = 6;
const EMPTY: u64 = 0;
/// How often the table doubles at most. As many bits of a mark tell keys of a line apart no more.
const DOUBLINGS: u32 = 4;

/// Invariant: of a line's slots, at most one has a given mark.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicU64; WAYS]);

type Block = Box<[Line; BLOCK_LINES]>;

#[derive(Debug)]
pub(super) struct Front {
    blocks: Box<[OnceLock<Block>]>,
    /// Blocks that there were at first, and that there are; powers of two.
    first: usize,
    in_use: AtomicUsize,
    /// Keys pushed out by others since the table grew.
    pushed_out: AtomicUsize,
}

impl Front {
    /// A table of at most about `bytes_max` bytes.
    pub(super) fn new(bytes_max: u64) -> Self {
        let blocks = (bytes_max / (LINE_BYTES * BLOCK_LINES as u64)).clamp(1, 1 << 20) as usize;
        let bits = blocks.ilog2();
        let first = 1 << bits.saturating_sub(DOUBLINGS);
        Self {
            blocks: (0..1 << bits).map(|_| OnceLock::new()).collect(),
            first,
            in_use: AtomicUsize::new(first),
            pushed_out: AtomicUsize::new(0),
        }
    }

    /// Where the newest record of `key` is, if that is known here and not above main revision `main`, which
    /// is published. It may be another key's.
    pub(super) fn find(&self, key: &[u8], main: i64) -> Option<Revision> {
        let (block, line, mark) = self.place(key);
        // The published revision was loaded before, so what was noted before it was published is seen.
        let slots = self.blocks[block].get()?[line].0.each_ref().map(|slot| slot.load(Ordering::Acquire));
        let found = slots.into_iter().find(|slot| *slot != EMPTY && mark_of(*slot) == mark)?;
        let at = revision_of(found);
        (at.main <= main).then_some(at)
    }

    /// Has the processor bring the lines of these keys into its cache at the same time, since they are noted next,
    /// one after the other.
    pub(super) fn warm<'a>(&self, keys: impl Iterator<Item = &'a [u8]>) {
        // Loads that don't depend on each other.
        std::hint::black_box(keys.fold(0, |sum, key| {
            let (block, line, _) = self.place(key);
            sum ^ self.blocks[block].get().map_or(0, |lines| lines[line].0[0].load(Ordering::Relaxed))
        }));
    }

    /// The newest change of `key` is at `at`: a put, or (not `lives`) its end. For the one writer.
    pub(super) fn note(&self, key: &[u8], at: Revision, lives: bool) {
        let (block, line, mark) = self.place(key);
        let noted = if lives { slot_of(mark, at) } else { EMPTY };
        if noted == EMPTY && self.blocks[block].get().is_none() {
            return;
        }
        let line = &self.blocks[block].get_or_init(empty_block)[line].0;
        let slots = line.each_ref().map(|slot| slot.load(Ordering::Relaxed));
        let same = slots.iter().position(|slot| *slot != EMPTY && mark_of(*slot) == mark);
        // An empty slot is the lowest of all.
        let oldest = || (0..WAYS).min_by_key(|place| revision_of(slots[*place])).filter(|_| noted != EMPTY);
        if let Some(place) = same.or_else(oldest) {
            line[place].store(noted, Ordering::Release);
            if same.is_none() && slots[place] != EMPTY {
                self.pushed_out();
            }
        }
    }

    /// Doubles the table once a key was pushed out for each eight lines. For the one writer.
    fn pushed_out(&self) {
        let (count, blocks) = (self.pushed_out.load(Ordering::Relaxed) + 1, self.in_use.load(Ordering::Relaxed));
        self.pushed_out.store(count, Ordering::Relaxed);
        if count < blocks * BLOCK_LINES / 8 || blocks == self.blocks.len() {
            return;
        }
        let moves = |slot: u64| slot != EMPTY && mark_of(slot) & (blocks / self.first) as u64 != 0;
        let each = |work: &dyn Fn(&AtomicU64, usize, usize, usize)| {
            for (at, block) in self.blocks[..blocks].iter().enumerate() {
                for (line, slots) in block.get().into_iter().flat_map(|block| block.iter().enumerate()) {
                    slots.0.iter().enumerate().for_each(|(way, slot)| work(slot, at, line, way));
                }
            }
        };
        each(&|slot, at, line, way| {
            let noted = slot.load(Ordering::Relaxed);
            if moves(noted) {
                self.blocks[at + blocks].get_or_init(empty_block)[line].0[way].store(noted, Ordering::Release);
            }
        });
        self.in_use.store(blocks * 2, Ordering::Release);
        self.pushed_out.store(0, Ordering::Relaxed);
        each(&|slot, _, _, _| {
            if moves(slot.load(Ordering::Relaxed)) {
                slot.store(EMPTY, Ordering::Release);
            }
        });
    }

    /// Forgets everything. For the one writer.
    pub(super) fn clear(&self) {
        let lines = self.blocks.iter().filter_map(OnceLock::get).flat_map(|block| block.iter());
        lines.flat_map(|line| &line.0).for_each(|slot| slot.store(EMPTY, Ordering::Release));
    }

    fn place(&self, key: &[u8]) -> (usize, usize, u64) {
        let hash = hash(key);
        let mark = hash >> (MAIN_BITS + SUB_BITS);
        let line = hash as usize % BLOCK_LINES;
        let part = mark as usize & (self.in_use.load(Ordering::Acquire) / self.first - 1);
        let block = part * self.first + ((hash as usize / BLOCK_LINES) & (self.first - 1));
        (block, line, mark)
    }
}

fn empty_block() -> Block {
    Box::new(std::array::from_fn(|_| Line::default()))
}

/// A slot for this revision; an empty one if the revision doesn't fit.
fn slot_of(mark: u64, at: Revision) -> u64 {
    match (u64::try_from(at.main), u64::try_from(at.sub)) {
        (Ok(main @ 1..), Ok(sub)) if main >> MAIN_BITS == 0 && sub >> SUB_BITS == 0 => {
            mark << (MAIN_BITS + SUB_BITS) | sub << MAIN_BITS | main
        }
        _ => EMPTY,
    }
}

fn revision_of(slot: u64) -> Revision {
    let bits = |from: u32, count: u32| ((slot >> from) & ((1 << count) - 1)).cast_signed();
    Revision::new(bits(0, MAIN_BITS), bits(MAIN_BITS, SUB_BITS))
}

fn mark_of(slot: u64) -> u64 {
    slot >> (MAIN_BITS + SUB_BITS)
}

/// Spreads keys; whoever makes two keys' alike makes their gets search the index, no more.
fn hash(key: &[u8]) -> u64 {
    let mix = |hash: u64, word: u64| {
        let mixed = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed ^ mixed >> 32
    };
    let (words, rest) = key.as_chunks::<8>();
    let hash = words.iter().fold(key.len() as u64, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    let last = rest.iter().fold(0, |last, byte| last << 8 | u64::from(*byte));
    mix(mix(hash, last), 0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn key(number: u64) -> Vec<u8> {
        format!("/registry/{number}").into_bytes()
    }

    /// Beside a map of what is the newest, with far more keys than slots, so that they push each other out
    /// and marks meet: what is found is the newest of its key, another key's, or above what is published.
    #[test]
    fn what_is_found_is_the_newest() {
        let front = Front::new(1);
        let (mut newest, mut of) = (HashMap::new(), HashMap::new());
        let (mut random, mut found) = (1_u64, 0);
        for main in 1..200_000_i64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let number = (random >> 33) % 2_000;
            let (at, lives) = (Revision::new(main, main % 3), random >> 60 != 0);
            front.note(&key(number), at, lives);
            newest.insert(number, lives.then_some(at));
            of.insert(at, number);
            let asked = (random >> 40) % 2_000;
            if let Some(at) = front.find(&key(asked), main)
                && of[&at] == asked
            {
                assert_eq!(newest[&asked], Some(at));
                found += 1;
            }
        }
        assert!(found > 20_000, "found {found} times");
        front.clear();
        assert!((0..2_000).all(|number| front.find(&key(number), i64::MAX).is_none()));
    }

    /// Cause: the table's blocks were made as keys came, and keys are spread: a thousand of them made all four MiB.
    /// Symptom: a seventh of the memory of a server with little data.
    /// Holds: a table for few keys is small, grows with them, and loses none by it.
    #[test]
    fn the_table_grows_with_the_keys_and_keeps_them() {
        let front = Front::new(4 << 20);
        let blocks = |front: &Front| front.blocks.iter().filter(|block| block.get().is_some()).count();
        let mut found_at = Vec::new();
        for main in 1..=300_000_u32 {
            front.note(&key(main.into()), Revision::new(main.into(), 0), true);
            if [3_000, 60_000, 300_000].contains(&main) {
                let of = |main: &u32| {
                    let at = front.find(&key((*main).into()), i64::MAX);
                    at == Some(Revision::new((*main).into(), 0))
                };
                found_at.push((blocks(&front), (1..=main).filter(of).count() as f64 / f64::from(main)));
            }
        }
        assert!(found_at[0].0 <= 64 && found_at[0].1 > 0.99, "{found_at:?}");
        assert!(found_at[1].0 <= 512 && found_at[1].1 > 0.9, "{found_at:?}");
        assert!(found_at[2].0 == 1024 && found_at[2].1 > 0.9, "{found_at:?}");
    }

    #[test]
    fn a_change_under_way_and_an_end_hide_what_was() {
        let front = Front::new(1 << 20);
        front.note(b"key", Revision::new(5, 1), true);
        assert_eq!(front.find(b"key", 5), Some(Revision::new(5, 1)));
        front.note(b"key", Revision::new(6, 0), true);
        assert_eq!((front.find(b"key", 5), front.find(b"key", 6)), (None, Some(Revision::new(6, 0))));
        front.note(b"key", Revision::new(7, 0), false);
        assert_eq!(front.find(b"key", 9), None);
    }

    /// Such a change can't be named here, and what was named before is the newest no more.
    #[test]
    fn a_revision_that_does_not_fit_empties_the_slot() {
        for at in [Revision::new(9, 64), Revision::new(1 << 44, 0), Revision::new(i64::MAX, 0), Revision::new(9, -1)] {
            let front = Front::new(1);
            front.note(b"key", Revision::new(8, 63), true);
            assert_eq!(front.find(b"key", i64::MAX), Some(Revision::new(8, 63)));
            front.note(b"key", at, true);
            assert_eq!(front.find(b"key", i64::MAX), None, "{at}");
        }
    }
}
