//! `KeyRange`: the keys that a request is about, with etcd's rules for its end.

use bytes::Bytes;

/// Where a range of keys ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RangeEnd {
    /// Exactly the start key (an empty `range_end` on the wire).
    Single,
    /// Every key from the start on (a `range_end` of one zero byte).
    Unbounded,
    /// Up to this key, which is not part of the range.
    Before(Bytes),
}

/// A set of keys: one key, or a stretch of the byte-wise order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// The first key.
    pub start: Bytes,
    /// Where it ends.
    pub end: RangeEnd,
}

impl KeyRange {
    /// One key.
    pub fn single(key: impl Into<Bytes>) -> Self {
        Self { start: key.into(), end: RangeEnd::Single }
    }

    /// Every key there is.
    pub fn all() -> Self {
        Self { start: Bytes::new(), end: RangeEnd::Unbounded }
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let start: Bytes = prefix.into();
        let mut end = start.to_vec();
        while let Some(last) = end.pop() {
            if last < 0xff {
                end.push(last + 1);
                return Self { start, end: RangeEnd::Before(end.into()) };
            }
        }
        Self { start, end: RangeEnd::Unbounded }
    }

    /// From `key` and `range_end` as they come on the wire.
    pub fn from_wire(key: Bytes, range_end: Bytes) -> Self {
        let end = match range_end.as_ref() {
            [] => RangeEnd::Single,
            [0] => RangeEnd::Unbounded,
            _ => RangeEnd::Before(range_end),
        };
        Self { start: key, end }
    }

    /// The `range_end` that says the same on the wire.
    pub fn wire_end(&self) -> Bytes {
        match &self.end {
            RangeEnd::Single => Bytes::new(),
            RangeEnd::Unbounded => Bytes::from_static(&[0]),
            RangeEnd::Before(end) => end.clone(),
        }
    }

    /// Whether the range can hold no key at all (its end is not after its start).
    pub fn is_empty(&self) -> bool {
        matches!(&self.end, RangeEnd::Before(end) if *end <= self.start)
    }

    /// Whether this is exactly one key.
    pub fn is_single(&self) -> bool {
        self.end == RangeEnd::Single
    }

    /// Whether `key` is in the range.
    pub fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            RangeEnd::Single => key == self.start.as_ref(),
            RangeEnd::Unbounded => key >= self.start.as_ref(),
            RangeEnd::Before(end) => key >= self.start.as_ref() && key < end.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_at_the_next_sibling() {
        assert_eq!(KeyRange::prefix("ab").end, RangeEnd::Before(Bytes::from_static(b"ac")));
        let high = KeyRange::prefix(&b"a\xff"[..]);
        assert_eq!(high.end, RangeEnd::Before(Bytes::from_static(b"b")));
        assert_eq!(KeyRange::prefix(&b"\xff\xff"[..]).end, RangeEnd::Unbounded);
        assert_eq!(KeyRange::prefix("").end, RangeEnd::Unbounded);
    }

    #[test]
    fn an_end_at_or_before_the_start_holds_nothing() {
        let range = KeyRange::from_wire("b".into(), "a".into());
        assert!(range.is_empty() && !range.contains(b"b"));
        assert!(KeyRange::from_wire("b".into(), "b".into()).is_empty());
        assert!(!KeyRange::from_wire("b".into(), Bytes::from_static(&[0])).is_empty());
    }
}
