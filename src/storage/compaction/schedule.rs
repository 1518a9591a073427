//! When an automatic compaction is due and at which revision: etcd's timing as a pure machine.

use std::collections::VecDeque;
use std::time::Duration;

/// The longest time between two compactions of the periodic mode.
const PERIODIC_INTERVAL_MAX: Duration = Duration::from_secs(3600);
/// Samples of the revision between two compactions of the periodic mode.
const PERIODIC_SAMPLES: u32 = 10;
/// The revision mode looks this often.
const REVISION_INTERVAL: Duration = Duration::from_secs(300);

/// `--auto-compaction-mode` with `--auto-compaction-retention`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Never.
    Off,
    /// Keep what is younger than this.
    Periodic(Duration),
    /// Keep this many revisions.
    Revision(i64),
}

/// Decides from time and revision alone; asked once at the start and then every [`Schedule::interval`].
#[derive(Debug)]
pub struct Schedule {
    mode: Mode,
    /// The target of the last compaction that was done.
    last: i64,
}

#[derive(Debug)]
enum Mode {
    Periodic {
        retention: Duration,
        /// Revisions as they were at each question, oldest first: the first is `retention` and an interval ago.
        samples: VecDeque<i64>,
        /// When the last compaction was done, or the first question was asked.
        since: Option<Duration>,
        /// The first compaction waits for the whole retention.
        wait: Duration,
    },
    Revision(i64),
}

impl Schedule {
    /// `None` if there is nothing to do ever.
    pub fn new(mode: AutoCompaction) -> Option<Self> {
        let mode = match mode {
            AutoCompaction::Periodic(retention) if !retention.is_zero() => {
                Mode::Periodic { retention, samples: VecDeque::new(), since: None, wait: retention }
            }
            AutoCompaction::Revision(keep) if keep > 0 => Mode::Revision(keep),
            _ => return None,
        };
        Some(Self { mode, last: 0 })
    }

    /// The time between two questions.
    pub fn interval(&self) -> Duration {
        match &self.mode {
            Mode::Periodic { retention, .. } => sample_interval(*retention),
            Mode::Revision(_) => REVISION_INTERVAL,
        }
    }

    /// The revision to compact at, at time `now` since any fixed moment, if it is time.
    ///
    /// A member that doesn't lead keeps sampling, so that it can go on at once when it comes to lead.
    pub fn due(&mut self, now: Duration, revision: i64, leading: bool) -> Option<i64> {
        let target = match &mut self.mode {
            Mode::Revision(keep) => Some(revision.saturating_sub(*keep)),
            Mode::Periodic { retention, samples, since, wait } => {
                let since = *since.get_or_insert(now);
                let target = samples.front().copied().filter(|_| leading && now.saturating_sub(since) >= *wait);
                if target.is_some_and(|target| target != self.last) {
                    *wait = (*retention).min(PERIODIC_INTERVAL_MAX);
                }
                if samples.len() > kept_samples(*retention) {
                    samples.pop_front();
                }
                samples.push_back(revision);
                target
            }
        };
        target.filter(|target| leading && *target > 0 && *target != self.last)
    }

    /// The compaction at `target` was done (or had been before). A failed one isn't reported: it is
    /// due again at the next question.
    pub fn done(&mut self, now: Duration, target: i64) {
        self.last = target;
        if let Mode::Periodic { since, .. } = &mut self.mode {
            *since = Some(now);
        }
    }
}

fn sample_interval(retention: Duration) -> Duration {
    retention.min(PERIODIC_INTERVAL_MAX) / PERIODIC_SAMPLES
}

/// How many samples lie within the retention, before the newest one is added.
fn kept_samples(retention: Duration) -> usize {
    let interval = sample_interval(retention).as_nanos().max(1);
    usize::try_from(retention.as_nanos() / interval).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks for as many intervals as given; the revision is the interval's number times 10 plus 1.
    fn run(schedule: &mut Schedule, intervals: u32) -> Vec<(u64, i64)> {
        let mut compacted = Vec::new();
        for n in 0..=intervals {
            let now = schedule.interval() * n;
            if let Some(target) = schedule.due(now, i64::from(n) * 10 + 1, true) {
                schedule.done(now, target);
                compacted.push((now.as_secs(), target));
            }
        }
        compacted
    }

    #[test]
    fn a_short_period_compacts_once_a_period_at_the_revision_of_then() {
        let mut schedule = Schedule::new(AutoCompaction::Periodic(Duration::from_secs(600))).unwrap();
        assert_eq!(schedule.interval(), Duration::from_secs(60));
        assert_eq!(run(&mut schedule, 35), [(600, 1), (1200, 91), (1800, 191)]);
    }

    #[test]
    fn a_long_period_waits_for_itself_and_then_compacts_hourly() {
        let hours = |n: u64| Duration::from_secs(3600 * n);
        let mut schedule = Schedule::new(AutoCompaction::Periodic(hours(5))).unwrap();
        assert_eq!(schedule.interval(), Duration::from_secs(360));
        assert_eq!(run(&mut schedule, 75), [(5 * 3600, 1), (6 * 3600, 91), (7 * 3600, 191)]);
    }

    #[test]
    fn an_unchanged_revision_isnt_compacted_again() {
        let mut schedule = Schedule::new(AutoCompaction::Periodic(Duration::from_secs(600))).unwrap();
        let mut targets = Vec::new();
        for n in 0..100_u32 {
            let now = schedule.interval() * n;
            if let Some(target) = schedule.due(now, 7, true) {
                schedule.done(now, target);
                targets.push(target);
            }
        }
        assert_eq!(targets, [7]);
    }

    #[test]
    fn a_failed_one_is_due_again_after_a_sample() {
        let mut schedule = Schedule::new(AutoCompaction::Periodic(Duration::from_secs(600))).unwrap();
        let due: Vec<_> =
            (0..13).filter(|n| schedule.due(schedule.interval() * *n, i64::from(*n) + 1, true).is_some()).collect();
        assert_eq!(due, [10, 11, 12]);
    }

    #[test]
    fn a_follower_samples_and_stays_quiet() {
        let mut schedule = Schedule::new(AutoCompaction::Periodic(Duration::from_secs(600))).unwrap();
        for n in 0..20_u32 {
            assert_eq!(schedule.due(schedule.interval() * n, i64::from(n) + 1, false), None);
        }
        assert_eq!(schedule.due(schedule.interval() * 20, 21, true), Some(10));
    }

    #[test]
    fn by_revision_it_keeps_the_last_ones() {
        let mut schedule = Schedule::new(AutoCompaction::Revision(100)).unwrap();
        let (five, mut now) = (Duration::from_secs(300), Duration::ZERO);
        assert_eq!(schedule.interval(), five);
        for (revision, want) in [(100, None), (101, Some(1)), (101, None), (500, Some(400))] {
            now += five;
            let due = schedule.due(now, revision, true);
            assert_eq!(due, want, "at {revision}");
            if let Some(target) = due {
                schedule.done(now, target);
            }
        }
        assert_eq!(schedule.due(now, 900, false), None);
    }

    #[test]
    fn nothing_is_ever_due_when_it_is_off() {
        for off in [AutoCompaction::Off, AutoCompaction::Periodic(Duration::ZERO), AutoCompaction::Revision(0)] {
            assert!(Schedule::new(off).is_none());
        }
    }
}
