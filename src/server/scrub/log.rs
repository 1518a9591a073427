//! The finished part of the Raft log.
//!
//! ```text
//! finished segment ─► every byte checked ─► whole: the next, after a pause
//!                                        └► damaged: said, counted ─► upkeep: a snapshot, and the log purged
//!                                                                     beyond it ─► the file goes
//! ```
//! A start would refuse a damaged log. A member that still runs needs it no longer: what was in it is
//! applied, so a snapshot takes its place.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::Care;
use crate::wal::{Scrubbed, Wal};

/// Between two segments: 64 MiB a minute are read at most.
const PAUSE: Duration = Duration::from_secs(60);
/// Between two passes over the log. A start has just read all of it.
const PASS: Duration = Duration::from_secs(600);

impl Care {
    /// Takes a result; where to go on.
    fn note(&self, found: Option<Scrubbed>) -> u64 {
        let Some(Scrubbed { segment, last, result }) = found else { return 0 };
        match result {
            Ok(bytes) => {
                self.checked_bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            Err(error) => {
                self.damaged.fetch_add(1, Ordering::Relaxed);
                self.damaged_until.fetch_max(last.get(), Ordering::Relaxed);
                tracing::error!(
                    %error, last = last.get(),
                    "a finished part of the raft log has changed on disk; nothing is lost, since it is applied: a \
                     snapshot is taken and the log purged up to there. Check the disk"
                );
            }
        }
        segment
    }
}

/// Checks the log's finished segments one after the other.
pub(in crate::server) struct Scrub {
    pub(in crate::server) wal: Arc<Wal>,
    pub(in crate::server) care: Arc<Care>,
}

impl Scrub {
    /// Runs until the task is aborted.
    pub(in crate::server) fn spawn(self) -> JoinHandle<()> {
        tokio::spawn(self.run())
    }

    async fn run(self) {
        let mut after = 0;
        loop {
            tokio::time::sleep(if after == 0 { PASS } else { PAUSE }).await;
            let wal = self.wal.clone();
            // A disk that hangs must not hold up a thread that serves.
            let Ok(found) = tokio::task::spawn_blocking(move || wal.scrub_after(after)).await else { return };
            after = self.care.note(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;
    use tokio::sync::oneshot;

    use super::*;
    use crate::env::{Disk, Env, MemDisk};
    use crate::types::{RaftIndex, Term};
    use crate::wal::{EntryId, WalEntry, WalOptions};

    fn id(index: u64) -> EntryId {
        EntryId { term: Term(1), index: RaftIndex(index), node: None }
    }

    async fn append(wal: &Wal, indexes: std::ops::Range<u64>) {
        for index in indexes {
            let (done, appended) = oneshot::channel();
            let entry = WalEntry { id: id(index), kind: 0, payload: Bytes::from(vec![7; 100]) };
            wal.append(vec![entry], |result| drop(done.send(result)));
            appended.await.unwrap().unwrap();
        }
    }

    async fn until(what: impl Fn() -> bool) {
        while !what() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn changed_bytes_are_found_and_no_longer_once_the_log_is_purged_beyond_them() {
        let disk = MemDisk::new();
        let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
        let dir = Path::new("/wal");
        let options = WalOptions { segment_bytes: 1024, ..WalOptions::default() };
        let (wal, _) = Wal::open(env.clone(), dir, options.clone()).unwrap();
        let (wal, care) = (Arc::new(wal), Arc::new(Care::default()));
        append(&wal, 0..30).await;
        let task = Scrub { wal: wal.clone(), care: care.clone() }.spawn();
        let all = wal.scrub().unwrap();
        until(|| care.checked_bytes.load(Ordering::Relaxed) >= all).await;
        assert_eq!((care.damaged.load(Ordering::Relaxed), care.damaged_until()), (0, RaftIndex(0)));

        let path = dir.join("0000000000000002.wal");
        let mut bytes = disk.bytes(&path).unwrap();
        bytes[300] ^= 1;
        disk.set_bytes(&path, bytes);
        until(|| care.damaged.load(Ordering::Relaxed) > 0).await;
        let last = care.damaged_until();
        assert!((RaftIndex(2)..RaftIndex(29)).contains(&last), "{last}");

        let (done, purged) = oneshot::channel();
        wal.purge_to(id(last.get()), |result| drop(done.send(result)));
        purged.await.unwrap().unwrap();
        until(|| !disk.exists(&path).unwrap()).await;
        let (damaged, checked) = (care.damaged.load(Ordering::Relaxed), care.checked_bytes.load(Ordering::Relaxed));
        until(|| care.checked_bytes.load(Ordering::Relaxed) > checked + all).await;
        assert_eq!(care.damaged.load(Ordering::Relaxed), damaged, "it is gone");
        task.abort();
        drop(task.await);
        drop(wal);
        let (_, recovered) = Wal::open(env, dir, options).unwrap();
        assert_eq!((recovered.purged, recovered.last), (Some(id(last.get())), Some(id(29))));
    }
}
