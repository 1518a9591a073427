//! How many snapshots are held, and since when the oldest is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::env::Clock;

/// Seconds that ages are told apart for; a snapshot that is older counts as younger.
const SECONDS: usize = 4096;

/// Held snapshots, counted by the second in which they were taken; no lock, one addition each.
#[derive(Debug)]
pub(super) struct SnapshotGauge {
    clock: Arc<dyn Clock>,
    start: Instant,
    by_second: Box<[AtomicU64]>,
}

impl SnapshotGauge {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let start = clock.now();
        Self { clock, start, by_second: (0..SECONDS).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Counts one in; the number gives it back.
    pub(super) fn enter(&self) -> usize {
        let slot = self.second() % SECONDS;
        self.by_second[slot].fetch_add(1, Ordering::Relaxed);
        slot
    }

    /// Counts one out.
    pub(super) fn leave(&self, slot: usize) {
        self.by_second[slot].fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn live(&self) -> u64 {
        self.by_second.iter().map(|slot| slot.load(Ordering::Relaxed)).sum()
    }

    /// The age of the oldest held snapshot, to the second; zero if there is none.
    pub(super) fn oldest(&self) -> Duration {
        let now = self.second();
        let held = |age: &usize| self.by_second[(now - age) % SECONDS].load(Ordering::Relaxed) > 0;
        let age = (0..SECONDS.min(now + 1)).rev().find(held).unwrap_or(0);
        Duration::from_secs(age as u64)
    }

    fn second(&self) -> usize {
        let passed = self.clock.now().saturating_duration_since(self.start);
        usize::try_from(passed.as_secs()).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::ManualClock;

    #[test]
    fn the_oldest_that_is_held_counts() {
        let clock = Arc::new(ManualClock::new());
        let gauge = SnapshotGauge::new(clock.clone());
        let first = gauge.enter();
        clock.advance(Duration::from_secs(5));
        let second = gauge.enter();
        clock.advance(Duration::from_secs(2));
        assert_eq!((gauge.live(), gauge.oldest()), (2, Duration::from_secs(7)));
        gauge.leave(first);
        assert_eq!((gauge.live(), gauge.oldest()), (1, Duration::from_secs(2)));
        gauge.leave(second);
        assert_eq!((gauge.live(), gauge.oldest()), (0, Duration::ZERO));
    }
}
