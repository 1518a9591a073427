//! When a lease's remaining time is worth an entry in the log.
//!
//! A new leader starts from the last checkpoint, or from the full time to live if there is none;
//! so a lease nobody renews lives at most about half longer for each change of leader. A lease that
//! is renewed in time (clients do so at a third of it) is never checkpointed, and costs no entry.

use crate::types::LeaseId;

/// A lease must have lost at least this many seconds since its last checkpoint to get one.
pub const CHECKPOINT_SHRINK_SECS_MIN: i64 = 60;

/// A lease as the rule sees it, all in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    pub(super) id: LeaseId,
    pub(super) ttl_secs: i64,
    /// The last checkpoint, 0 if none.
    pub(super) checkpoint_secs: i64,
    /// What is left now, rounded up.
    pub(super) remaining_secs: i64,
}

impl Candidate {
    fn base(&self) -> i64 {
        if self.checkpoint_secs > 0 { self.checkpoint_secs } else { self.ttl_secs }
    }

    /// The checkpoint that it should get, while the leader goes on or when it stops in order, if any.
    ///
    /// `grace_secs` is what a promotion adds to deadlines. A renewal after a checkpoint gives 0:
    /// the full time to live again.
    pub(super) fn checkpoint(&self, grace_secs: i64) -> Option<(LeaseId, i64)> {
        if self.checkpoint_secs > 0 && self.remaining_secs > self.checkpoint_secs.saturating_add(grace_secs) {
            return Some((self.id, 0));
        }
        let shrunk = self.base() - self.remaining_secs;
        let enough = CHECKPOINT_SHRINK_SECS_MIN.max(self.base() / 2);
        (shrunk >= enough).then_some((self.id, self.remaining_secs.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(ttl_secs: i64, checkpoint_secs: i64, remaining_secs: i64) -> Candidate {
        Candidate { id: LeaseId(1), ttl_secs, checkpoint_secs, remaining_secs }
    }

    #[test]
    fn a_lease_is_written_down_when_it_has_lost_half_and_a_minute() {
        assert_eq!(lease(3660, 0, 1831).checkpoint(1), None);
        assert_eq!(lease(3660, 0, 1830).checkpoint(1), Some((LeaseId(1), 1830)));
        assert_eq!(lease(3660, 1830, 1000).checkpoint(1), None);
        assert_eq!(lease(15, 0, 1).checkpoint(1), None);
        assert_eq!(lease(100, 0, -5).checkpoint(1), Some((LeaseId(1), 1)));
    }

    #[test]
    fn a_renewal_takes_the_checkpoint_back_but_a_promotion_does_not() {
        assert_eq!(lease(3660, 1830, 3660).checkpoint(1), Some((LeaseId(1), 0)));
        assert_eq!(lease(3660, 1830, 1831).checkpoint(1), None);
    }

    #[test]
    fn a_short_lease_is_never_cut_to_what_it_has_left() {
        // Cause: a stop wrote down whatever differed. Symptom: a lease of 10 s, renewed every 3 s, had 7 s left
        // after a restart of 6 s, though a crash would have given it 10. Now both give it the same.
        assert_eq!(lease(10, 0, 1).checkpoint(2), None);
        assert_eq!(lease(60, 0, 1).checkpoint(2), None);
        assert_eq!(lease(61, 0, 1).checkpoint(2), Some((LeaseId(1), 1)));
    }
}
