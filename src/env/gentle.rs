//! Long work beside requests: on a thread that gives way to all others, and never brought to a stand by them.
//!
//! ```text
//! steps ─► a thread of its own, at the lowest priority ─┬─► done
//!            ▲                                           └─ got less than its share for a while
//!            └─ the share is made up ◄─ here, a step and a pause in turn ◄─┘
//! ```
//! A server must not need a right to have its threads favoured, so none is raised: the helper lowers itself, which
//! everybody may, and ends with the work. What the lowest priority leaves it on a core that is full is a hundredth;
//! so steps go over to the caller's thread, which has its own priority, as long as they are behind.

use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use rustix::process::setpriority_process;
use rustix::thread::gettid;
use rustix::time::{ClockId, clock_gettime};

use super::Clock;

/// The lowest priority that a thread may have among those of its kind.
const LOWEST: i32 = 19;
/// Of the time that passes, one part in so many is what the work gets at least.
const SHARE: u32 = 5;
/// How much of its share may be missing before it is made up.
const SLACK: Duration = Duration::from_millis(100);
/// After a step on the caller's thread, so many times its processor time are left to others.
const PAUSE: u32 = 3;
/// A longer pause lets no more through; the disk, not the processor, made the step long.
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// Where work runs that the work spreads over rayon's pool, as sled does with a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// In the process's pool, whose thread has the usual priority; or there is no such work.
    Pool,
    /// On the helper. Some hundred bytes stay behind each time, so for long work only.
    Here,
}

/// Runs `step` again and again until it breaks, on a thread that gives way to all others; waits for it.
///
/// A step should take no more than some milliseconds of processor time. In the simulation all run at once.
pub fn gently<T: Send>(clock: &dyn Clock, spread: Spread, mut step: impl FnMut() -> ControlFlow<T> + Send) -> T {
    if cfg!(rusd_sim) {
        return at_once(step);
    }
    let mut account = Account::default();
    loop {
        let aside = thread::scope(|scope| {
            let run = || {
                lower();
                let _pool = (spread == Spread::Here).then(alone);
                account.run(clock, &mut step, Account::is_behind)
            };
            let helper = thread::Builder::new().name("gentle".to_owned()).spawn_scoped(scope, run);
            helper.map(|helper| helper.join().unwrap_or_else(|panic| resume_unwind(panic)))
        });
        if let Ok(Some(done)) = aside {
            return done;
        }
        // Behind, or there is no thread to be had.
        let alone = aside.is_err();
        let made_up = account.run(
            clock,
            &mut || {
                let before = cpu_time();
                let flow = step();
                if flow.is_continue() {
                    let pause = cpu_time().saturating_sub(before).saturating_mul(PAUSE).min(PAUSE_MAX);
                    #[expect(clippy::disallowed_methods, reason = "this thread may block, and has nothing else to do")]
                    thread::sleep(pause);
                }
                flow
            },
            |account| !alone && !account.is_behind(),
        );
        if let Some(done) = made_up {
            return done;
        }
    }
}

/// Runs `work` as one step of [`gently`]: for what can't be cut up.
pub fn gently_once<T: Send>(clock: &dyn Clock, spread: Spread, work: impl FnOnce() -> T + Send) -> T {
    let mut work = Some(work);
    gently(clock, spread, move || match work.take() {
        Some(work) => ControlFlow::Break(work()),
        None => ControlFlow::Continue(()),
    })
}

fn at_once<T>(mut step: impl FnMut() -> ControlFlow<T>) -> T {
    loop {
        if let ControlFlow::Break(done) = step() {
            return done;
        }
    }
}

/// What the work got of the time that passed since it last had its share.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    passed: Duration,
    got: Duration,
}

impl Account {
    /// Runs steps until one breaks, or `enough`.
    fn run<T>(
        &mut self,
        clock: &dyn Clock,
        step: &mut impl FnMut() -> ControlFlow<T>,
        enough: impl Fn(&Self) -> bool,
    ) -> Option<T> {
        loop {
            let (begun, before) = (clock.now(), cpu_time());
            if let ControlFlow::Break(done) = step() {
                return Some(done);
            }
            self.passed += clock.now().saturating_duration_since(begun);
            self.got += cpu_time().saturating_sub(before);
            if self.got > self.passed / SHARE {
                // What it had beyond its share is no reason to let it wait later.
                *self = Self::default();
            }
            if enough(self) {
                return None;
            }
        }
    }

    fn is_behind(&self) -> bool {
        self.got + SLACK < self.passed / SHARE
    }
}

/// Gives this thread the lowest priority. Where the kernel refuses, it runs as others do.
fn lower() {
    if cfg!(target_os = "linux") {
        let _ = setpriority_process(Some(gettid()), LOWEST);
    }
}

/// Makes this thread a pool of its own.
fn alone() -> Option<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build().ok()
}

/// Processor time of this thread so far.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::env::{ManualClock, SystemClock};

    fn nice() -> i32 {
        rustix::process::getpriority_process(Some(gettid())).unwrap()
    }

    #[test]
    fn work_runs_at_the_lowest_priority_and_the_caller_keeps_its_own() {
        let before = nice();
        let mut seen = Vec::new();
        let steps = gently(&SystemClock, Spread::Here, || {
            seen.push(nice());
            if seen.len() == 3 { ControlFlow::Break(seen.len()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!((steps, nice()), (3, before));
        assert_eq!(seen, [LOWEST; 3]);
        assert_eq!(gently_once(&SystemClock, Spread::Pool, nice), LOWEST);
    }

    /// Cause: the lowest priority gets a hundredth of a core that is full. Symptom: a member that never catches up.
    #[test]
    fn work_that_gets_too_little_goes_on_at_the_callers_priority_until_that_is_made_up() {
        let (clock, caller) = (Arc::new(ManualClock::new()), thread::current().id());
        let mut here = Vec::new();
        gently(&*clock, Spread::Pool, || {
            // A second of waiting for the processor, twice; steps here are on time.
            let is_here = thread::current().id() == caller;
            here.push(is_here);
            if !is_here && here.len() < 4 {
                clock.advance(Duration::from_secs(1));
            }
            // What is owed is some hundred milliseconds of processor time.
            let until = cpu_time() + Duration::from_millis(if is_here { 60 } else { 0 });
            while cpu_time() < until {}
            if here.len() == 12 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(here[..3], [false, true, true], "after one step that had to wait");
        assert!(here[3..].contains(&false), "and back once the share is made up: {here:?}");
    }

    #[test]
    fn a_panic_comes_through() {
        let caught = std::panic::catch_unwind(|| gently_once(&SystemClock, Spread::Pool, || panic!("as it was")));
        assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"as it was"));
    }
}
