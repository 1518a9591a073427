//! `Chunked`: a short list in pieces, so that a copy in which one item differs shares the other pieces.
//!
//! ```text
//! [0 … 7] [8 … 15] [16 … 23] …      pieces of eight, each counted once for all lists that have it
//! ```
//!
//! What an inner node's copy costs is mostly the counting of its children, each in a cache line of its
//! own. So a change copies one piece with its eight children and counts the others by their pieces.

use std::sync::Arc;

use smallvec::SmallVec;

/// Items in a piece.
const PIECE: usize = 8;

/// A list that shares its pieces with its copies.
///
/// Invariant: all pieces but the last have [`PIECE`] items, and the last has some.
#[derive(Clone, Debug)]
pub(super) struct Chunked<T> {
    pieces: SmallVec<[Arc<[T]>; PIECE]>,
}

impl<T: Clone> Chunked<T> {
    pub(super) fn len(&self) -> usize {
        self.pieces.last().map_or(0, |last| (self.pieces.len() - 1) * PIECE + last.len())
    }

    pub(super) fn get(&self, at: usize) -> Option<&T> {
        self.pieces.get(at / PIECE)?.get(at % PIECE)
    }

    /// The item at a place that is in the list.
    pub(super) fn at(&self, at: usize) -> &T {
        &self.pieces[at / PIECE][at % PIECE]
    }

    /// The same to change; copies its piece if that is shared. `count` looks at what a copy of an item counts up.
    pub(super) fn at_mut(&mut self, at: usize, count: impl Fn(&T) -> usize) -> &mut T {
        let piece = &mut self.pieces[at / PIECE];
        if Arc::strong_count(piece) > 1 {
            // The counts lie in a cache line each. A look at all of them has the processor wait for the lines at
            // once; counting up, which it does one after the other, then finds them there.
            std::hint::black_box(piece.iter().fold(0, |sum, item| sum ^ count(item)));
        }
        &mut Arc::make_mut(piece)[at % PIECE]
    }

    /// A look at what a copy of the list counts up.
    pub(super) fn count(&self) -> usize {
        self.pieces.iter().fold(0, |sum, piece| sum ^ Arc::strong_count(piece))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pieces.iter().flat_map(|piece| piece.iter())
    }

    pub(super) fn insert(&mut self, at: usize, item: T) {
        let mut rest = self.take_from(at);
        rest.insert(at % PIECE, item);
        self.extend(&rest);
    }

    pub(super) fn remove(&mut self, at: usize) {
        let mut rest = self.take_from(at);
        rest.remove(at % PIECE);
        self.extend(&rest);
    }

    /// Takes the items from `at` on away.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        let rest = self.take_from(at);
        let (left, right) = rest.split_at(at % PIECE);
        self.extend(left);
        right.into()
    }

    /// Puts all of `other` behind.
    pub(super) fn append(&mut self, other: &Self) {
        let mut rest = self.take_from(self.len());
        rest.extend(other.iter().cloned());
        self.extend(&rest);
    }

    /// Takes the piece of place `at` and all behind it away.
    fn take_from(&mut self, at: usize) -> Vec<T> {
        let first = (at / PIECE).min(self.pieces.len());
        self.pieces.drain(first..).flat_map(|piece| piece.to_vec()).collect()
    }

    /// Puts items behind whole pieces.
    fn extend(&mut self, items: &[T]) {
        self.pieces.extend(items.chunks(PIECE).map(Arc::from));
    }
}

impl<T: Clone> From<&[T]> for Chunked<T> {
    fn from(items: &[T]) -> Self {
        Self { pieces: items.chunks(PIECE).map(Arc::from).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_list_and_copies_stay() {
        let (mut list, mut model) = (Chunked::from(&[][..]), Vec::new());
        let (mut random, mut copies) = (7_usize, Vec::new());
        for number in 0..3_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (random >> 33) % (model.len() + 1);
            match (random >> 20) % 8 {
                0..=3 => {
                    list.insert(at, number);
                    model.insert(at, number);
                }
                4 | 5 if at < model.len() => {
                    *list.at_mut(at, |_| 0) = number;
                    model[at] = number;
                }
                6 if at < model.len() => {
                    list.remove(at);
                    model.remove(at);
                }
                7 if model.len() > 60 => {
                    let (right, other) = (list.split_off(at), model.split_off(at));
                    assert_eq!(right.iter().copied().collect::<Vec<_>>(), other);
                    if number % 2 == 0 {
                        list.append(&right);
                        model.extend(other);
                    }
                }
                _ => copies.push((list.clone(), model.clone())),
            }
            assert_eq!((list.len(), list.get(at)), (model.len(), model.get(at)));
        }
        copies.push((list, model));
        for (list, model) in copies {
            assert_eq!(list.iter().copied().collect::<Vec<_>>(), model);
            assert!((0..model.len()).all(|at| *list.at(at) == model[at]));
        }
    }

    #[test]
    fn a_change_copies_one_piece() {
        let list = Chunked::from(&(0..40).collect::<Vec<_>>()[..]);
        let mut copy = list.clone();
        *copy.at_mut(17, |_| 0) = 99;
        let shared = list.pieces.iter().zip(&copy.pieces).map(|(left, right)| Arc::ptr_eq(left, right));
        assert_eq!(shared.collect::<Vec<_>>(), [true, true, false, true, true]);
    }
}
