//! Runs a test under many schedules: all its threads and tasks are shuttle's, and a seed says who goes on at each point.
//!
//! ```text
//! check(kept seeds, test) ─► each kept seed once ─► so many new ones ─► test: spawn, spawn_task, worker (`ScheduledSpawn`)
//!                                                                          └► turns at `sync::Mutex`, `sync::point`, waits
//! ```
//! `RUSD_SCHEDULES` says how many, `RUSD_SCHEDULE_SEED` that it is this one alone. A schedule that fails prints its seed;
//! it is kept beside its test for ever. Whoever waits for what doesn't come fails as a deadlock: so a wake that is lost is found.
//! A test asserts when its threads have ended: a thread that panics while another one holds a lock ends all.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use shuttle::scheduler::RandomScheduler;
use shuttle::sync::mpsc::{SyncSender, sync_channel};
use shuttle::{Config, Runner};

pub(crate) use shuttle::future::{block_on, spawn as spawn_task};
pub(crate) use shuttle::thread::spawn;

use super::{Env, ManualClock, MemDisk, SeededRng, Step, Worker, WorkerHandle, WriterSpawn};

/// New schedules of each test.
const SCHEDULES: usize = 100;
/// Of each thread; untouched pages cost nothing.
const STACK_BYTES: usize = 1 << 20;

/// Whether this thread is one of a schedule's.
pub(crate) fn is_scheduled() -> bool {
    shuttle::current::try_get_current_task().is_some()
}

/// Lets others go first, if the schedule says so.
pub(crate) fn turn() {
    if is_scheduled() && !std::thread::panicking() {
        shuttle::thread::yield_now();
    }
}

/// Runs `test` under these seeds, which once failed, and under new ones.
///
/// # Panics
/// When the test does, or its threads wait for each other for ever.
pub(crate) fn check(kept: &[u64], test: impl Fn() + Send + Sync + 'static) {
    let test = Arc::new(test);
    let run = |seed, count| {
        let test = test.clone();
        let mut config = Config::new();
        config.stack_size = STACK_BYTES;
        Runner::new(RandomScheduler::new_from_seed(seed, count), config).run(move || test());
    };
    if let Some(seed) = told("RUSD_SCHEDULE_SEED") {
        return run(seed, 1);
    }
    kept.iter().for_each(|seed| run(*seed, 1));
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    println!("schedules from seed {seed}; the one that fails is told as RUSD_SCHEDULE_SEED");
    run(seed, told("RUSD_SCHEDULES").unwrap_or(SCHEDULES));
}

fn told<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// A machine in memory whose workers are threads of the schedule.
pub(crate) fn env() -> (Env, MemDisk) {
    let (disk, clock) = (MemDisk::new(), Arc::new(ManualClock::new()));
    let spawn = Arc::new(ScheduledSpawn(clock.clone()));
    (Env { disk: Arc::new(disk.clone()), clock, rng: Arc::new(SeededRng::new(1)), spawn }, disk)
}

/// Workers as threads of the schedule. Time passes where one of them waits for it.
#[derive(Debug)]
struct ScheduledSpawn(Arc<ManualClock>);

#[derive(Debug)]
struct ScheduledHandle {
    /// Room for one wake, as a thread has. Parked threads of shuttle also wake by themselves, which would hide one that is
    /// lost.
    wakes: SyncSender<()>,
    join: Mutex<Option<shuttle::thread::JoinHandle<()>>>,
}

impl WriterSpawn for ScheduledSpawn {
    fn spawn(&self, name: &str, mut worker: Box<dyn Worker>) -> io::Result<Arc<dyn WorkerHandle>> {
        let clock = self.0.clone();
        let (wakes, woken) = sync_channel(1);
        let run = move || {
            loop {
                match worker.step() {
                    Step::Wrote | Step::Worked => turn(),
                    Step::Idle => {
                        // Without anybody who could wake it, it is as a thread that is parked at the end.
                        if woken.recv().is_err() {
                            break;
                        }
                    }
                    Step::IdleFor(time) => {
                        turn();
                        clock.advance(time.max(Duration::from_millis(1)));
                    }
                    Step::Stopped => break,
                }
            }
        };
        let handle = shuttle::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Arc::new(ScheduledHandle { wakes, join: Mutex::new(Some(handle)) }))
    }
}

impl WorkerHandle for ScheduledHandle {
    fn wake(&self) {
        // If it was woken already, once is enough.
        let _ = self.wakes.try_send(());
    }

    fn join(&self) {
        let handle = self.join.lock().take();
        if let Some(handle) = handle {
            // A panic is the schedule's end already.
            let _ = handle.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::env::sync;

    /// A test of the tests: two that read and write without a lock lose an addition under some schedule.
    #[test]
    fn an_addition_that_is_not_one_step_is_found() {
        static LOST: AtomicU32 = AtomicU32::new(0);
        check(&[], || {
            let count = Arc::new(AtomicU32::new(0));
            let adds = [0; 2].map(|_| {
                let count = count.clone();
                spawn(move || {
                    let before = count.load(Ordering::SeqCst);
                    sync::point();
                    count.store(before + 1, Ordering::SeqCst);
                })
            });
            adds.into_iter().for_each(|add| add.join().unwrap());
            LOST.fetch_add(u32::from(count.load(Ordering::SeqCst) == 1), Ordering::SeqCst);
        });
        assert!(LOST.load(Ordering::SeqCst) > 0);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn a_wake_that_is_lost_is_found() {
        check(&[], || shuttle::thread::spawn(shuttle::thread::park).join().unwrap());
    }
}
