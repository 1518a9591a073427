//! `Reclaimer`: drives the removal of compacted versions in steps with pauses.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::storage::{CompactStep, StoreReader};

/// How gently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReclaimOptions {
    /// `--compaction-batch-limit`: keys that one step looks at.
    pub batch_limit: usize,
    /// `--compaction-sleep-interval`: the longest pause between two steps. It is as long as the step
    /// before took, waiting for its turn included: half of the time, or more, is the requests'.
    pub sleep_interval: Duration,
}

impl Default for ReclaimOptions {
    fn default() -> Self {
        Self { batch_limit: 1000, sleep_interval: Duration::from_millis(10) }
    }
}

/// The worker that makes a compaction physical.
#[derive(Debug)]
pub struct Reclaimer {
    reader: StoreReader,
    options: ReclaimOptions,
}

impl Reclaimer {
    /// For the store that `reader` reads.
    pub fn new(reader: StoreReader, options: ReclaimOptions) -> Self {
        Self { reader, options }
    }

    /// Runs on the current tokio runtime until `step` gives `None` or the handle is aborted.
    ///
    /// `step` has the store's owner call `Store::compact_step` with the number it gets, between two
    /// commands; `None` means that the owner is gone or the disk has failed.
    pub fn run<S>(self, mut step: impl FnMut(usize) -> S + Send + 'static) -> JoinHandle<()>
    where
        S: Future<Output = Option<CompactStep>> + Send,
    {
        tokio::spawn(async move {
            let (mut compacted, mut reclaimed) = (self.reader.compacted(), self.reader.reclaimed());
            loop {
                let target = *compacted.borrow_and_update();
                let mut removed = 0;
                while *reclaimed.borrow() < target {
                    let begun = Instant::now();
                    let Some(done) = step(self.options.batch_limit).await else { return };
                    let pause = if done.removed > 0 { begun.elapsed() } else { self.options.sleep_interval };
                    removed += done.removed;
                    if done.done {
                        // All is handed over; the store thread says when it is gone. A snapshot that is
                        // installed meanwhile begins anew, and says so by its compact revision.
                        let mut newer = compacted.clone();
                        tokio::select! {
                            _ = reclaimed.wait_for(|reached| *reached >= target) => {}
                            _ = newer.changed() => {}
                        }
                    }
                    tokio::time::sleep(pause.min(self.options.sleep_interval)).await;
                }
                if target > 0 {
                    tracing::info!(revision = target, removed, "finished scheduled compaction");
                }
                if compacted.changed().await.is_err() {
                    return;
                }
            }
        })
    }
}
