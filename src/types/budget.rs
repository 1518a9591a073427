//! `Budget`: bytes that many may hold together, up to a limit.
//!
//! ```text
//! Budget::take(bytes) ─► Held ─ drop ─► given back
//!                     └► None: the caller refuses, and nobody waits
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A limit on bytes; clones share it. Invariant: more than `max` is held only by a single holder.
#[derive(Clone, Debug)]
pub struct Budget {
    used: Arc<AtomicUsize>,
    refused: Arc<AtomicU64>,
    max: usize,
}

impl Budget {
    /// Nothing is held yet.
    pub fn new(max: usize) -> Self {
        Self { used: Arc::default(), refused: Arc::default(), max }
    }

    /// Bytes held now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// The limit.
    pub fn max(&self) -> usize {
        self.max
    }

    /// How often it was too much.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Holds `bytes`, or says that they are too many now. Whoever is alone may hold more than the limit, so that no
    /// request is refused for ever.
    pub fn take(&self, bytes: usize) -> Option<Held> {
        self.take_beyond(bytes, 0)
    }

    /// The same with `reserve` bytes more, for what must go on while everything else is refused.
    pub fn take_beyond(&self, bytes: usize, reserve: usize) -> Option<Held> {
        let held = self.enter(bytes, reserve);
        if held.is_none() {
            self.refuse();
        }
        held
    }

    /// Holds `bytes` for who may do without, so that too many are no refusal yet.
    pub fn try_take(&self, bytes: usize) -> Option<Held> {
        self.enter(bytes, 0)
    }

    fn enter(&self, bytes: usize, reserve: usize) -> Option<Held> {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let held = Held { used: self.used.clone(), bytes };
        let fits = before == 0 || before.saturating_add(bytes) <= self.max.saturating_add(reserve);
        fits.then_some(held)
    }

    /// Whether [`Budget::take`] would take `bytes` now; that it wouldn't counts as refused.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.has_room_beyond(bytes, 0)
    }

    /// The same of [`Budget::take_beyond`].
    pub fn has_room_beyond(&self, bytes: usize, reserve: usize) -> bool {
        let used = self.used();
        let fits = used == 0 || used.saturating_add(bytes) <= self.max.saturating_add(reserve);
        if !fits {
            self.refuse();
        }
        fits
    }

    /// Counts a refusal.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets `held`, of this budget, hold `bytes` more; false if they are too many now. Whoever is alone may, as before.
    pub fn grow(&self, held: &mut Held, bytes: usize) -> bool {
        debug_assert!(Arc::ptr_eq(&self.used, &held.used), "a holder of another budget");
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let fits = before <= held.bytes || before.saturating_add(bytes) <= self.max;
        if fits {
            held.bytes += bytes;
        } else {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            self.refuse();
        }
        fits
    }

    /// Holds `bytes` even if they are too many: for what can't be refused any more.
    pub fn hold(&self, bytes: usize) -> Held {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Held { used: self.used.clone(), bytes }
    }
}

/// Bytes held; given back when dropped.
#[derive(Debug)]
pub struct Held {
    used: Arc<AtomicUsize>,
    bytes: usize,
}

impl Held {
    /// How many bytes it holds.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes over what `other`, of the same budget, holds.
    pub fn merge(&mut self, mut other: Self) {
        debug_assert!(Arc::ptr_eq(&self.used, &other.used), "two holders of one budget");
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Holds `bytes` of the same budget besides, even if they are too many.
    pub fn beside(&self, bytes: usize) -> Self {
        self.used.fetch_add(bytes, Ordering::Relaxed);
        Self { used: self.used.clone(), bytes }
    }

    /// Gives up to `bytes` of it to a holder of their own.
    pub fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { used: self.used.clone(), bytes }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_comes_back() {
        let budget = Budget::new(10);
        let mut held = budget.take(6).unwrap();
        assert!(budget.try_take(5).is_none() && budget.refused() == 0, "whoever may do without isn't refused");
        assert!(budget.take(5).is_none());
        assert_eq!((budget.used(), budget.refused()), (6, 1), "a refusal holds nothing");
        held.merge(budget.take(4).unwrap());
        assert_eq!(budget.used(), 10);
        drop(held);
        assert_eq!(budget.used(), 0);
        let alone = budget.take(99).expect("whoever is alone may hold more");
        assert!(budget.take(1).is_none());
        drop(alone);
        let mut grown = budget.take(1).unwrap();
        assert!(budget.grow(&mut grown, 99), "whoever is alone may grow beyond the limit");
        assert_eq!((grown.bytes(), budget.used()), (100, 100));
        drop(grown);
        let mut one = budget.take(4).unwrap();
        let other = budget.take(4).unwrap();
        assert!(budget.grow(&mut one, 2) && !budget.grow(&mut one, 1), "two share what there is");
        drop((one, other));
        assert_eq!(budget.used(), 0);
        let mut whole = budget.take(9).unwrap();
        let part = whole.split(4);
        drop(whole);
        assert_eq!((part.bytes(), budget.used()), (4, 4), "a part outlives the rest");
        let mut part = part;
        assert_eq!((part.split(7).bytes(), part.bytes()), (4, 0), "no more than there is");
        let copy = part.beside(100);
        drop(part);
        assert_eq!(budget.used(), 100);
        drop(copy);
        assert_eq!(budget.used(), 0);
    }
}
