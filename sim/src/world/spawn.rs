//! Workers as tasks: between a write and its sync the task sleeps for as long as the disk takes, so that a
//! crash, a vote or a heartbeat can fall into the gap.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use rusd::env::{Step, Worker, WorkerHandle, WriterSpawn};
use tokio::sync::Notify;

use super::disk::SimDisk;

type Slot = Arc<Mutex<Box<dyn Worker>>>;

/// Starts workers of one boot.
#[derive(Clone)]
pub(crate) struct SimSpawn {
    disk: SimDisk,
    workers: Arc<Mutex<BTreeMap<String, Slot>>>,
}

#[derive(Debug)]
struct SimHandle(Arc<Notify>);

impl SimSpawn {
    pub(crate) fn new(disk: SimDisk) -> Self {
        Self { disk, workers: Arc::default() }
    }

    /// Steps a worker until `wanted` is there, for callers that would block on it; `None` if it doesn't come.
    pub(crate) fn run_for<T>(&self, worker: &str, wanted: impl Future<Output = T>) -> Option<T> {
        let slot = self.workers.lock().get(worker).cloned()?;
        let mut wanted = pin!(wanted);
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..10_000 {
            if let Poll::Ready(value) = wanted.as_mut().poll(&mut context) {
                return Some(value);
            }
            slot.lock().step();
        }
        None
    }
}

impl fmt::Debug for SimSpawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimSpawn").finish_non_exhaustive()
    }
}

impl WriterSpawn for SimSpawn {
    fn spawn(&self, name: &str, worker: Box<dyn Worker>) -> io::Result<Arc<dyn WorkerHandle>> {
        let slot: Slot = Arc::new(Mutex::new(worker));
        self.workers.lock().insert(name.to_owned(), slot.clone());
        let wake = Arc::new(Notify::new());
        let (woken, disk) = (wake.clone(), self.disk.clone());
        tokio::spawn(async move {
            loop {
                let step = catch_unwind(AssertUnwindSafe(|| slot.lock().step()));
                match step {
                    Ok(Step::Wrote) => tokio::time::sleep(disk.gap()).await,
                    Ok(Step::Worked) => tokio::task::yield_now().await,
                    Ok(Step::Idle) => woken.notified().await,
                    // At least a little: a clock that runs ahead must not make this a loop without time.
                    Ok(Step::IdleFor(time)) => {
                        let time = time.max(Duration::from_millis(1));
                        // Woken or not, it is stepped again.
                        let _ = tokio::time::timeout(time, woken.notified()).await;
                    }
                    Ok(Step::Stopped) => return,
                    Err(_) => {
                        slot.lock().abandon("a step panicked");
                        return;
                    }
                }
            }
        });
        Ok(Arc::new(SimHandle(wake)))
    }
}

impl WorkerHandle for SimHandle {
    fn wake(&self) {
        self.0.notify_one();
    }

    /// A member of the simulation never ends in order, so nobody waits here.
    fn join(&self) {}
}
