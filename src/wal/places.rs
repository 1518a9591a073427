//! Where entries lie on disk, and which leadership put them there.

use std::collections::VecDeque;

use crate::types::{MemberId, RaftIndex, Term};

use super::types::EntryId;

/// One entry's record in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) offset: u32,
    pub(super) len: u32,
}

/// The places of the entries on disk; contiguous from `base` on.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    base: u64,
    places: VecDeque<Place>,
}

impl Places {
    /// Adds the entry after the last one; any index starts an empty list.
    pub(super) fn push(&mut self, index: u64, place: Place) {
        if self.places.is_empty() {
            self.base = index;
        }
        debug_assert_eq!(index, self.base + self.places.len() as u64, "entries on disk are contiguous");
        self.places.push_back(place);
    }

    /// Forgets the entries from `index` on.
    pub(super) fn truncate_from(&mut self, index: u64) {
        self.places.truncate(usize::try_from(index.saturating_sub(self.base)).unwrap_or(usize::MAX));
    }

    /// Forgets the entries up to `index`.
    pub(super) fn purge_to(&mut self, index: u64) {
        while !self.places.is_empty() && self.base <= index {
            self.places.pop_front();
            self.base += 1;
        }
    }

    pub(super) fn get(&self, index: u64) -> Option<Place> {
        self.places.get(usize::try_from(index.checked_sub(self.base)?).ok()?).copied()
    }

    /// Index and place of the first entry.
    pub(super) fn first(&self) -> Option<(u64, Place)> {
        self.places.front().map(|place| (self.base, *place))
    }

    /// Bytes of the records of the entries after `index`.
    pub(super) fn bytes_after(&self, index: u64) -> u64 {
        let skip = usize::try_from(index.saturating_add(1).saturating_sub(self.base)).unwrap_or(usize::MAX);
        self.places.iter().skip(skip).map(|place| u64::from(place.len)).sum()
    }

    /// Index of the last entry.
    pub(super) fn last(&self) -> Option<u64> {
        (!self.places.is_empty()).then(|| self.base + self.places.len() as u64 - 1)
    }
}

/// The leadership of every entry, as runs: the id of any index without reading it.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    runs: VecDeque<(u64, Term, Option<MemberId>)>,
}

impl Terms {
    pub(super) fn push(&mut self, id: &EntryId) {
        if self.runs.back().is_none_or(|(_, term, node)| (*term, *node) != (id.term, id.node)) {
            self.runs.push_back((id.index.get(), id.term, id.node));
        }
    }

    pub(super) fn truncate_from(&mut self, index: u64) {
        while self.runs.back().is_some_and(|(first, ..)| *first >= index) {
            self.runs.pop_back();
        }
    }

    /// Forgets what is only about entries up to `index`.
    pub(super) fn purge_to(&mut self, index: u64) {
        while self.runs.get(1).is_some_and(|(first, ..)| *first <= index.saturating_add(1)) {
            self.runs.pop_front();
        }
        if let Some((first, ..)) = self.runs.front_mut() {
            *first = (*first).max(index.saturating_add(1));
        }
    }

    pub(super) fn clear(&mut self) {
        self.runs.clear();
    }

    /// The id of `index`, which must be in the log.
    pub(super) fn id(&self, index: u64) -> Option<EntryId> {
        let after = self.runs.partition_point(|(first, ..)| *first <= index);
        let (_, term, node) = *self.runs.get(after.checked_sub(1)?)?;
        Some(EntryId { term, index: RaftIndex(index), node })
    }

    /// Index of the first entry.
    pub(super) fn first(&self) -> Option<u64> {
        self.runs.front().map(|(first, ..)| *first)
    }

    /// The first entry of each leadership.
    pub(super) fn starts(&self) -> Vec<EntryId> {
        self.runs
            .iter()
            .map(|(first, term, node)| EntryId { term: *term, index: RaftIndex(*first), node: *node })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u64, term: u64) -> EntryId {
        EntryId { term: Term(term), index: RaftIndex(index), node: None }
    }

    #[test]
    fn places_follow_push_truncate_and_purge() {
        let mut places = Places::default();
        for index in 5..10 {
            places.push(index, Place { segment: 1, offset: u32::try_from(index).unwrap(), len: 10 });
        }
        assert_eq!((places.bytes_after(0), places.bytes_after(7), places.bytes_after(9)), (50, 20, 0));
        places.purge_to(6);
        assert_eq!((places.bytes_after(0), places.bytes_after(u64::MAX)), (30, 0));
        assert_eq!(places.first().unwrap().0, 7);
        assert_eq!(places.get(6), None);
        places.truncate_from(9);
        assert_eq!(places.last(), Some(8));
        places.truncate_from(2);
        assert_eq!((places.last(), places.get(7)), (None, None));
        places.push(3, Place { segment: 1, offset: 3, len: 0 });
        assert_eq!(places.get(3).unwrap().offset, 3);
        places.purge_to(u64::MAX - 1);
        assert_eq!(places.first(), None);
    }

    #[test]
    fn terms_know_every_id() {
        let mut terms = Terms::default();
        for (index, term) in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 4)] {
            terms.push(&id(index, term));
        }
        assert_eq!(terms.id(2), Some(id(2, 1)));
        assert_eq!(terms.id(4), Some(id(4, 2)));
        assert_eq!(terms.id(0), None);
        terms.purge_to(3);
        assert_eq!((terms.id(4), terms.first()), (Some(id(4, 2)), Some(4)));
        terms.truncate_from(5);
        assert_eq!(terms.starts(), [id(4, 2)]);
        terms.push(&id(5, 9));
        assert_eq!(terms.id(5), Some(id(5, 9)));
    }
}
