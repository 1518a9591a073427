//! `Sparingly`: no more lines of a kind than a person reads, however many there would be.

use std::time::{Duration, Instant};

/// Lines that may follow each other at once; one more comes every [`LINE_EVERY`].
const LINES_MAX: u32 = 10;
const LINE_EVERY: Duration = Duration::from_millis(200);

/// How many lines there were lately.
#[derive(Debug)]
pub struct Sparingly {
    left: u32,
    /// When the last one was given back.
    since: Option<Instant>,
    unsaid: u64,
}

impl Default for Sparingly {
    fn default() -> Self {
        Self { left: LINES_MAX, since: None, unsaid: 0 }
    }
}

impl Sparingly {
    /// Whether to write one now: how many were not written since the last one.
    pub fn say(&mut self, now: Instant) -> Option<u64> {
        let since = *self.since.get_or_insert(now);
        let earned = now.saturating_duration_since(since).as_millis() / LINE_EVERY.as_millis();
        if earned > 0 {
            self.left = LINES_MAX.min(self.left.saturating_add(u32::try_from(earned).unwrap_or(LINES_MAX)));
            self.since = Some(now);
        }
        if self.left == 0 {
            self.unsaid += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{Clock as _, ManualClock};

    #[test]
    fn a_flood_is_counted_and_not_logged() {
        let clock = ManualClock::new();
        let mut lines = Sparingly::default();
        let said = |lines: &mut Sparingly, now| (0..1_000).filter(|_| lines.say(now).is_some()).count();
        assert_eq!(said(&mut lines, clock.now()), 10);
        clock.advance(LINE_EVERY);
        assert_eq!(lines.say(clock.now()), Some(990));
        assert_eq!(lines.say(clock.now()), None);
        clock.advance(Duration::from_secs(3_600));
        assert_eq!(said(&mut lines, clock.now()), 10);
    }
}
