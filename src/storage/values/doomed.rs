//! `Doomed`: records that are to go for good, by the segment that lists them.
//!
//! ```text
//! segment ─► a bit for each of its 128 main revisions whose first record goes · the others, one by one
//! ```
//!
//! A compaction finds its records key by key, which is any order of revisions; gathered here, all
//! that go of one segment go together, and the segment is written once. Most commands change one
//! key, so that a set of millions takes about a bit for each.

use std::collections::BTreeMap;

use super::segment::{SHIFT, Segment};
use crate::types::Revision;

/// Bits of a packed revision that are its sub; the main's place in its segment is above them.
const SUB_BITS: u32 = 64 - SHIFT;

/// A set of revisions.
#[derive(Debug, Default)]
pub struct Doomed {
    segments: BTreeMap<u64, OfSegment>,
    count: usize,
}

/// Those of one segment.
#[derive(Debug, Default)]
struct OfSegment {
    /// The main revisions, from the segment's first, whose record of sub 0 is in the set.
    first: u128,
    /// Records of other subs, packed so that their order is the revisions'. Sorted, and without
    /// doubles, only after [`Doomed::merge`].
    others: Vec<u64>,
}

impl OfSegment {
    fn count(&self) -> usize {
        self.first.count_ones() as usize + self.others.len()
    }

    /// All of them, ascending.
    fn revisions(&self, base: u64, to: &mut Vec<Revision>) {
        let first_main = (base << SHIFT) as i64;
        let mut others = self.others.iter().copied().peekable();
        for low in 0..1u64 << SHIFT {
            let main = first_main | low as i64;
            if self.first >> low & 1 == 1 {
                to.push(Revision::new(main, 0));
            }
            while let Some(packed) = others.next_if(|packed| packed >> SUB_BITS == low) {
                to.push(Revision::new(main, (packed & ((1 << SUB_BITS) - 1)) as i64));
            }
        }
    }
}

impl Doomed {
    /// Adds one; it is counted even if it is there already and has another sub than 0.
    pub fn insert(&mut self, at: Revision) {
        let segment = self.segments.entry(Segment::base_of(at.main)).or_default();
        let low = at.main as u64 & ((1 << SHIFT) - 1);
        if at.sub == 0 {
            self.count += usize::from(segment.first >> low & 1 == 0);
            segment.first |= 1 << low;
        } else {
            // A sub counts the changes of one command and is far below these bits.
            segment.others.push(low << SUB_BITS | at.sub as u64 & ((1 << SUB_BITS) - 1));
            self.count += 1;
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Adds all of `later`; gives how many of those were here already.
    pub(super) fn merge(&mut self, later: Self) -> usize {
        let expected = self.count + later.count;
        for (base, mut add) in later.segments {
            let segment = self.segments.entry(base).or_default();
            self.count -= segment.count();
            segment.first |= add.first;
            segment.others.append(&mut add.others);
            segment.others.sort_unstable();
            segment.others.dedup();
            self.count += segment.count();
        }
        expected - self.count
    }

    /// Whole segments from the lowest on, with at least `count_min` revisions if there are as many and
    /// the limit of segments allows: the revisions, ascending, and of how many segments they are. To
    /// be asked of a merged set.
    pub(super) fn lowest(&self, count_min: usize, segments_max: usize) -> (Vec<Revision>, usize) {
        let (mut revisions, mut segments) = (Vec::new(), 0);
        for (base, segment) in self.segments.iter().take(segments_max) {
            if revisions.len() >= count_min {
                break;
            }
            segment.revisions(*base, &mut revisions);
            segments += 1;
        }
        (revisions, segments)
    }

    /// Drops so many segments from the lowest on.
    pub(super) fn drop_lowest(&mut self, segments: usize) {
        for _ in 0..segments {
            self.count -= self.segments.pop_first().map_or(0, |(_, segment)| segment.count());
        }
    }
}

impl FromIterator<Revision> for Doomed {
    fn from_iter<I: IntoIterator<Item = Revision>>(revisions: I) -> Self {
        let mut doomed = Self::default();
        revisions.into_iter().for_each(|at| doomed.insert(at));
        doomed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn at(main: i64, sub: i64) -> Revision {
        Revision::new(main, sub)
    }

    #[test]
    fn whole_segments_come_lowest_first() {
        let mut doomed = Doomed::default();
        let later: Doomed = [at(300, 0), at(127, 3), at(2, 0), at(127, 0), at(128, 1), at(2, 7)].into_iter().collect();
        assert_eq!((doomed.merge(later), doomed.len()), (0, 6));
        assert_eq!(doomed.lowest(1, 9), (vec![at(2, 0), at(2, 7), at(127, 0), at(127, 3)], 1));
        assert_eq!(doomed.lowest(5, 9).0.last(), Some(&at(128, 1)));
        assert_eq!(doomed.lowest(usize::MAX, 2).1, 2);
        doomed.drop_lowest(2);
        assert_eq!((doomed.len(), doomed.lowest(9, 9)), (1, (vec![at(300, 0)], 1)));
        doomed.drop_lowest(1);
        assert!(doomed.is_empty() && doomed.lowest(1, 1) == (vec![], 0));
    }

    #[test]
    fn it_is_a_set_whatever_comes_in_any_order() {
        bolero::check!().with_type::<Vec<Vec<(u16, u8)>>>().for_each(|parts| {
            let (mut doomed, mut plain) = (Doomed::default(), BTreeSet::new());
            for part in parts {
                let part: Vec<_> = part.iter().map(|(main, sub)| at(i64::from(*main), i64::from(*sub % 4))).collect();
                let handed: Doomed = part.iter().copied().collect();
                let (sum, before) = (handed.len() + plain.len(), plain.len());
                plain.extend(part);
                assert_eq!(doomed.merge(handed), sum - plain.len(), "of {before}");
                assert_eq!(doomed.len(), plain.len());
            }
            let mut left = Vec::new();
            while !doomed.is_empty() {
                let (mut some, segments) = doomed.lowest(10, 3);
                left.append(&mut some);
                doomed.drop_lowest(segments);
            }
            assert_eq!(left, plain.into_iter().collect::<Vec<_>>());
        });
    }
}
