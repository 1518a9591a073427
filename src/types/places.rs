//! `Places`: how many of something there may be at a time, and how often there would have been more.
//!
//! ```text
//! Places::take ─► Place ─ drop ─► free again
//!              └► None: the caller refuses, nobody waits; counted, and told in the log now and then
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Between two lines of the log about one limit.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// A limit on how many there are. Invariant: `taken` is the number of places that are held.
#[derive(Debug)]
pub struct Places {
    limit: &'static str,
    max: usize,
    taken: AtomicUsize,
    refused: AtomicU64,
    told: Mutex<Option<Instant>>,
}

impl Places {
    /// `max` places; `limit` is the flag that says so, without dashes, for metrics and the log.
    pub fn new(limit: &'static str, max: usize) -> Arc<Self> {
        Arc::new(Self { limit, max, taken: AtomicUsize::new(0), refused: AtomicU64::new(0), told: Mutex::new(None) })
    }

    /// The flag, without dashes.
    pub fn limit(&self) -> &'static str {
        self.limit
    }

    /// How many there may be.
    pub fn max(&self) -> usize {
        self.max
    }

    /// How many there are.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// How often somebody was turned away.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// A place, or `None` if all are taken; that counts as a refusal.
    pub fn take(self: &Arc<Self>) -> Option<Place> {
        self.take_beyond(0)
    }

    /// The same with `reserve` places more, for what must go on while everything else is turned away.
    pub fn take_beyond(self: &Arc<Self>, reserve: usize) -> Option<Place> {
        let place = self.enter(reserve).then(|| Place(self.clone()));
        if place.is_none() {
            self.refuse();
        }
        place
    }

    /// A place for who may do without, so that none is no refusal yet.
    pub fn try_take(self: &Arc<Self>) -> Option<Place> {
        self.enter(0).then(|| Place(self.clone()))
    }

    /// Takes a place without a guard, if one of the first `max` and `reserve` is free: to be given back by
    /// [`Places::leave`]. Not counted as a refusal otherwise.
    pub fn enter(&self, reserve: usize) -> bool {
        if self.taken.fetch_add(1, Ordering::Relaxed) >= self.max.saturating_add(reserve) {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// Gives back what [`Places::enter`] took.
    pub fn leave(&self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts one that was turned away, and tells of it if that wasn't told a moment ago.
    pub fn refuse(&self) {
        let refused = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        let now = Instant::now();
        // Whoever finds it locked need not tell: somebody is about to.
        let Some(mut told) = self.told.try_lock() else { return };
        if told.is_some_and(|told| now.saturating_duration_since(told) < LOG_EVERY) {
            return;
        }
        *told = Some(now);
        drop(told);
        tracing::warn!(limit = self.limit, max = self.max, refused, "a limit is reached");
    }
}

/// A place that is taken; free again when dropped.
#[derive(Debug)]
pub struct Place(Arc<Places>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_than_there_are_is_turned_away() {
        let places = Places::new("max-things", 2);
        let first = places.take().expect("free");
        let _second = places.take().expect("free");
        assert!(places.take().is_none());
        assert_eq!((places.taken(), places.refused()), (2, 1));
        let reserved = places.take_beyond(1).expect("in the reserve");
        assert!(places.take_beyond(1).is_none());
        drop((first, reserved));
        assert_eq!((places.taken(), places.refused()), (1, 2));
        assert!(places.take().is_some());
    }

    #[test]
    fn threads_never_take_more_than_there_are() {
        let places = Places::new("max-things", 3);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let held = places.take();
                        assert!(held.is_none() || places.taken() <= 3 + 4);
                    }
                });
            }
        });
        assert_eq!(places.taken(), 0);
    }
}
