//! The store thread: takes what came in, commits it in steps, publishes what is durable.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::ValuesConfig;
use super::core::{Core, Stepped};
use super::pace::{self, Pace};
use super::queue::Work;
use super::shared::{Health, Shared};
use crate::env::{Env, Step, Worker};
use crate::types::StorageError;

/// How long after a failure the work is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// Where a flush comes this long after the last one, the next waits for a part of the bytes only: they and what a flush
/// makes of them are a good part of the memory of a server to which little is written, and few flushes cost little.
const CALM: Duration = Duration::from_secs(4);
const CALM_PART: u64 = 4;
/// The longest time between the steps that removals wait for: a compaction is to come to an end soon.
const REMOVE_WAIT: Duration = Duration::from_millis(200);
/// Failures of an engine (a full disk doesn't count) in a row after which it is given up.
const FAILURES_MAX: u32 = 5;

#[derive(Debug)]
pub(super) struct StoreWorker {
    shared: Arc<Shared>,
    env: Env,
    flush_interval: Duration,
    /// Pending bytes from which a flush is begun at once where they come quickly.
    flush_bytes: u64,
    flushed: Option<Instant>,
    pace: Pace,
    /// When the work that waits is to be taken, or the failed work tried again.
    due: Option<Instant>,
    failing: bool,
    failures: u32,
    /// What the matter was last.
    why: String,
}

impl StoreWorker {
    pub(super) fn new(env: Env, shared: Arc<Shared>, config: &ValuesConfig) -> Self {
        Self {
            flush_bytes: shared.flush_at.load(Ordering::Relaxed),
            shared,
            env,
            flush_interval: config.flush_interval,
            flushed: None,
            pace: Pace::new(config.remove_step),
            due: None,
            failing: false,
            failures: 0,
            why: String::new(),
        }
    }
}

impl Worker for StoreWorker {
    fn step(&mut self) -> Step {
        let shared = Arc::clone(&self.shared);
        let (waiting, urgent) = shared.queue.look();
        let mut core = shared.core.lock();
        if shared.failed().is_some() {
            // A reader met damage.
            return give_up(&shared, &mut core);
        }
        // A read failed: the engine refuses everything until it is opened again.
        core.reopen |= shared.suspect.swap(false, Ordering::AcqRel);
        if !waiting && core.is_idle() {
            return Step::Idle;
        }
        let now = self.env.clock.now();
        let wait = if core.has_removals() { self.remove_wait() } else { self.flush_interval };
        let due = *self.due.get_or_insert(now + wait);
        let is_pressed = !core.is_put_off() && (urgent || core.is_behind());
        let hurry = !self.failing && (is_pressed || core.work.last || core.reopen);
        if now < due && !hurry {
            return Step::IdleFor(due - now);
        }
        self.due = None;
        core.work.merge(shared.queue.take());
        let recycling = shared.engine().recycled().1;
        let mut result = core.step(&shared, self.pace.count);
        let ending = core.work.last && !core.is_behind();
        if result.is_ok() && ending {
            // One more for removals that only now are due; what is left after it is asked for again
            // at the next start.
            result = core.step(&shared, self.pace.count);
        }
        match result {
            Ok(Stepped::Resting) => {
                core.refuse_freezes(&shared.dir);
                self.wait_by(&self.why);
                self.failing = true;
                self.due = Some(now + RETRY_INTERVAL);
                Step::IdleFor(RETRY_INTERVAL)
            }
            Ok(Stepped::Done) => {
                (self.failing, self.failures) = (false, 0);
                if core.is_put_off() {
                    self.wait_for("there is no room on the disk for what waits to be written".to_owned());
                }
                if !ending {
                    let done = self.env.clock.now();
                    let since = self.flushed.replace(done).map(|before| now.saturating_duration_since(before));
                    shared.flush_at.store(flush_at(self.flush_bytes, since), Ordering::Relaxed);
                    if core.is_removing() {
                        // A snapshot holds removals off.
                        let is_held = shared.holds.load(Ordering::SeqCst) > 0;
                        let took = done - now;
                        let rest = if is_held { self.remove_wait() } else { pace::rest(took, shared.pending.bytes()) };
                        self.due = Some(done + rest);
                        if !is_held {
                            let recycled = shared.engine().recycled().1.saturating_sub(recycling);
                            self.pace.fit(took.saturating_sub(recycled), core.content.flush_took);
                        }
                    } else if core.is_put_off() {
                        self.due = Some(done + RETRY_INTERVAL);
                    }
                    return Step::Worked;
                }
                shared.set_over();
                if let Err(error) = shared.engine().close() {
                    tracing::warn!(%error, "closing the storage engine failed");
                }
                give_up(&shared, &mut core)
            }
            Err(error) => {
                let stop = core.work.last || !self.may_pass(&error);
                if !stop {
                    if matches!(error, StorageError::Full { .. }) {
                        core.refuse_freezes(&shared.dir);
                    } else {
                        core.reopen = true;
                    }
                    self.failing = true;
                    self.due = Some(now + RETRY_INTERVAL);
                    return Step::IdleFor(RETRY_INTERVAL);
                }
                tracing::error!(%error, "the storage engine is given up; nothing more becomes durable");
                if matches!(error, StorageError::Damaged { .. }) {
                    shared.condemn(&error);
                } else {
                    shared.is_stuck.store(core.is_stuck(&error), Ordering::Release);
                    shared.fail(error.to_string());
                }
                give_up(&shared, &mut core)
            }
        }
    }

    fn abandon(&mut self, why: &str) {
        let why = format!("the store thread panicked: {why}");
        tracing::error!(why, "the storage engine is given up; nothing more becomes durable");
        self.shared.fail(why);
        give_up(&self.shared, &mut self.shared.core.lock());
    }
}

/// The pending bytes from which the next flush is begun, when one was begun so long after the one before.
fn flush_at(bytes: u64, since: Option<Duration>) -> u64 {
    if since.is_none_or(|since| since >= CALM) { (bytes / CALM_PART).max(1) } else { bytes }
}

/// Lets go of all work: whoever waits for a flush sees its sender go.
fn give_up(shared: &Shared, core: &mut Core) -> Step {
    // First, so that whoever adds from now on sees it.
    shared.set_over();
    core.work = Work::default();
    drop(shared.queue.take());
    shared.queue.signal_room();
    Step::Stopped
}

impl StoreWorker {
    fn remove_wait(&self) -> Duration {
        self.flush_interval.min(REMOVE_WAIT)
    }

    /// Whether a failure may go away; says so to whoever watches.
    fn may_pass(&mut self, error: &StorageError) -> bool {
        match error {
            // A mismatch is one between the work and itself; trying again changes nothing.
            StorageError::Damaged { .. } | StorageError::Mismatch(_) => return false,
            StorageError::Full { .. } => {}
            _ => self.failures += 1,
        }
        if self.failures > FAILURES_MAX {
            return false;
        }
        self.wait_for(error.to_string())
    }

    /// Waits for a reason, and says so to whoever watches; false if it is over.
    fn wait_for(&mut self, why: String) -> bool {
        let (is_first, is_failed) = self.wait_by(&why);
        if is_first {
            tracing::warn!(error = why, "the storage engine can't take writes; they wait in memory and in the log");
        }
        self.why = why;
        !is_failed
    }

    /// Says that it waits; whether it didn't before, and whether it is over.
    fn wait_by(&self, why: &str) -> (bool, bool) {
        let (mut is_first, mut is_failed) = (false, false);
        self.shared.health.send_if_modified(|health| {
            is_first = *health == Health::Good;
            is_failed = matches!(health, Health::Failed(_));
            if !is_failed {
                *health = Health::Waiting(why.to_owned());
            }
            !is_failed
        });
        (is_first, is_failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flushes_that_are_far_apart_begin_earlier() {
        assert_eq!([None, Some(CALM)].map(|since| flush_at(400, since)), [100, 100]);
        assert_eq!([Duration::ZERO, CALM / 2].map(|since| flush_at(400, Some(since))), [400, 400]);
        assert_eq!(flush_at(1, None), 1);
    }
}
