//! Time: a monotonic clock for deadlines and the wall clock for people.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

/// Where time comes from. Deadlines use `now`; `wall` is only for what a human or a certificate reads.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Monotonic time.
    fn now(&self) -> Instant;
    /// Time of day; may jump.
    fn wall(&self) -> SystemTime;
}

/// The operating system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one door to the monotonic clock")]
    fn now(&self) -> Instant {
        Instant::now()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one door to the wall clock")]
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock {
    base: Instant,
    elapsed: Mutex<Duration>,
}

impl ManualClock {
    /// Starts at some instant, and at the Unix epoch for `wall`.
    pub fn new() -> Self {
        Self { base: SystemClock.now(), elapsed: Mutex::new(Duration::ZERO) }
    }

    /// Moves both clocks on.
    pub fn advance(&self, by: Duration) {
        *self.elapsed.lock() += by;
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.base + *self.elapsed.lock()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + *self.elapsed.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::new();
        let before = clock.now();
        assert_eq!(clock.now(), before);
        clock.advance(Duration::from_secs(3));
        assert_eq!(clock.now() - before, Duration::from_secs(3));
        assert_eq!(clock.wall(), SystemTime::UNIX_EPOCH + Duration::from_secs(3));
    }
}
