//! `Keys`: the keys of one node with what goes with each, one after the other in one piece of memory.
//!
//! ```text
//! slots: [head, end] [head, end] …       head: the four bytes behind what all keys have in common
//! bytes: key load length, key load …     end: where all that ends in `bytes`; length: the load's, u32
//! ```
//!
//! A search goes over the heads, which lie close together, and looks at one key at its end; the
//! load is then right behind the key. So a node is two allocations, and a copy of it two `memcpy`s.

use std::cmp::Ordering;

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

/// Of the length of a load.
const LENGTH_BYTES: usize = 4;
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

    /// A copy with room for so many more keys of so many bytes together.
    pub(super) fn copy(&self, keys: usize, bytes: usize) -> Self {
        let mut copy = Self {
            bytes: Vec::with_capacity(self.bytes.len() + bytes),
            slots: Vec::with_capacity(self.slots.len() + keys),
            common: self.common,
        };
        copy.bytes.extend_from_slice(&self.bytes);
        copy.slots.extend_from_slice(&self.slots);
        copy
    }

    pub(super) fn get(&self, at: usize) -> &[u8] {
        &self.bytes[self.start(at)..self.key_end(at)]
    }

    /// What goes with the key at place `at`.
    pub(super) fn load(&self, at: usize) -> &[u8] {
        &self.bytes[self.key_end(at)..self.slots[at].end as usize - LENGTH_BYTES]
    }

    pub(super) fn last(&self) -> Option<&[u8]> {
        self.len().checked_sub(1).map(|last| self.get(last))
    }

    /// Where `key` is (`Ok`), or where it would have to go (`Err`).
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let own = &key[..self.common.min(key.len())];
        match own.cmp(&self.bytes[..self.common]) {
            Ordering::Less => return Err(0),
            Ordering::Greater => return Err(self.len()),
            Ordering::Equal => {}
        }
        let head = head(&key[self.common..]);
        let mut at = self.first_from(head);
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

    /// Puts `key` and its load at place `at`; the caller keeps the order.
    pub(super) fn insert(&mut self, at: usize, key: &[u8], load: &[u8]) {
        let (start, added) = (self.start(at), key.len() + load.len() + LENGTH_BYTES);
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
        let (start, end, len) = (self.key_end(at), self.slots[at].end as usize, load.len() + LENGTH_BYTES);
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
        self.bytes[end..end + LENGTH_BYTES].copy_from_slice(&length(load.len()).to_le_bytes());
    }

    /// Puts `key` and its load behind all; the caller keeps the order.
    pub(super) fn push(&mut self, key: &[u8], load: &[u8]) {
        self.insert(self.len(), key, load);
    }

    pub(super) fn remove(&mut self, at: usize) {
        let (start, end) = (self.start(at), self.slots[at].end as usize);
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

    fn key_end(&self, at: usize) -> usize {
        let end = self.slots[at].end as usize;
        let load = self.bytes[..end].last_chunk().map_or(0, |length| u32::from_le_bytes(*length));
        end - LENGTH_BYTES - load as usize
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

/// How many bytes two keys begin alike.
fn common(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).take_while(|(a, b)| a == b).count()
}

/// Makes room for a few more items if there is none for one.
pub(super) fn reserve_few<T>(items: &mut Vec<T>) {
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
