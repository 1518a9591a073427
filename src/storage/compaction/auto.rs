//! `AutoCompactor`: asks the schedule and proposes what it says.

use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{AutoCompaction, Schedule};
use crate::storage::StoreReader;
use crate::types::RequestError;

/// The worker behind `--auto-compaction-mode`. It runs on every member and acts on the leader.
#[derive(Debug)]
pub struct AutoCompactor {
    schedule: Schedule,
    reader: StoreReader,
}

impl AutoCompactor {
    /// `None` if `mode` is off.
    pub fn new(mode: AutoCompaction, reader: StoreReader) -> Option<Self> {
        Some(Self { schedule: Schedule::new(mode)?, reader })
    }

    /// Runs on the current tokio runtime until the handle is aborted.
    ///
    /// `leading` says whether this member leads; `propose` brings a compaction through the log.
    pub fn run<P>(
        mut self,
        leading: impl Fn() -> bool + Send + 'static,
        mut propose: impl FnMut(i64) -> P + Send + 'static,
    ) -> JoinHandle<()>
    where
        P: Future<Output = Result<(), RequestError>> + Send,
    {
        tokio::spawn(async move {
            let start = Instant::now();
            let mut ticks = interval(self.schedule.interval());
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let Some(target) = self.schedule.due(start.elapsed(), self.reader.revision(), leading()) else {
                    continue;
                };
                match propose(target).await {
                    // Someone else has compacted as far already.
                    Ok(()) | Err(RequestError::Compacted) => {
                        self.schedule.done(start.elapsed(), target);
                        tracing::info!(revision = target, "finished auto-compaction");
                    }
                    Err(error) => tracing::warn!(revision = target, %error, "failed auto-compaction"),
                }
            }
        })
    }
}
