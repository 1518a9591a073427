//! Snapshots and records: each byte is read and checked again, as a start reads neither.
//!
//! ```text
//! pass: each snapshot file, a chunk at a time ─► newest and log whole? each record up to today's revision, a page at a
//!       time ─► pause
//! ```
//! A page of records that isn't as it was written makes the store give itself up, as under any other read. So that is
//! only risked while there is something to make it anew of.

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
use crate::storage::values::PageLimits;
use crate::types::{Revision, StorageError};
use crate::wal::Wal;

/// Before the first pass, and between two.
const PASS: Duration = Duration::from_secs(600);
/// What is read at a time: an eighth of a second's, or one record that is larger.
const PAGE: PageLimits = PageLimits { records: 128, bytes: 1 << 20 };
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
    pub(in crate::server) wal: Arc<Wal>,
}

impl StoreScrub {
    /// Runs until the task is aborted or the store is given up.
    pub(in crate::server) fn spawn(self) -> JoinHandle<()> {
        tokio::spawn(async move {
            self.warm().await;
            loop {
                tokio::time::sleep(PASS).await;
                let is_whole = self.snapshots().await;
                if !is_whole || self.care.is_snapshot_bad() || self.care.is_log_damaged(&self.wal) {
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

    /// Whether the store could be made anew as far as is known: the newest snapshot is whole, or the log goes back to the
    /// beginning.
    pub(super) async fn is_replaceable(&self) -> bool {
        if self.care.is_snapshot_bad() || self.care.is_log_damaged(&self.wal) {
            return false;
        }
        if self.wal.purged().is_none() {
            return true;
        }
        let (disk, dir) = (self.env.disk.clone(), self.snapshots.clone());
        let files = blocking(move || rebuild::files(disk.as_ref(), &dir)).await.and_then(|files| files);
        let Some(newest) = files.ok().and_then(|files| files.into_iter().next()) else { return false };
        match self.snapshot(&newest).await {
            Ok(()) => true,
            Err(error) => {
                if !is_gone(&error) {
                    self.newest_is_bad(&error);
                }
                false
            }
        }
    }

    /// Whether the newest was read to its end, or there is none yet, and the log goes back to the beginning.
    async fn snapshots(&self) -> bool {
        let (disk, dir) = (self.env.disk.clone(), self.snapshots.clone());
        let files = match blocking(move || rebuild::files(disk.as_ref(), &dir)).await.and_then(|files| files) {
            Ok(files) => files,
            Err(error) => {
                tracing::warn!(%error, "the snapshots could not be looked for");
                return false;
            }
        };
        let mut is_whole = files.is_empty();
        for (at, path) in files.iter().enumerate() {
            match self.snapshot(path).await {
                Ok(()) if at == 0 => is_whole = true,
                Ok(()) => {}
                // Another one may have taken its place meanwhile; or the server ends.
                Err(error) if is_gone(&error) => tracing::info!(%error, "a snapshot was not checked"),
                // What can't be read is of no use, whatever the disk says of it.
                Err(error) if at == 0 => self.newest_is_bad(&error),
                Err(error) => self.older_is_bad(&error, path, is_whole).await,
            }
        }
        is_whole
    }

    async fn snapshot(&self, path: &Path) -> Result<(), StorageError> {
        let named = |error: snapshot::SnapshotError| error.at(path);
        let (env, opened) = (self.env.clone(), path.to_owned());
        // A disk that hangs must not hold up a thread that serves.
        let input = blocking(move || snapshot::open_snapshot(&env, &opened)).await??;
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

    fn newest_is_bad(&self, error: &StorageError) {
        self.care.snapshots_damaged.fetch_add(1, Ordering::Relaxed);
        self.care.is_snapshot_bad.store(true, Ordering::Relaxed);
        tracing::error!(%error, "the newest snapshot has changed on disk; a new one is written. Check the disk");
    }

    async fn older_is_bad(&self, error: &StorageError, path: &Path, is_newest_whole: bool) {
        self.care.snapshots_damaged.fetch_add(1, Ordering::Relaxed);
        if !is_newest_whole && !matches!(error, StorageError::Damaged { .. }) {
            // The disk may read it later, and there is no better one.
            return tracing::error!(%error, "an older snapshot can't be read. Check the disk");
        }
        tracing::error!(%error, "an older snapshot has changed on disk; it is removed. Check the disk");
        let (disk, path) = (self.env.disk.clone(), path.to_owned());
        if let Err(error) = blocking(move || rebuild::remove(disk.as_ref(), &path)).await.and_then(|removed| removed) {
            tracing::warn!(%error, "it could not be removed");
        }
    }

    async fn records(&self) -> Result<(), StorageError> {
        let end = Revision::new(self.reader.revision().saturating_add(1), 0);
        let mut next = Some(Revision::default());
        while let Some(from) = next {
            let reader = self.reader.clone();
            let page = blocking(move || reader.values().page(from, end, PAGE)).await??;
            next = page.next;
            let bytes = page.records.iter().map(|(_, record)| record.size() as u64).sum();
            self.rest(bytes, page.records.len() as u32).await;
        }
        Ok(())
    }

    async fn rest(&self, bytes: u64, records: u32) {
        self.care.store_checked_bytes.fetch_add(bytes, Ordering::Relaxed);
        let for_bytes = Duration::from_micros(bytes.saturating_mul(1_000_000) / BYTES_A_SECOND);
        let for_records = Duration::from_secs(1) * records / RECORDS_A_SECOND;
        tokio::time::sleep(for_bytes.max(for_records)).await;
    }
}

/// Whether there was nothing to check, rather than something that can't be read.
fn is_gone(error: &StorageError) -> bool {
    match error {
        StorageError::Io { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
        StorageError::Closed(_) => true,
        _ => false,
    }
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StorageError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| StorageError::Closed("the server ends".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{DiskOp, MemDisk};
    use crate::storage::values::Health;
    use crate::storage::{AppliedPosition, Store};
    use crate::types::{LeaseId, RaftIndex, Term};
    use crate::wal::{EntryId, WalEntry, WalOptions};

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
        let options = WalOptions { segment_bytes: 1024, ..WalOptions::default() };
        // On a disk of its own, where it is in no test's way.
        let other = Env { disk: Arc::new(MemDisk::new()), ..Env::real() };
        let (wal, _) = Wal::open(other, Path::new("/wal"), options).expect("an empty log");
        let (care, wal) = (Arc::default(), Arc::new(wal));
        let scrub = StoreScrub { env, reader: store.reader(), snapshots: dir, care, wal };
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
        assert!(scrub.snapshots().await);
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
        assert!(scrub.snapshots().await);
        assert!(disk.bytes(&saved[0]).is_none(), "the older one");
        assert!(!scrub.care.is_snapshot_bad());
        flip(&disk, &saved[1]);
        assert!(!scrub.snapshots().await);
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

    /// Cause: a sector that can't be read is an error of the disk and no damage, and was said in passing. Symptom: no new
    /// snapshot was written, and with the next damaged record the store was given up though nothing could replace it.
    #[tokio::test(start_paused = true)]
    async fn a_snapshot_that_the_disk_does_not_read_is_a_bad_one() {
        const EIO: i32 = 5;
        let Fixture { disk, store: _store, scrub, saved } = fixture().await;
        disk.fail(DiskOp::Read, 0, EIO);
        assert!(!scrub.snapshots().await, "it was not read to its end");
        assert!(scrub.care.is_snapshot_bad(), "a new one is needed");
        scrub.care.snapshot_written();
        // The newest is whole again, and the older one isn't read.
        let reads = disk.count(DiskOp::Read);
        scrub.snapshot(&saved[1]).await.expect("whole");
        let reads = disk.count(DiskOp::Read) - reads;
        disk.fail(DiskOp::Read, reads, EIO);
        assert!(scrub.snapshots().await);
        assert!(!scrub.care.is_snapshot_bad() && disk.bytes(&saved[0]).is_none(), "it is removed");
        disk.set_bytes(&saved[0], Vec::new());
        disk.fail(DiskOp::Open, 0, EIO);
        disk.fail(DiskOp::Open, 1, EIO);
        assert!(!scrub.snapshots().await);
        assert!(disk.bytes(&saved[0]).is_some(), "the disk may read it later, and the newest isn't there");
    }

    /// Cause: only snapshots were looked at before the records were. Symptom: with the log damaged, and not purged yet, the
    /// store was given up, and the next start found neither.
    #[tokio::test(start_paused = true)]
    async fn no_record_is_looked_at_while_no_start_would_take_the_log() {
        let Fixture { store, scrub, .. } = fixture().await;
        store.reader().values().lose(Revision::new(KEYS / 2, 0));
        let id = EntryId { term: Term(1), index: RaftIndex(9), node: None };
        let (done, written) = tokio::sync::oneshot::channel();
        let entry = WalEntry { id, kind: 0, payload: bytes::Bytes::new() };
        scrub.wal.append(vec![entry], move |result| drop(done.send(result)));
        written.await.expect("the log's thread").expect("written");
        let (care, wal) = (scrub.care.clone(), scrub.wal.clone());
        care.damaged_until.store(9, Ordering::Relaxed);
        let task = scrub.spawn();
        tokio::time::sleep(PASS * 3).await;
        assert_eq!(*store.reader().values().health().borrow(), Health::Good);
        let (done, purged) = tokio::sync::oneshot::channel();
        wal.purge_to(id, move |result| drop(done.send(result)));
        purged.await.expect("the log's thread").expect("purged");
        assert!(!care.is_log_damaged(&wal));
        let mut health = store.reader().values().health();
        health.wait_for(|health| matches!(health, Health::Failed(_))).await.expect("it is told");
        task.await.expect("nothing is left to check");
    }
}
