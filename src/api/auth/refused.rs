//! `RefusedLogins`: counts them and tells of them in the log, but not of each.
//!
//! The name isn't told: now and then somebody types a password there.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Between two lines.
const QUIET: Duration = Duration::from_secs(10);

/// How many logins were refused since that was told last, and when it was.
#[derive(Debug, Default)]
pub(super) struct RefusedLogins(Mutex<(u64, Option<Instant>)>);

impl RefusedLogins {
    /// Notes one.
    pub(super) fn note(&self, now: Instant) {
        if let Some(refused) = self.count(now) {
            tracing::warn!(refused, "logins were refused: no such user, or the wrong password");
        }
    }

    /// How many there are to tell of now.
    fn count(&self, now: Instant) -> Option<u64> {
        let (count, told) = &mut *self.0.lock();
        *count += 1;
        if told.is_some_and(|told| now.saturating_duration_since(told) < QUIET) {
            return None;
        }
        *told = Some(now);
        Some(std::mem::take(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_and_then_many_at_a_time() {
        let (refused, start) = (RefusedLogins::default(), Instant::now());
        assert_eq!(refused.count(start), Some(1));
        assert_eq!(refused.count(start), None);
        assert_eq!(refused.count(start + QUIET / 2), None);
        assert_eq!(refused.count(start + QUIET), Some(3));
    }
}
