//! Where blocking workers run: on a thread of their own, or by hand in a test.
//!
//! A worker is a state machine: `step` does a bounded piece of work and says what it did, so that a
//! simulation can sleep, or cut the power, between a write and its sync.

use std::any::Any;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

/// Runs what may wait for a disk. On a thread that runs tasks, its other tasks go on elsewhere
/// meanwhile, which costs a switch of threads: for work that takes milliseconds.
pub fn may_block<T>(work: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(work)
        }
        _ => work(),
    }
}

/// Runs `work` on a thread that may wait for the disk, and waits for it. In the simulation it runs at
/// once: its disk is memory, and threads would make two runs of a seed differ.
///
/// # Errors
/// It panicked, or the runtime ended first.
pub async fn unblock<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    if cfg!(rusd_sim) {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Bytes were handed to the file system and are not yet synced.
    Wrote,
    /// Something was finished; there may be more to do.
    Worked,
    /// Nothing to do until woken.
    Idle,
    /// Nothing to do until woken or until this long has passed.
    IdleFor(Duration),
    /// The worker is done and must not be stepped again.
    Stopped,
}

/// Blocking work, cut into steps.
pub trait Worker: Send {
    /// Does one bounded piece of work.
    fn step(&mut self) -> Step;

    /// A step panicked, so there will be no other: tells those who rely on this worker, with the
    /// panic's text. What the step left half done must not be touched.
    fn abandon(&mut self, _why: &str) {}
}

/// A running worker.
pub trait WorkerHandle: fmt::Debug + Send + Sync {
    /// Steps it again soon. Never blocks; a wake during a step is not lost.
    fn wake(&self);
    /// Waits until the worker has returned [`Step::Stopped`]; at once if called by the worker itself
    /// or where nothing runs in the background.
    fn join(&self);
}

/// Starts workers.
pub trait WriterSpawn: fmt::Debug + Send + Sync {
    /// Starts `worker` under a name of at most 15 bytes.
    ///
    /// # Errors
    /// When the system has no thread left.
    fn spawn(&self, name: &str, worker: Box<dyn Worker>) -> io::Result<Arc<dyn WorkerHandle>>;
}

/// One operating system thread for each worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadSpawn;

#[derive(Debug)]
struct ThreadHandle {
    thread: thread::Thread,
    join: Mutex<Option<thread::JoinHandle<()>>>,
}

impl WriterSpawn for ThreadSpawn {
    fn spawn(&self, name: &str, mut worker: Box<dyn Worker>) -> io::Result<Arc<dyn WorkerHandle>> {
        let run = move || {
            loop {
                match catch_unwind(AssertUnwindSafe(|| worker.step())) {
                    Ok(Step::Wrote | Step::Worked) => {}
                    Ok(Step::Idle) => thread::park(),
                    Ok(Step::IdleFor(time)) => thread::park_timeout(time),
                    Ok(Step::Stopped) => break,
                    Err(panic) => {
                        worker.abandon(text(&*panic));
                        break;
                    }
                }
            }
        };
        #[expect(clippy::disallowed_methods, reason = "this is the one door to threads")]
        let handle = thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Arc::new(ThreadHandle { thread: handle.thread().clone(), join: Mutex::new(Some(handle)) }))
    }
}

impl WorkerHandle for ThreadHandle {
    fn wake(&self) {
        self.thread.unpark();
    }

    fn join(&self) {
        if thread::current().id() == self.thread.id() {
            return;
        }
        let handle = self.join.lock().take();
        if let Some(handle) = handle {
            // A panic in a step was told to the worker.
            let _ = handle.join();
        }
    }
}

/// What a panic says.
fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

type Slot = Arc<Mutex<Option<Box<dyn Worker>>>>;

/// Keeps workers until a test steps them; `wake` and `join` do nothing.
#[derive(Clone, Default)]
pub struct ManualSpawn {
    workers: Arc<Mutex<Vec<(String, Slot)>>>,
}

#[derive(Debug)]
struct ManualHandle;

impl ManualSpawn {
    /// One step of the worker of this name that was started last; `None` if there is none left.
    pub fn step(&self, name: &str) -> Option<Step> {
        let slot = self.workers.lock().iter().rev().find(|(known, _)| known == name).map(|(_, slot)| slot.clone())?;
        let mut slot = slot.lock();
        let step = slot.as_mut()?.step();
        if step == Step::Stopped {
            *slot = None;
        }
        Some(step)
    }

    /// Steps that worker until it has nothing to do.
    pub fn run(&self, name: &str) {
        while matches!(self.step(name), Some(Step::Wrote | Step::Worked)) {}
    }

    /// Forgets every worker, as a crash does.
    pub fn clear(&self) {
        self.workers.lock().clear();
    }
}

impl fmt::Debug for ManualSpawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualSpawn").field("workers", &self.workers.lock().len()).finish()
    }
}

impl WriterSpawn for ManualSpawn {
    fn spawn(&self, name: &str, worker: Box<dyn Worker>) -> io::Result<Arc<dyn WorkerHandle>> {
        self.workers.lock().push((name.to_owned(), Arc::new(Mutex::new(Some(worker)))));
        Ok(Arc::new(ManualHandle))
    }
}

impl WorkerHandle for ManualHandle {
    fn wake(&self) {}

    fn join(&self) {}
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    struct Countdown(u32, Arc<AtomicU32>);

    impl Worker for Countdown {
        fn step(&mut self) -> Step {
            if self.0 == 0 {
                return Step::Stopped;
            }
            self.0 -= 1;
            self.1.fetch_add(1, Ordering::Relaxed);
            if self.0.is_multiple_of(2) { Step::Worked } else { Step::IdleFor(Duration::from_millis(1)) }
        }
    }

    #[test]
    fn a_thread_runs_its_worker_to_the_end() {
        let steps = Arc::new(AtomicU32::new(0));
        let handle = ThreadSpawn.spawn("countdown", Box::new(Countdown(5, steps.clone()))).unwrap();
        handle.wake();
        handle.join();
        assert_eq!(steps.load(Ordering::Relaxed), 5);
    }

    struct Panics(Arc<Mutex<Vec<String>>>);

    impl Worker for Panics {
        fn step(&mut self) -> Step {
            assert!(self.0.lock().is_empty(), "no step after a panic");
            panic!("step {}", 1);
        }

        fn abandon(&mut self, why: &str) {
            self.0.lock().push(why.to_owned());
        }
    }

    /// A panic ended its thread without a word: writers then waited for a log thread that was gone.
    #[test]
    fn a_panic_is_told_to_the_worker_and_ends_its_thread() {
        let told = Arc::new(Mutex::new(Vec::new()));
        ThreadSpawn.spawn("panics", Box::new(Panics(told.clone()))).unwrap().join();
        assert_eq!(*told.lock(), ["step 1"]);
    }

    #[test]
    fn a_manual_worker_moves_only_when_stepped() {
        let steps = Arc::new(AtomicU32::new(0));
        let spawn = ManualSpawn::default();
        spawn.spawn("countdown", Box::new(Countdown(1, steps.clone()))).unwrap();
        assert_eq!(steps.load(Ordering::Relaxed), 0);
        assert_eq!(spawn.step("countdown"), Some(Step::Worked));
        assert_eq!(spawn.step("countdown"), Some(Step::Stopped));
        assert_eq!(spawn.step("countdown"), None);
    }
}
