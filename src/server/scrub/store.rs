//! Snapshots and records: each byte is read and checked again, as a start reads neither.
//!
//! ```text
//! pass: each snapshot file, a chunk at a time ─► each record up to today's revision, a page at a time ─► pause
//! ```
//! A page of records that isn't as it was written makes the store give itself up, as under any other read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::Care;
use crate::env::Env;
use crate::server::rebuild;
use crate::storage::StoreReader;
use crate::storage::snapshot::{self, SnapshotCheck};
use crate::types::{Revision, StorageError};

/// Before the first pass, and between two.
const PASS: Duration = Duration::from_secs(600);
/// Records of a page: at most 48 MiB with the default size of requests.
const PAGE_RECORDS: usize = 32;
/// Records a second, at most.
const RECORDS_A_SECOND: u32 = 1_000;
/// Bytes a second, at most.
const BYTES_A_SECOND: u64 = 4 << 20;

/// Checks snapshots and records, one pass after the other.
pub(in crate::server) struct StoreScrub {
    pub(in crate::server) env: Env,
    pub(in crate::server) reader: StoreReader,
    /// Where the snapshots lie.
    pub(in crate::server) snapshots: PathBuf,
    pub(in crate::server) care: Arc<Care>,
}

impl StoreScrub {
    /// Runs until the task is aborted or the store is given up.
    pub(in crate::server) fn spawn(self) -> JoinHandle<()> {
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(PASS).await;
                self.snapshots().await;
                if self.care.is_snapshot_bad() {
                    // To give the store up now would leave nothing to make it anew of.
                    continue;
                }
                if let Err(error) = self.records().await {
                    // What is damaged was given up by that; anything else is met by those who serve, too.
                    tracing::warn!(%error, "the store could not be checked to its end");
                    if matches!(error, StorageError::Damaged { .. } | StorageError::Closed(_)) {
                        return;
                    }
                }
            }
        })
    }

    async fn snapshots(&self) {
        let files = match rebuild::files(self.env.disk.as_ref(), &self.snapshots) {
            Ok(files) => files,
            Err(error) => return tracing::warn!(%error, "the snapshots could not be looked for"),
        };
        for (at, path) in files.iter().enumerate() {
            match self.snapshot(path).await {
                Err(error @ StorageError::Damaged { .. }) => self.damaged(&error, path, at == 0),
                // Another one may have taken its place meanwhile.
                Err(error) => tracing::info!(%error, "a snapshot was not checked"),
                Ok(()) => {}
            }
        }
    }

    async fn snapshot(&self, path: &Path) -> Result<(), StorageError> {
        let input = snapshot::open_snapshot(&self.env, path)?;
        let named = |error: snapshot::SnapshotError| error.at(path);
        // A disk that hangs must not hold up a thread that serves.
        let mut check = blocking(move || SnapshotCheck::new(input)).await?.map_err(named)?;
        loop {
            let (back, step) = blocking(move || {
                let step = check.step();
                (check, step)
            })
            .await?;
            check = back;
            let Some(bytes) = step.map_err(named)? else { return Ok(()) };
            self.rest(bytes, 0).await;
        }
    }

    fn damaged(&self, error: &StorageError, path: &Path, is_newest: bool) {
        self.care.snapshots_damaged.fetch_add(1, Ordering::Relaxed);
        if is_newest {
            self.care.is_snapshot_bad.store(true, Ordering::Relaxed);
            tracing::error!(%error, "the newest snapshot has changed on disk; a new one is written. Check the disk");
        } else {
            tracing::error!(%error, "an older snapshot has changed on disk; it is removed. Check the disk");
            if let Err(error) = rebuild::remove(self.env.disk.as_ref(), path) {
                tracing::warn!(%error, "it could not be removed");
            }
        }
    }

    async fn records(&self) -> Result<(), StorageError> {
        let end = Revision::new(self.reader.revision().saturating_add(1), 0);
        let mut next = Revision::default();
        loop {
            let reader = self.reader.clone();
            let page = blocking(move || reader.values().scan(next, end, PAGE_RECORDS)).await??;
            let Some((last, _)) = page.last() else { return Ok(()) };
            next = Revision::new(last.main, last.sub.saturating_add(1));
            let bytes = page.iter().map(|(_, record)| record.size() as u64).sum();
            self.rest(bytes, page.len() as u32).await;
        }
    }

    async fn rest(&self, bytes: u64, records: u32) {
        self.care.store_checked_bytes.fetch_add(bytes, Ordering::Relaxed);
        let for_bytes = Duration::from_micros(bytes.saturating_mul(1_000_000) / BYTES_A_SECOND);
        let for_records = Duration::from_secs(1) * records / RECORDS_A_SECOND;
        tokio::time::sleep(for_bytes.max(for_records)).await;
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StorageError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StorageError::Closed("the server ends".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::MemDisk;
    use crate::storage::values::Health;
    use crate::storage::{AppliedPosition, Store};
    use crate::types::{LeaseId, RaftIndex, Term};

    const KEYS: i64 = 100;

    struct Fixture {
        disk: MemDisk,
        store: Store,
        scrub: StoreScrub,
        saved: Vec<PathBuf>,
    }

    /// A store of [`KEYS`] keys, flushed, with two snapshots of it.
    async fn fixture() -> Fixture {
        let disk = MemDisk::new();
        let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
        let dir = PathBuf::from("/snap");
        env.disk.create_dir_all(&dir).expect("a directory");
        let mut store = Store::in_memory();
        for key in 0..KEYS {
            let mut txn = store.begin();
            txn.put(format!("k{key}").into(), vec![7; 1_000].into(), LeaseId::NONE);
            txn.commit();
        }
        let mut saved = Vec::new();
        for index in [17, 18] {
            store.publish(AppliedPosition { index: RaftIndex(index), term: Term(1) }).expect("published");
            let save = rebuild::save(env.clone(), store.reader(), dir.clone());
            // It waits for the store's thread.
            saved.push(blocking(save).await.expect("a thread").expect("saved").path);
        }
        store.reader().values().flush().await.expect("flushed");
        let scrub = StoreScrub { env, reader: store.reader(), snapshots: dir, care: Arc::default() };
        Fixture { disk, store, scrub, saved }
    }

    fn flip(disk: &MemDisk, path: &Path) {
        let mut bytes = disk.bytes(path).expect("a file");
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        disk.set_bytes(path, bytes);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_whole_is_left_alone_and_all_of_it_is_read() {
        let Fixture { disk, store, scrub, saved } = fixture().await;
        scrub.snapshots().await;
        scrub.records().await.expect("whole");
        let care = scrub.care;
        assert!(care.store_checked_bytes.load(Ordering::Relaxed) >= KEYS as u64 * 1_000);
        assert_eq!((care.snapshots_damaged.load(Ordering::Relaxed), care.is_snapshot_bad()), (0, false));
        assert!(saved.iter().all(|path| disk.bytes(path).is_some()));
        assert_eq!(*store.reader().values().health().borrow(), Health::Good);
    }

    #[tokio::test(start_paused = true)]
    async fn a_damaged_snapshot_goes_or_is_written_anew() {
        let Fixture { disk, store: _store, scrub, saved } = fixture().await;
        flip(&disk, &saved[0]);
        scrub.snapshots().await;
        assert!(disk.bytes(&saved[0]).is_none(), "the older one");
        assert!(!scrub.care.is_snapshot_bad());
        flip(&disk, &saved[1]);
        scrub.snapshots().await;
        assert!(disk.bytes(&saved[1]).is_some(), "it stays until there is another");
        assert!(scrub.care.is_snapshot_bad());
        assert_eq!(scrub.care.snapshots_damaged.load(Ordering::Relaxed), 2);
        scrub.care.snapshot_written();
        assert!(!scrub.care.is_snapshot_bad());
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_is_lost_ends_the_store() {
        let Fixture { store, scrub, .. } = fixture().await;
        store.reader().values().lose(Revision::new(KEYS / 2, 0));
        let task = scrub.spawn();
        let mut health = store.reader().values().health();
        health.wait_for(|health| matches!(health, Health::Failed(_))).await.expect("it is told");
        task.await.expect("nothing is left to check");
    }
}
