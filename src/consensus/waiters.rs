//! Batches that this member forwarded to the leader, until they come back to be applied.
//!
//! ```text
//! propose ─► put (tag) ─► forward to the leader ─► its log ─► applied here: take (tag) ─► outcomes to the waiters
//! ```
//! What never comes back is dropped after a while; its waiters have given up by then.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::types::Proposals;

/// The batches under way, by tag.
#[derive(Debug)]
pub struct Waiters {
    batches: Mutex<BTreeMap<u64, (Instant, Proposals)>>,
    age_max: Duration,
}

impl Waiters {
    /// None yet; `age_max` is how long anybody waits for an outcome.
    pub fn new(age_max: Duration) -> Self {
        Self { batches: Mutex::default(), age_max }
    }

    /// Keeps a batch until it is taken.
    pub fn put(&self, tag: u64, now: Instant, batch: Proposals) {
        self.batches.lock().insert(tag, (now, batch));
    }

    /// Drops what nobody waits for any more, with its part of the budget of bytes.
    pub fn expire(&self, now: Instant) {
        self.batches.lock().retain(|_, (since, _)| now.saturating_duration_since(*since) <= self.age_max);
    }

    /// Drops all: the state was replaced, and with it went what would have answered them.
    pub(super) fn clear(&self) {
        self.batches.lock().clear();
    }

    /// The batch of this tag; the second caller gets none.
    pub fn take(&self, tag: u64) -> Option<Proposals> {
        self.batches.lock().remove(&tag).map(|(_, batch)| batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{Clock, ManualClock};

    #[test]
    fn a_batch_is_taken_once_and_forgotten_in_the_end() {
        let clock = ManualClock::new();
        let waiters = Waiters::new(Duration::from_secs(7));
        waiters.put(1, clock.now(), Proposals::default());
        waiters.put(2, clock.now(), Proposals::default());
        assert!(waiters.take(1).is_some());
        assert!(waiters.take(1).is_none());
        clock.advance(Duration::from_secs(8));
        waiters.put(3, clock.now(), Proposals::default());
        waiters.expire(clock.now());
        assert!(waiters.take(2).is_none());
        assert!(waiters.take(3).is_some());
    }
}
