//! Batches that this member forwarded to the leader, until they come back to be applied.
//!
//! ```text
//! propose ─► put (tag) ─► forward to the leader ─► its log ─┬► applied here: take (tag) ─► outcomes to the waiters
//!                                                           └► lost with the leader: pass (term) ─► back to the proposer
//! ```
//! A batch is bound to the term of its leader, so once an entry of a later term is applied it never will be: terms only grow
//! along the log, and all that is before that entry was applied. It may be tried again then. What isn't bound and never
//! comes back is dropped after a while; its waiters have given up by then.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::types::Proposals;
use crate::types::Term;

/// The batches under way, by tag.
#[derive(Debug)]
pub struct Waiters {
    under_way: Mutex<UnderWay>,
    age_max: Duration,
}

#[derive(Debug, Default)]
struct UnderWay {
    batches: BTreeMap<u64, Waiting>,
    /// Of the last entry of another term than the one before it.
    passed: Term,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    /// Only the leader of this term has it.
    term: Option<Term>,
    batch: Proposals,
}

impl Waiters {
    /// None yet; `age_max` is how long anybody waits for an outcome.
    pub fn new(age_max: Duration) -> Self {
        Self { under_way: Mutex::default(), age_max }
    }

    /// Keeps a batch until it is taken. With a term, only the leader of that term may be given it.
    ///
    /// # Errors
    /// The batch, if that term is over.
    pub fn put(&self, tag: u64, now: Instant, term: Option<Term>, batch: Proposals) -> Result<(), Proposals> {
        let mut under_way = self.under_way.lock();
        if term.is_some_and(|term| term < under_way.passed) {
            return Err(batch);
        }
        under_way.batches.insert(tag, Waiting { since: now, term, batch });
        Ok(())
    }

    /// Drops what nobody waits for any more, with its part of the budget of bytes.
    pub fn expire(&self, now: Instant) {
        let is_awaited = |_: &u64, waiting: &mut Waiting| now.saturating_duration_since(waiting.since) <= self.age_max;
        self.under_way.lock().batches.retain(is_awaited);
    }

    /// Drops all but what is bound to later terms: the state was replaced by one whose last entry is of this term, and with
    /// it went what would have answered them.
    pub(super) fn clear(&self, term: Term) {
        let mut under_way = self.under_way.lock();
        under_way.batches.retain(|_, waiting| waiting.term.is_some_and(|bound| bound > term));
        under_way.passed = under_way.passed.max(term);
    }

    /// Gives back what is bound to earlier terms: an entry of this term is about to be applied, the first one, and all before
    /// it was.
    pub(super) fn pass(&self, term: Term) {
        let mut under_way = self.under_way.lock();
        under_way.passed = under_way.passed.max(term);
        let is_over = |_: &u64, waiting: &mut Waiting| waiting.term.is_some_and(|bound| bound < term);
        for (_, waiting) in under_way.batches.extract_if(.., is_over) {
            // At the end of the process nobody takes it: dropped, as all that waits then.
            let _ = waiting.batch.give_back();
        }
    }

    /// Whether the batch of this tag is still under way.
    pub fn has(&self, tag: u64) -> bool {
        self.under_way.lock().batches.contains_key(&tag)
    }

    /// The batch of this tag; the second caller gets none.
    pub fn take(&self, tag: u64) -> Option<Proposals> {
        self.under_way.lock().batches.remove(&tag).map(|waiting| waiting.batch)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::env::{Clock, ManualClock};

    #[test]
    fn a_batch_is_taken_once_and_forgotten_in_the_end() {
        let clock = ManualClock::new();
        let waiters = Waiters::new(Duration::from_secs(7));
        waiters.put(1, clock.now(), None, Proposals::default()).unwrap();
        waiters.put(2, clock.now(), Some(Term(4)), Proposals::default()).unwrap();
        assert!(waiters.take(1).is_some());
        assert!(waiters.take(1).is_none());
        clock.advance(Duration::from_secs(8));
        waiters.put(3, clock.now(), None, Proposals::default()).unwrap();
        waiters.expire(clock.now());
        assert!(waiters.take(2).is_none());
        assert!(waiters.take(3).is_some());
    }

    #[test]
    fn a_batch_comes_back_once_a_later_term_has_begun_and_not_before() {
        let (now, waiters) = (ManualClock::new().now(), Waiters::new(Duration::from_secs(7)));
        let (returns, mut returned) = mpsc::unbounded_channel();
        let batch = || Proposals { returns: Some(returns.clone()), ..Proposals::default() };
        for (tag, term) in [(1, None), (2, Some(Term(4))), (3, Some(Term(5))), (4, Some(Term(4)))] {
            waiters.put(tag, now, term, batch()).unwrap();
        }
        waiters.pass(Term(4));
        assert!(returned.try_recv().is_err(), "its leader may still commit it");
        assert!(waiters.take(4).is_some());
        waiters.pass(Term(5));
        assert!(returned.try_recv().is_ok() && returned.try_recv().is_err());
        assert!(waiters.take(2).is_none());
        // Whoever knows the leader of a moment ago only.
        assert!(waiters.put(6, now, Some(Term(4)), batch()).is_err());
        assert!(waiters.put(7, now, Some(Term(5)), batch()).is_ok());
        assert!(waiters.take(1).is_some() && waiters.take(3).is_some() && waiters.take(7).is_some());
    }

    #[test]
    fn what_a_replaced_state_may_hold_is_given_to_nobody() {
        let (now, waiters) = (ManualClock::new().now(), Waiters::new(Duration::from_secs(7)));
        let (returns, mut returned) = mpsc::unbounded_channel();
        let batch = || Proposals { returns: Some(returns.clone()), ..Proposals::default() };
        for (tag, term) in [(1, Some(Term(4))), (2, Some(Term(6))), (3, None), (4, Some(Term(7)))] {
            waiters.put(tag, now, term, batch()).unwrap();
        }
        waiters.clear(Term(6));
        waiters.pass(Term(7));
        assert_eq!([1, 2, 3, 4].map(|tag| waiters.has(tag)), [false, false, false, true]);
        assert!(returned.try_recv().is_err());
        assert!(waiters.put(5, now, Some(Term(5)), batch()).is_err());
    }
}
