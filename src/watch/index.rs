//! `RangeIndex`: from an event's key and kind to the groups of watchers that want it.
//!
//! Watchers of one range and one set of kinds form a group. Single keys are found in a hash map, ranges in an
//! interval tree. The hub has one of these for live events, a replay makes one of its own for past ones.

use std::collections::HashMap;

use bytes::Bytes;
use smallvec::SmallVec;

use super::interval::IntervalTree;
use crate::types::{EventKind, KeyRange, RangeEnd};

/// Which kinds of events a watcher wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kinds {
    /// Puts (no `NOPUT` filter).
    pub puts: bool,
    /// Deletes (no `NODELETE` filter).
    pub deletes: bool,
}

impl Kinds {
    /// Everything.
    pub const ALL: Self = Self { puts: true, deletes: true };

    fn has(self, kind: EventKind) -> bool {
        match kind {
            EventKind::Put => self.puts,
            EventKind::Delete => self.deletes,
        }
    }
}

/// What the watchers of a group have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GroupKey {
    pub(crate) range: KeyRange,
    pub(crate) kinds: Kinds,
}

/// Groups by what they watch.
#[derive(Debug, Default)]
pub(crate) struct RangeIndex {
    exact: HashMap<Bytes, SmallVec<[u32; 2]>>,
    ranges: IntervalTree,
    kinds: Vec<Kinds>,
}

impl RangeIndex {
    /// Adds a group under an id of its own.
    pub(crate) fn insert(&mut self, key: &GroupKey, id: u32) {
        let at = id as usize;
        if self.kinds.len() <= at {
            self.kinds.resize(at + 1, Kinds::ALL);
        }
        self.kinds[at] = key.kinds;
        let start = key.range.start.clone();
        match &key.range.end {
            RangeEnd::Single => self.exact.entry(start).or_default().push(id),
            RangeEnd::Unbounded => self.ranges.insert(start, None, id),
            RangeEnd::Before(end) => self.ranges.insert(start, Some(end.clone()), id),
        }
    }

    /// Takes a group out again.
    pub(crate) fn remove(&mut self, key: &GroupKey, id: u32) {
        if !key.range.is_single() {
            self.ranges.remove(&key.range.start, id);
        } else if let Some(ids) = self.exact.get_mut(&key.range.start) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.exact.remove(&key.range.start);
            }
        }
    }

    /// Calls `hit` with every group that wants this change.
    pub(crate) fn matches(&self, key: &[u8], kind: EventKind, mut hit: impl FnMut(u32)) {
        let mut wanted = |id: u32| {
            if self.kinds.get(id as usize).is_some_and(|kinds| kinds.has(kind)) {
                hit(id);
            }
        };
        if let Some(ids) = self.exact.get(key) {
            ids.iter().copied().for_each(&mut wanted);
        }
        self.ranges.stab(key, &mut wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_by_key_and_by_kind() {
        let mut index = RangeIndex::default();
        let only_puts = Kinds { puts: true, deletes: false };
        let groups = [
            GroupKey { range: KeyRange::single("a"), kinds: Kinds::ALL },
            GroupKey { range: KeyRange::single("a"), kinds: only_puts },
            GroupKey { range: KeyRange::prefix("a"), kinds: Kinds::ALL },
            GroupKey { range: KeyRange::all(), kinds: only_puts },
        ];
        for (id, group) in groups.iter().enumerate() {
            index.insert(group, id as u32);
        }
        let hits = |index: &RangeIndex, key: &[u8], kind| {
            let mut hits = Vec::new();
            index.matches(key, kind, |id| hits.push(id));
            hits.sort_unstable();
            hits
        };
        assert_eq!(hits(&index, b"a", EventKind::Put), [0, 1, 2, 3]);
        assert_eq!(hits(&index, b"a", EventKind::Delete), [0, 2]);
        assert_eq!(hits(&index, b"ab", EventKind::Put), [2, 3]);
        for (id, group) in groups.iter().enumerate().take(3) {
            index.remove(group, id as u32);
        }
        assert_eq!(hits(&index, b"a", EventKind::Put), [3]);
    }
}
