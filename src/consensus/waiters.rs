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
        let mut batches = self.batches.lock();
        // Tags grow, so the oldest come first.
        while let Some(oldest) = batches.first_entry()
            && now.saturating_duration_since(oldest.get().0) > self.age_max
        {
            oldest.remove();
        }
        batches.insert(tag, (now, batch));
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
        assert!(waiters.take(2).is_none());
        assert!(waiters.take(3).is_some());
    }
}
