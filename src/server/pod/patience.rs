//! How long a job of the chart waits for members, and how long it takes silence for "nobody is there".
//!
//! ```text
//! a look ─┬► an answer ─► heard: silence begins anew
//!         └► none ──────► silent for so long, or patience is over? ─► what is done without them
//! ```
//! Silence counts from the last answer and not from the start: after a long wait one moment without an answer would
//! else decide.

use std::time::{Duration, Instant};

use crate::env::Clock;

/// A cluster of which nobody answers for so long isn't there.
const NOBODY_MAX: Duration = Duration::from_secs(20);

/// One wait.
#[derive(Debug)]
pub(super) struct Waiting<'a> {
    clock: &'a dyn Clock,
    begun: Instant,
    patience: Duration,
    /// Before the first answer, when it was begun.
    heard_at: Instant,
}

impl<'a> Waiting<'a> {
    /// Begins now.
    pub(super) fn new(clock: &'a dyn Clock, patience: Duration) -> Self {
        let begun = clock.now();
        Self { clock, begun, patience, heard_at: begun }
    }

    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// How long it may take.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// How long it has taken.
    pub(super) fn passed(&self) -> Duration {
        self.now().saturating_duration_since(self.begun)
    }

    pub(super) fn is_over(&self) -> bool {
        self.passed() >= self.patience
    }

    /// Somebody answered.
    pub(super) fn heard(&mut self) {
        self.heard_at = self.now();
    }

    /// Whether nobody is there: for long there was no answer, or none can be waited for any more.
    pub(super) fn is_nobody(&self) -> bool {
        self.now().saturating_duration_since(self.heard_at) >= NOBODY_MAX || self.is_over()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::ManualClock;

    #[test]
    fn silence_counts_from_the_last_answer() {
        let clock = ManualClock::new();
        let mut waiting = Waiting::new(&clock, Duration::from_secs(240));
        clock.advance(Duration::from_secs(19));
        assert!(!waiting.is_nobody());
        waiting.heard();
        clock.advance(Duration::from_secs(19));
        assert!(!waiting.is_nobody());
        clock.advance(Duration::from_secs(1));
        assert!(waiting.is_nobody() && !waiting.is_over());
        clock.advance(Duration::from_secs(201));
        waiting.heard();
        assert!(waiting.is_nobody() && waiting.is_over(), "it can't be waited any more");
        assert_eq!(waiting.passed(), Duration::from_secs(240));
    }
}
