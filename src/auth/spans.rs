//! `Spans`: a set of keys as stretches that neither touch nor overlap, so that one binary search
//! says whether it holds all of a range. Most stretches are told apart by a number, which lies where they do.

use bytes::Bytes;

use crate::types::{KeyRange, RangeEnd};

/// One stretch; no end means up to the last key there can be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    /// Of the start.
    head: u64,
    start: Bytes,
    end: Option<Bytes>,
}

/// A set of keys, sorted and merged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans(Vec<Span>);

impl Spans {
    /// The union of `ranges`; stretches that touch become one.
    pub fn new<'a>(ranges: impl IntoIterator<Item = &'a KeyRange>) -> Self {
        let mut spans: Vec<Span> = ranges.into_iter().filter(|range| !range.is_empty()).map(span).collect();
        spans.sort_by(|a, b| a.start.cmp(&b.start));
        let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
        for span in spans {
            match merged.last_mut() {
                Some(last) if last.end.as_ref().is_none_or(|end| *end >= span.start) => {
                    if let (Some(end), Some(next)) = (&last.end, &span.end) {
                        if next > end {
                            last.end = span.end;
                        }
                    } else {
                        last.end = None;
                    }
                }
                _ => merged.push(span),
            }
        }
        Self(merged)
    }

    /// What a range takes here, in bytes, if it touches no other.
    pub(super) fn bytes_of(range: &KeyRange) -> usize {
        let end = match &range.end {
            // The end of a single key is made for it; all else is shared with what the range was made of.
            RangeEnd::Single => range.start.len() + 1,
            RangeEnd::Before(_) | RangeEnd::Unbounded => 0,
        };
        size_of::<Span>() + end
    }

    /// Whether every key of `range` is in the set. A range that can hold no key counts as the stretch between
    /// its two ends: what it names must be in the set all the same.
    pub fn contains(&self, range: &KeyRange) -> bool {
        let (start, end) = match &range.end {
            RangeEnd::Single => return self.around(&range.start).is_some(),
            RangeEnd::Unbounded => (&range.start, None),
            RangeEnd::Before(end) if *end <= range.start => return self.contains_key_and_back(end, &range.start),
            RangeEnd::Before(end) => (&range.start, Some(end)),
        };
        match (self.around(start), end) {
            (None, _) => false,
            (Some(Span { end: None, .. }), _) => true,
            (Some(_), None) => false,
            (Some(Span { end: Some(span), .. }), Some(end)) => span >= end,
        }
    }

    /// Whether `key` is in the set.
    pub fn contains_key(&self, key: &[u8]) -> bool {
        self.around(key).is_some()
    }

    /// Up to where, not included, all keys from `key` on are in the set; `Some(None)` is no end, `None` that `key` isn't.
    pub fn stretch(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        Some(self.around(key)?.end.as_deref())
    }

    fn contains_key_and_back(&self, low: &[u8], high: &[u8]) -> bool {
        self.around(low).is_some_and(|span| span.end.as_ref().is_none_or(|end| end.as_ref() > high))
    }

    /// The stretch that `key` is in.
    fn around(&self, key: &[u8]) -> Option<&Span> {
        let first = head(key);
        let after =
            self.0.partition_point(|span| span.head < first || span.head == first && span.start.as_ref() <= key);
        let span = &self.0[after.checked_sub(1)?];
        span.end.as_ref().is_none_or(|end| end.as_ref() > key).then_some(span)
    }
}

/// A key's first eight bytes as a number. Of two keys the one with the smaller head comes first; equal heads say nothing.
fn head(key: &[u8]) -> u64 {
    match key.first_chunk() {
        Some(first) => u64::from_be_bytes(*first),
        None => key.iter().rev().fold(0, |head, byte| head >> 8 | u64::from(*byte) << 56),
    }
}

fn span(range: &KeyRange) -> Span {
    let start = range.start.clone();
    let end = match &range.end {
        RangeEnd::Single => {
            // The next key there can be.
            let mut next = Vec::with_capacity(start.len() + 1);
            next.extend_from_slice(&start);
            next.push(0);
            Some(next.into())
        }
        RangeEnd::Unbounded => None,
        RangeEnd::Before(end) => Some(end.clone()),
    };
    Span { head: head(&start), start, end }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(start: &'static str, end: &'static str) -> KeyRange {
        KeyRange::from_wire(start.into(), end.into())
    }

    #[test]
    fn what_touches_is_one() {
        let spans = Spans::new(&[range("c", "d"), range("a", "c"), range("w", ""), range("w\0", "x")]);
        assert_eq!(spans.0.len(), 2);
        for held in [range("a", "d"), range("a", ""), range("c\u{1}", "d"), range("w", "x"), range("b", "c")] {
            assert!(spans.contains(&held), "{held:?}");
        }
        for not in [range("a", "d\0"), range("a", "\0"), range("d", ""), range("Z", "b"), range("x", "")] {
            assert!(!spans.contains(&not), "{not:?}");
        }
    }

    #[test]
    fn keys_that_begin_alike_are_told_apart_and_a_short_one_comes_first() {
        let spans = Spans::new(&[
            range("/registry/a", "/registry/b"),
            range("/registry/c", ""),
            range("/registr", ""),
            range("z", "z\0\0\0\0\0\0\0\0\0"),
        ]);
        for held in ["/registry/a", "/registry/az", "/registry/c", "/registr", "z", "z\0", "z\0\0\0\0\0\0\0\0"] {
            assert!(spans.contains_key(held.as_bytes()), "{held:?}");
        }
        for not in ["", "/registry/", "/registry/b", "/registry/c\0", "/regist", "/registr\0", "z\0\0\0\0\0\0\0\0\0"] {
            assert!(!spans.contains_key(not.as_bytes()), "{not:?}");
        }
        let heads = ["", "\0", "a", "a\0", "aa", "b", "bbbbbbbb", "bbbbbbbbb", "c"].map(|key| head(key.as_bytes()));
        assert!(heads.is_sorted(), "{heads:?}");
    }

    #[test]
    fn an_open_end_needs_one() {
        let spans = Spans::new(&[range("m", "\0"), range("p", "q")]);
        assert!(spans.contains(&range("m", "\0")) && spans.contains(&range("z", "\0")));
        assert!(!spans.contains(&range("l", "\0")));
        assert!(!Spans::new(&[range("a", "z")]).contains(&range("b", "\0")));
        assert!(!Spans::default().contains(&range("b", "a")), "an empty range of somebody else's keys");
    }

    fn any_range() -> impl Strategy<Value = KeyRange> {
        let key = || proptest::collection::vec(0u8..3, 1..3).prop_map(Bytes::from);
        let end = prop_oneof![Just(Bytes::new()), Just(Bytes::from_static(&[0])), key()];
        (key(), end).prop_map(|(start, end)| KeyRange::from_wire(start, end))
    }

    proptest! {
        /// Against all keys of up to three letters, which stand for all there are.
        #[test]
        fn it_holds_what_its_ranges_hold(ranges in proptest::collection::vec(any_range(), 0..6), asked in any_range()) {
            let spans = Spans::new(&ranges);
            let mut keys = vec![Vec::new()];
            for len in 0..4 {
                let longest: Vec<Vec<u8>> = keys.iter().filter(|key| key.len() == len).cloned().collect();
                keys.extend(longest.iter().flat_map(|key| (0u8..4).map(|byte| [&key[..], &[byte]].concat())));
            }
            let in_any = |key: &[u8]| ranges.iter().any(|range| range.contains(key));
            for key in &keys {
                prop_assert_eq!(spans.contains_key(key), in_any(key));
                let stretch = spans.stretch(key);
                prop_assert_eq!(stretch.is_some(), in_any(key));
                if let Some(Some(end)) = stretch {
                    prop_assert!(end > key.as_slice() && !in_any(end));
                }
            }
            if !asked.is_empty() {
                let unbounded = asked.end == RangeEnd::Unbounded;
                let all = keys.iter().filter(|key| asked.contains(key)).all(|key| in_any(key))
                    && (!unbounded || ranges.iter().any(|range| range.end == RangeEnd::Unbounded));
                prop_assert_eq!(spans.contains(&asked), all);
            }
        }
    }
}
