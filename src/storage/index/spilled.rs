//! `Spilled`: what some of a leaf's items have besides their bytes.
//!
//! Few leaves have any, so it is one pointer, and a copy of the leaf one reference count.

use std::sync::Arc;

/// Parts of items by the items' places, ascending.
#[derive(Clone, Debug)]
pub(super) struct Spilled<T>(Option<Arc<Vec<(u16, T)>>>);

impl<T> Default for Spilled<T> {
    fn default() -> Self {
        Self(None)
    }
}

/// What the item at a place has besides its bytes, looked for only when asked.
#[derive(Debug)]
pub(super) struct Spill<'a, T> {
    of: &'a Spilled<T>,
    at: usize,
}

impl<T> Clone for Spill<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Spill<'_, T> {}

impl<'a, T> Spill<'a, T> {
    pub(super) fn get(self) -> Option<&'a T> {
        let parts = self.of.0.as_deref()?;
        parts.binary_search_by_key(&place(self.at), |(place, _)| *place).ok().map(|found| &parts[found].1)
    }
}

impl<T: Clone> Spilled<T> {
    pub(super) fn get(&self, at: usize) -> Spill<'_, T> {
        Spill { of: self, at }
    }

    /// Sets or removes the part of the item at `at`.
    pub(super) fn set(&mut self, at: usize, part: Option<T>) {
        let found = self.parts().binary_search_by_key(&place(at), |(place, _)| *place);
        match (found, part) {
            (Ok(found), Some(part)) => self.change(|parts| parts[found].1 = part),
            (Ok(found), None) => self.change(|parts| drop(parts.remove(found))),
            (Err(found), Some(part)) => self.change(|parts| parts.insert(found, (place(at), part))),
            (Err(_), None) => {}
        }
    }

    /// An item came at `at`; those from there on are one place further.
    pub(super) fn inserted(&mut self, at: usize) {
        if self.parts().last().is_some_and(|(last, _)| *last >= place(at)) {
            self.change(|parts| parts.iter_mut().filter(|(of, _)| *of >= place(at)).for_each(|(of, _)| *of += 1));
        }
    }

    /// The item at `at` went; those behind it are one place nearer.
    pub(super) fn removed(&mut self, at: usize) {
        self.set(at, None);
        if self.parts().last().is_some_and(|(last, _)| *last > place(at)) {
            self.change(|parts| parts.iter_mut().filter(|(of, _)| *of > place(at)).for_each(|(of, _)| *of -= 1));
        }
    }

    /// Takes the parts of the items from `at` on away.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        let first = self.parts().partition_point(|(of, _)| *of < place(at));
        if first == self.parts().len() {
            return Self(None);
        }
        let mut right = Vec::new();
        self.change(|parts| right = parts.split_off(first));
        right.iter_mut().for_each(|(of, _)| *of -= place(at));
        Self(Some(Arc::new(right)))
    }

    /// Puts all of `other` behind, whose items come after the `len` that are here.
    pub(super) fn append(&mut self, len: usize, other: &Self) {
        if !other.parts().is_empty() {
            let moved = other.parts().iter().map(|(of, part)| (of + place(len), part.clone()));
            self.change(|parts| parts.extend(moved));
        }
    }

    fn parts(&self) -> &[(u16, T)] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    fn change(&mut self, change: impl FnOnce(&mut Vec<(u16, T)>)) {
        let parts = Arc::make_mut(self.0.get_or_insert_default());
        change(parts);
        if parts.is_empty() {
            self.0 = None;
        }
    }
}

/// A leaf is split long before it has so many items.
fn place(at: usize) -> u16 {
    u16::try_from(at).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(spilled: &Spilled<char>) -> Vec<(usize, char)> {
        (0..20).filter_map(|at| Some((at, *spilled.get(at).get()?))).collect()
    }

    #[test]
    fn parts_follow_their_items() {
        let mut spilled = Spilled::default();
        spilled.set(4, None);
        for (at, part) in [(5, 'b'), (2, 'a'), (9, 'c')] {
            spilled.set(at, Some(part));
        }
        let copy = spilled.clone();
        spilled.inserted(5);
        assert_eq!(all(&spilled), [(2, 'a'), (6, 'b'), (10, 'c')]);
        spilled.removed(0);
        spilled.removed(5);
        assert_eq!(all(&spilled), [(1, 'a'), (8, 'c')]);
        let right = spilled.split_off(3);
        assert_eq!((all(&spilled), all(&right)), (vec![(1, 'a')], vec![(5, 'c')]));
        spilled.append(4, &right);
        assert_eq!(all(&spilled), [(1, 'a'), (9, 'c')]);
        spilled.set(9, Some('d'));
        spilled.set(1, None);
        assert_eq!(all(&spilled), [(9, 'd')]);
        spilled.set(9, None);
        assert!(spilled.0.is_none());
        assert_eq!(all(&copy), [(2, 'a'), (5, 'b'), (9, 'c')]);
    }
}
