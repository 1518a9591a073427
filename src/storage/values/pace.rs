//! How many records a step of the store thread removes, and how long it rests after it.
//!
//! ```text
//! step = work (records, removals) · flush ─► fit: the next step's removals
//!                                         └► rest: long beside many writes, short beside few
//! ```
//!
//! Work takes the processor. A flush takes that, too, and waits for the disk, often as long for few removals as for many: were
//! it counted, a slow disk would make a compaction even slower. One that is long all the same is by what there is to
//! write, which the log's syncs wait for on the same disk.

use std::time::Duration;

/// How long the work of a step with removals is to take, the flush aside.
const WORK: Duration = Duration::from_millis(60);
/// From when on a flush is long.
const FLUSH_LONG: Duration = Duration::from_millis(240);
/// Removals of the first step, and at least.
const FIRST: usize = 4096;
/// To how many a long flush brings them at least: it may be long by itself, and a compaction is to keep up.
const FLUSHED: usize = 1 << 15;
/// Beside fewer bytes of pending records a second than this, requests leave most of the time unused.
const FEW_BYTES: u64 = 4 << 20;
/// Which part of a step's time the rest is then; as long as the step otherwise.
const SHORT: u32 = 4;
/// No rest is longer: a compaction is to come to an end.
const REST_MAX: Duration = Duration::from_secs(1);

/// The pace of removals.
#[derive(Debug)]
pub(super) struct Pace {
    /// The most removals of a step.
    max: usize,
    /// About how many take [`WORK`].
    pub(super) count: usize,
}

impl Pace {
    /// At most so many removals a step.
    pub(super) fn new(max: usize) -> Self {
        let max = max.max(1);
        Self { max, count: FIRST.min(max) }
    }

    /// Makes the next step as long as it should be, after one that took so long, so much of it the flush.
    pub(super) fn fit(&mut self, took: Duration, flush: Duration) {
        let count = match took.saturating_sub(flush) {
            work if work > WORK * 2 => self.count / 2,
            work if work < WORK / 2 => self.count.saturating_mul(2),
            _ => self.count,
        };
        let most = if flush > FLUSH_LONG { (self.count / 2).max(FLUSHED) } else { self.max };
        self.count = count.min(most).max(FIRST).min(self.max);
    }
}

/// How long nothing is removed after a step that took so long, while so many bytes of records were appended.
pub(super) fn rest(took: Duration, appended: u64) -> Duration {
    let few = u128::from(FEW_BYTES) * took.as_millis() / 1000;
    let rest = if u128::from(appended) < few && took < FLUSH_LONG { took / SHORT } else { took };
    rest.min(REST_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    // Cause: the flush counted. Symptom: on a slow disk each step removed the least, and a compaction took for ever.
    #[test]
    fn a_slow_disk_makes_steps_no_smaller_unless_much_is_written_to_it() {
        let mut pace = Pace::new(1 << 18);
        for _ in 0..20 {
            pace.fit(220 * MS, 200 * MS);
        }
        assert_eq!(pace.count, 1 << 18);
        pace.fit(300 * MS, 200 * MS);
        assert_eq!(pace.count, 1 << 18);
        pace.fit(500 * MS, 480 * MS);
        assert_eq!(pace.count, 1 << 17);
        for _ in 0..20 {
            pace.fit(500 * MS, 100 * MS);
        }
        assert_eq!(pace.count, FIRST);
        // Cause: a flush that was long whatever was removed halved them down to the least, for good. Symptom: removals came
        // more quickly than they were done.
        for _ in 0..20 {
            pace.fit(500 * MS, 480 * MS);
        }
        assert_eq!(pace.count, FLUSHED);
        assert_eq!(Pace::new(7).count, 7);
    }

    #[test]
    fn beside_many_writes_half_of_the_time_is_theirs() {
        assert_eq!(rest(100 * MS, 0), 25 * MS);
        assert_eq!(rest(100 * MS, 400 << 10), 25 * MS);
        assert_eq!(rest(100 * MS, 500 << 10), 100 * MS);
        assert_eq!(rest(Duration::ZERO, 0), Duration::ZERO);
    }

    // Cause: the rest was at most 200 ms. Symptom: on a slow disk a compaction had five sixths of its time, and the log waited.
    #[test]
    fn a_long_flush_is_rested_after_as_long() {
        assert_eq!(rest(700 * MS, 0), 700 * MS);
        assert_eq!(rest(7000 * MS, 1 << 30), REST_MAX);
    }
}
