//! `Keys`: the keys of one node, one after the other in one piece of memory.

/// Sorted byte strings in a single allocation, found by binary search.
///
/// Invariant: `ends` never falls, and its last item is the length of `bytes`.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Keys {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// All keys together, in bytes.
    pub(super) fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn get(&self, at: usize) -> &[u8] {
        &self.bytes[self.start(at)..self.ends[at] as usize]
    }

    pub(super) fn last(&self) -> Option<&[u8]> {
        self.len().checked_sub(1).map(|last| self.get(last))
    }

    /// Where `key` is (`Ok`), or where it would have to go (`Err`).
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.get(middle).cmp(key) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Ok(middle),
            }
        }
        Err(low)
    }

    /// Puts `key` at place `at`; the caller keeps the order.
    pub(super) fn insert(&mut self, at: usize, key: &[u8]) {
        let (start, old, added) = (self.start(at), self.bytes.len(), key.len());
        if self.bytes.capacity() - old < added {
            // A node is copied at nearly every publish, so room for a few keys is enough and doubling is waste.
            self.bytes.reserve_exact(added * 4);
        }
        self.bytes.resize(old + added, 0);
        self.bytes.copy_within(start..old, start + added);
        self.bytes[start..start + added].copy_from_slice(key);
        reserve_few(&mut self.ends);
        self.ends.insert(at, length(start));
        for end in &mut self.ends[at..] {
            *end += length(added);
        }
    }

    pub(super) fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(length(self.bytes.len()));
    }

    pub(super) fn remove(&mut self, at: usize) {
        let (start, end) = (self.start(at), self.ends[at] as usize);
        self.bytes.drain(start..end);
        self.ends.remove(at);
        for later in &mut self.ends[at..] {
            *later -= length(end - start);
        }
    }

    /// Replaces the key at `at`; the caller keeps the order.
    pub(super) fn set(&mut self, at: usize, key: &[u8]) {
        self.remove(at);
        self.insert(at, key);
    }

    /// Takes the keys from `at` on away.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        let start = self.start(at);
        let bytes = self.bytes[start..].to_vec();
        let ends = self.ends[at..].iter().map(|end| end - length(start)).collect();
        self.bytes.truncate(start);
        self.ends.truncate(at);
        Self { bytes, ends }
    }

    /// Puts all of `other` behind; the caller keeps the order.
    pub(super) fn append(&mut self, other: &Self) {
        let base = length(self.bytes.len());
        self.bytes.extend_from_slice(&other.bytes);
        self.ends.extend(other.ends.iter().map(|end| base + end));
    }

    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
        self.ends.shrink_to_fit();
    }

    fn start(&self, at: usize) -> usize {
        if at == 0 { 0 } else { self.ends[at - 1] as usize }
    }
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
    let common = left.iter().zip(right).take_while(|(a, b)| a == b).count();
    &right[..(common + 1).min(right.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_in_order_through_all_edits() {
        let mut keys = Keys::default();
        for key in ["d", "", "bb", "abc", "c"] {
            let at = keys.search(key.as_bytes()).unwrap_err();
            keys.insert(at, key.as_bytes());
        }
        let all = |keys: &Keys| (0..keys.len()).map(|i| keys.get(i).to_vec()).collect::<Vec<_>>();
        assert_eq!(all(&keys), [&b""[..], b"abc", b"bb", b"c", b"d"]);
        let right = keys.split_off(2);
        assert_eq!((all(&keys).len(), all(&right)), (2, vec![b"bb".to_vec(), b"c".to_vec(), b"d".to_vec()]));
        keys.append(&right);
        keys.remove(1);
        keys.set(0, b"aa");
        assert_eq!(all(&keys), [&b"aa"[..], b"bb", b"c", b"d"]);
        assert_eq!(keys.search(b"c"), Ok(2));
        assert_eq!(keys.search(b"ca"), Err(3));
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
