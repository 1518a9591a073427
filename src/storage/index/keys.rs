//! `Keys`: the keys of one node with what goes with each, one after the other in one piece of memory.
//!
//! ```text
//! slots: [head, end] [head, end] …       head: the four bytes behind what all keys have in common
//! bytes: key load length, key load …     end: where all that ends in `bytes`; length: the load's
//! ```
//!
//! A length is a byte; that of a load of 255 bytes or more is a u32 and then a byte of ones.
//!
//! A search goes over the heads, which lie close together, and looks at one key at its end; the
//! load is then right behind the key. So a node is two allocations, and a copy of it two `memcpy`s.

use std::cmp::Ordering;
use std::ops::Range;

use super::patch::Patch;

/// Sorted byte strings with a load each, found by binary search.
///
/// Invariants: places never fall and the last end is the length of `bytes`; the first `common` bytes
/// of all keys are the same; a slot's head is its key's [`head`] behind those.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
    common: usize,
}

/// In the place of a load's length: it is long, and the length lies before this.
const LONG: u8 = u8::MAX;
/// Of the length of a long load, that byte included.
const LONG_BYTES: usize = 5;
/// Slots in a cache line.
const LINE: usize = 8;

#[derive(Clone, Copy, Debug)]
struct Slot {
    head: u32,
    end: u32,
}

impl Slot {
    /// The same so many bytes further on; wraps, so that it goes back too.
    fn moved(self, by: u32) -> Self {
        Self { end: self.end.wrapping_add(by), ..self }
    }
}

impl Keys {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// All keys and loads together, in bytes.
    pub(super) fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// A copy that has the loads of `patch` in the place of its own, with room for so many more keys of so many
    /// bytes together.
    pub(super) fn copy(&self, patch: &Patch, keys: usize, bytes: usize) -> Self {
        let grown = patch.ascending().map(|(at, load)| with_length(load.len()) + self.key_end(at));
        let shrunk = patch.ascending().map(|(at, _)| self.end(at));
        let len = self.bytes.len() + grown.sum::<usize>() - shrunk.sum::<usize>();
        let mut copy = Self {
            bytes: Vec::with_capacity(len + bytes),
            slots: Vec::with_capacity(self.slots.len() + keys),
            common: self.common,
        };
        let (mut from, mut moved) = (0, 0);
        for (at, load) in patch.ascending() {
            copy.copy_from(self, from..at, moved);
            copy.bytes.extend_from_slice(&self.bytes[self.start(at)..self.key_end(at)]);
            let key_end = copy.bytes.len();
            copy.bytes.resize(key_end + with_length(load.len()), 0);
            copy.write_load(key_end, load);
            let end = length(copy.bytes.len());
            copy.slots.push(Slot { head: self.slots[at].head, end });
            (from, moved) = (at + 1, end.wrapping_sub(self.slots[at].end));
        }
        copy.copy_from(self, from..self.len(), moved);
        copy
    }

    /// Puts a stretch of `other` behind; it lies so many bytes further on here.
    fn copy_from(&mut self, other: &Self, places: Range<usize>, moved: u32) {
        self.bytes.extend_from_slice(&other.bytes[other.start(places.start)..other.start(places.end)]);
        self.slots.extend(other.slots[places].iter().map(|slot| slot.moved(moved)));
    }

    pub(super) fn get(&self, at: usize) -> &[u8] {
        &self.bytes[self.start(at)..self.key_end(at)]
    }

    /// What goes with the key at place `at`.
    pub(super) fn load(&self, at: usize) -> &[u8] {
        let end = self.end(at);
        let (load, length) = self.load_at(end);
        &self.bytes[end - length - load..end - length]
    }

    pub(super) fn last(&self) -> Option<&[u8]> {
        self.len().checked_sub(1).map(|last| self.get(last))
    }

    /// Where `key` is (`Ok`), or where it would have to go (`Err`).
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let found = key.get(self.common..).map(|rest| (head(rest), self.first_from(head(rest))));
        // Mostly it is the first key with this head, and then what all have in common, which lies elsewhere in
        // memory, needn't be looked at.
        if let Some((head, at)) = found
            && self.slots.get(at).is_some_and(|slot| slot.head == head)
            && self.get(at) == key
        {
            return Ok(at);
        }
        let own = &key[..self.common.min(key.len())];
        let (head, mut at) = match (own.cmp(&self.bytes[..self.common]), found) {
            (Ordering::Equal, Some(found)) => found,
            (Ordering::Greater, _) => return Err(self.len()),
            _ => return Err(0),
        };
        // Few keys share a head; longer runs are cut by halves.
        let mut end = at;
        while end < self.len() && self.slots[end].head == head {
            end = (end + 8).min(self.len());
        }
        while at < end {
            let middle = at.midpoint(end);
            match self.slots[middle].head.cmp(&head).then_with(|| self.get(middle).cmp(key)) {
                Ordering::Less => at = middle + 1,
                Ordering::Greater => end = middle,
                Ordering::Equal => return Ok(middle),
            }
        }
        Err(at)
    }

    /// The first place whose head isn't below `head`.
    ///
    /// One look into each cache line, then through one of them: the looks don't depend on each other, so
    /// that the processor waits for all lines at once and not for three, one after the other.
    fn first_from(&self, head: u32) -> usize {
        let (lines, rest) = self.slots.as_chunks::<LINE>();
        let start = lines.iter().filter(|line| line[LINE - 1].head < head).count();
        let line = lines.get(start).map_or(rest, |line| line);
        start * LINE + line.iter().filter(|slot| slot.head < head).count()
    }

    /// A look into each cache line of the slots.
    pub(super) fn look_at_slots(&self) -> u32 {
        self.slots.iter().step_by(LINE).fold(0, |sum, slot| sum ^ slot.head)
    }

    /// A look at the bytes where `key` mostly is if it is here, without finding out.
    pub(super) fn look_near(&self, key: &[u8]) -> u8 {
        let Some(rest) = key.get(self.common..) else { return 0 };
        let at = self.first_from(head(rest)).min(self.len().saturating_sub(1));
        let first = self.bytes.get(self.start(at)).copied().unwrap_or(0);
        self.slots.get(at).and_then(|slot| self.bytes.get(slot.end as usize - 1)).map_or(first, |last| first ^ last)
    }

    /// Puts `key` and its load at place `at`; the caller keeps the order.
    pub(super) fn insert(&mut self, at: usize, key: &[u8], load: &[u8]) {
        let (start, added) = (self.start(at), key.len() + with_length(load.len()));
        let common = if self.slots.is_empty() { key.len() } else { common(&self.bytes[..self.common], key) };
        self.resize(start, start, added);
        self.bytes[start..start + key.len()].copy_from_slice(key);
        self.write_load(start + key.len(), load);
        reserve_few(&mut self.slots);
        self.slots.insert(at, Slot { head: head(&key[common..]), end: length(start + added) });
        for slot in &mut self.slots[at + 1..] {
            *slot = slot.moved(length(added));
        }
        if common != self.common {
            self.set_common(common);
        }
    }

    /// Puts another load in place of the one at `at`.
    pub(super) fn set_load(&mut self, at: usize, load: &[u8]) {
        let (start, end, len) = (self.key_end(at), self.end(at), with_length(load.len()));
        if end - start != len {
            self.resize(start, end, len);
            let by = length(len).wrapping_sub(length(end - start));
            for slot in &mut self.slots[at..] {
                *slot = slot.moved(by);
            }
        }
        self.write_load(start, load);
    }

    fn write_load(&mut self, at: usize, load: &[u8]) {
        let end = at + load.len();
        self.bytes[at..end].copy_from_slice(load);
        match u8::try_from(load.len()) {
            Ok(short) if short != LONG => self.bytes[end] = short,
            _ => {
                self.bytes[end..end + 4].copy_from_slice(&length(load.len()).to_le_bytes());
                self.bytes[end + 4] = LONG;
            }
        }
    }

    /// Puts `key` and its load behind all; the caller keeps the order.
    pub(super) fn push(&mut self, key: &[u8], load: &[u8]) {
        self.insert(self.len(), key, load);
    }

    pub(super) fn remove(&mut self, at: usize) {
        let (start, end) = (self.start(at), self.end(at));
        self.bytes.drain(start..end);
        self.slots.remove(at);
        for later in &mut self.slots[at..] {
            *later = later.moved(length(end - start).wrapping_neg());
        }
        if self.slots.is_empty() {
            self.common = 0;
        }
    }

    /// Makes the bytes from `start` to `end` so many, of any content.
    fn resize(&mut self, start: usize, end: usize, len: usize) {
        let old = self.bytes.len();
        if len > end - start {
            let added = len - (end - start);
            if self.bytes.capacity() - old < added {
                // A node is copied at nearly every publish, so room for a few keys is enough and doubling is waste.
                self.bytes.reserve_exact(added * 4);
            }
            self.bytes.resize(old + added, 0);
            self.bytes.copy_within(end..old, start + len);
        } else {
            self.bytes.copy_within(end..old, start + len);
            self.bytes.truncate(old - (end - start - len));
        }
    }

    /// Takes the keys from `at` on away.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        let start = self.start(at);
        let bytes = self.bytes[start..].to_vec();
        let slots = self.slots[at..].iter().map(|slot| slot.moved(length(start).wrapping_neg())).collect();
        self.bytes.truncate(start);
        self.slots.truncate(at);
        let mut right = Self { bytes, slots, common: self.common };
        self.tighten();
        right.tighten();
        right
    }

    /// Puts all of `other` behind; the caller keeps the order.
    pub(super) fn append(&mut self, other: &Self) {
        let base = length(self.bytes.len());
        self.bytes.extend_from_slice(&other.bytes);
        self.slots.extend(other.slots.iter().map(|slot| slot.moved(base)));
        self.tighten();
    }

    /// Gives spare memory back and makes searches as short as can be.
    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.slots.shrink_to_fit();
        self.tighten();
    }

    /// Finds out anew what all keys have in common: what the first and the last have.
    fn tighten(&mut self) {
        let found = self.last().map_or(0, |last| common(self.get(0), last));
        self.set_common(found);
    }

    fn set_common(&mut self, common: usize) {
        self.common = common;
        let mut start = 0;
        for at in 0..self.slots.len() {
            self.slots[at].head = head(&self.bytes[start + common..self.key_end(at)]);
            start = self.slots[at].end as usize;
        }
    }

    fn end(&self, at: usize) -> usize {
        self.slots[at].end as usize
    }

    fn key_end(&self, at: usize) -> usize {
        let end = self.end(at);
        let (load, length) = self.load_at(end);
        end - length - load
    }

    /// How long the load is whose length ends at `end`, and how long that length is.
    fn load_at(&self, end: usize) -> (usize, usize) {
        match self.bytes[end - 1] {
            LONG => {
                let length = self.bytes[..end - 1].last_chunk().map_or(0, |length| u32::from_le_bytes(*length));
                (length as usize, LONG_BYTES)
            }
            short => (short.into(), 1),
        }
    }

    fn start(&self, at: usize) -> usize {
        if at == 0 { 0 } else { self.slots[at - 1].end as usize }
    }
}

/// The first four bytes as a number that sorts as they do; of two keys, the lower has the lower one or the same.
fn head(key: &[u8]) -> u32 {
    match key.first_chunk::<4>() {
        Some(first) => u32::from_be_bytes(*first),
        None => key.iter().fold(0, |head, byte| head << 8 | u32::from(*byte)) << (8 * (4 - key.len()) % 32),
    }
}

/// The bytes of a load with its length.
pub(super) fn with_length(load: usize) -> usize {
    load + if load < LONG.into() { 1 } else { LONG_BYTES }
}

/// How many bytes two keys begin alike.
fn common(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(a, b)| a == b).count()
}

/// Makes room for a few more items if there is none for one.
fn reserve_few<T>(items: &mut Vec<T>) {
    if items.len() == items.capacity() {
        items.reserve_exact(4);
    }
}

/// Node sizes are bounded by their number of keys, and a key by the largest request.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a node's keys stay far below 4 GiB: it is split by bytes too")
}

/// The shortest key that is above `left` and not above `right` (`left < right`).
pub(super) fn separator<'a>(left: &[u8], right: &'a [u8]) -> &'a [u8] {
    &right[..(common(left, right) + 1).min(right.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_in_order_through_all_edits() {
        let mut keys = Keys::default();
        for key in ["d", "", "bb", "abc", "c"] {
            let at = keys.search(key.as_bytes()).unwrap_err();
            keys.insert(at, key.as_bytes(), key.repeat(2).as_bytes());
        }
        let all = |keys: &Keys| (0..keys.len()).map(|i| keys.get(i).to_vec()).collect::<Vec<_>>();
        assert_eq!(all(&keys), [&b""[..], b"abc", b"bb", b"c", b"d"]);
        let right = keys.split_off(2);
        assert_eq!((all(&keys).len(), all(&right)), (2, vec![b"bb".to_vec(), b"c".to_vec(), b"d".to_vec()]));
        keys.append(&right);
        keys.remove(1);
        keys.remove(0);
        keys.insert(0, b"aa", b"new");
        assert_eq!(all(&keys), [&b"aa"[..], b"bb", b"c", b"d"]);
        assert_eq!(keys.search(b"c"), Ok(2));
        assert_eq!(keys.search(b"ca"), Err(3));
        for (at, load) in [(1, &b"longer than before"[..]), (2, b""), (0, b"old"), (3, b"d")] {
            keys.set_load(at, load);
            assert_eq!(keys.load(at), load);
        }
        assert_eq!(all(&keys), [&b"aa"[..], b"bb", b"c", b"d"]);
        assert_eq!([0, 1, 2, 3].map(|at| keys.load(at)), [&b"old"[..], b"longer than before", b"", b"d"]);
    }

    #[test]
    fn a_copy_has_the_loads_of_the_patch() {
        let (mut keys, mut patch) = (Keys::default(), Patch::default());
        for at in 0..40_usize {
            keys.push(format!("key{at:02}").as_bytes(), &vec![at as u8; at * 9]);
        }
        let mut loads: Vec<Vec<u8>> = (0..40).map(|at| keys.load(at).to_vec()).collect();
        assert_eq!(keys.load(39).len(), 351);
        for (at, len) in [(0, 3), (39, 254), (7, 255), (8, 0), (28, 256), (29, 1)] {
            loads[at] = vec![b'n'; len];
            patch = patch.with(at, &loads[at]).unwrap();
        }
        let mut copy = keys.copy(&patch, 1, 10);
        assert_eq!((copy.bytes.capacity(), copy.slots.capacity()), (copy.bytes.len() + 10, 41));
        for (at, load) in loads.iter().enumerate() {
            assert_eq!(copy.search(format!("key{at:02}").as_bytes()), Ok(at));
            assert_eq!(copy.load(at), load);
        }
        copy.set_load(39, &[1; 255]);
        copy.set_load(7, &[2; 254]);
        assert_eq!((copy.load(39), copy.load(7), copy.load(8)), (&[1; 255][..], &[2; 254][..], &[][..]));
    }

    #[test]
    fn heads_that_are_alike_and_short_keys_are_told_apart() {
        let mut all: Vec<Vec<u8>> = (0..200_u8).map(|n| vec![b'p', 1, 2, 3, 4, n]).collect();
        all.extend([vec![b'p'], vec![b'p', 0], vec![b'p', 0, 0], vec![b'p', 0, 0, 0, 0], vec![b'p', 1, 2, 3, 4]]);
        all.sort();
        let mut keys = Keys::default();
        for key in all.iter().rev() {
            let at = keys.search(key).unwrap_err();
            assert_eq!(at, 0);
            keys.insert(at, key, b"load");
        }
        for (at, key) in all.iter().enumerate() {
            assert_eq!(keys.search(key), Ok(at));
            let above = [key.as_slice(), &[0]].concat();
            assert_eq!(keys.search(&above), all.binary_search(&above));
        }
        assert_eq!((keys.search(b""), keys.search(b"o"), keys.search(b"q")), (Err(0), Err(0), Err(205)));
    }

    #[test]
    fn a_separator_is_short_and_between() {
        for (left, right, want) in [("abc", "abd", "abd"), ("a", "ab", "ab"), ("abc", "b", "b"), ("aa", "abcdef", "ab")]
        {
            let got = separator(left.as_bytes(), right.as_bytes());
            assert_eq!(got, want.as_bytes());
            assert!(left.as_bytes() < got && got <= right.as_bytes());
        }
    }
}
