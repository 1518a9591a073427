//! Compacts now and then, up to a revision that at least one watcher has seen.
//!
//! ```text
//! watchers (`Follower`) ─► the furthest of them ─► so much more than the last time ─► Compact at anybody ─► Compaction
//! ```
//! So each event is seen by somebody, and whoever is behind must find out that it missed some.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rusd_proto::etcdserverpb::CompactionRequest;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use tokio::task::JoinHandle;
use tonic::Status;

use super::ops::told;
use crate::cluster::Doors;
use crate::follower::Seen;

/// Revisions between two.
const EVERY: i64 = 120;
/// How long an answer is waited for: whoever is asked needn't be there, and one that waits for its files takes a while.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// One that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Compaction {
    pub(crate) revision: i64,
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    /// What was said, if it failed: nobody knows then whether it was done.
    pub(crate) error: Option<String>,
}

/// Who asks.
pub(crate) struct Compactor {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<Compaction>>,
}

impl Compactor {
    /// Starts it beside these watchers.
    pub(crate) fn start(doors: Doors, watchers: Vec<Seen>, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(run(doors, watchers, StdRng::seed_from_u64(seed), stop.clone()));
        Self { stop, task }
    }

    /// Ends it and gives all that it asked for.
    pub(crate) async fn finish(self) -> Vec<Compaction> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

async fn run(doors: Doors, watchers: Vec<Seen>, mut rng: StdRng, stop: Arc<AtomicBool>) -> Vec<Compaction> {
    let mut all: Vec<Compaction> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let seen = watchers.iter().map(Seen::last).max().unwrap_or_default();
        let last = all.last().map_or(0, |compaction| compaction.revision);
        if seen < last + EVERY {
            continue;
        }
        // Some leave nothing but what there is now.
        let kept = if rng.random() { 0 } else { rng.random_range(1..EVERY / 2) };
        let (revision, physical) = (seen - kept, rng.random());
        let channel = {
            let doors = doors.lock().unwrap();
            doors[rng.random_range(0..doors.len())].1.clone()
        };
        let begun = Instant::now();
        let mut kv = KvClient::new(channel);
        let asked = kv.compact(CompactionRequest { revision, physical });
        let answer = tokio::time::timeout(ANSWER_MAX, asked).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("not waited for")));
        let error = answer.err().map(|status| told(&status));
        all.push(Compaction { revision, begun, ended: Instant::now(), error });
    }
    all
}
