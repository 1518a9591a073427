//! After a start, the values that were written last are in memory again before clients ask for them.
//!
//! ```text
//! start ─► a while ─► could the store be made anew? ─► living versions, those written last first ─► a page, a pause …
//!                                                        ─► half of the cache is full, or enough was read
//! ```
//! A leaf of an engine holds the values of neighbouring revisions, and neighbouring keys were written at any time: a first
//! list of a member that was started again had to read and unpack a leaf for each few of its values.
//!
//! As in any pass, a record that isn't as it was written makes the store give itself up, so that is risked under the same
//! conditions only.

use std::time::Duration;

use super::store::{StoreScrub, blocking};
use crate::types::StorageError;

/// From the start of this member: first it catches up with the others.
const SETTLE: Duration = Duration::from_secs(5);
/// The most values that are brought.
const RECORDS_MAX: usize = 128 << 10;
/// The most bytes of them.
const BYTES_MAX: usize = 64 << 20;
/// What is read at a time, about.
const PAGE_BYTES: usize = 512 << 10;
/// After a page, so many times what it took is left to others.
const PAUSE: u32 = 3;
/// The least of that.
const PAUSE_MIN: Duration = Duration::from_millis(2);

impl StoreScrub {
    /// Brings them, unless a record could be met that is damaged and can't be had anew.
    pub(super) async fn warm(&self) {
        tokio::time::sleep(SETTLE).await;
        if !self.is_replaceable().await {
            return;
        }
        match self.warm_pages().await {
            Ok(bytes) => tracing::debug!(bytes, "the values written last are in memory"),
            // Whoever serves meets it, too.
            Err(error) => tracing::warn!(%error, "the values written last could not be brought to memory"),
        }
    }

    async fn warm_pages(&self) -> Result<usize, StorageError> {
        let reader = self.reader.clone();
        let mut revisions = blocking(move || reader.snapshot().newest_living(RECORDS_MAX)).await?;
        let mut bytes = 0;
        while bytes < BYTES_MAX && !revisions.is_empty() {
            let (reader, begun) = (self.reader.clone(), self.env.clock.now());
            let (back, warmed) = blocking(move || {
                let warmed = reader.values().warm(&revisions, PAGE_BYTES);
                (revisions, warmed)
            })
            .await?;
            revisions = back;
            let warmed = warmed?;
            revisions.truncate(warmed.left);
            bytes += warmed.bytes;
            let took = self.env.clock.now().saturating_duration_since(begun);
            tokio::time::sleep((took * PAUSE).max(PAUSE_MIN)).await;
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use super::*;
    use crate::env::{Env, MemDisk};
    use crate::storage::backend::{Engine, MemoryImage};
    use crate::storage::values::Health;
    use crate::storage::{AppliedPosition, Store, StoreConfig};
    use crate::types::{LeaseId, RaftIndex, Revision, Term};
    use crate::wal::{EntryId, Wal, WalOptions};

    const KEYS: i64 = 200;

    struct Fixture {
        store: Store,
        scrub: StoreScrub,
        disk: MemDisk,
    }

    /// A store of [`KEYS`] keys that was opened again: nothing of them is in memory.
    fn fixture() -> Fixture {
        let (image, disk) = (MemoryImage::default(), MemDisk::new());
        let open = || {
            let config = StoreConfig::new(Engine::Memory(image.clone()), "memory");
            Store::open(&Env::real(), config).expect("opened").0
        };
        let mut store = open();
        for key in 0..KEYS {
            let mut txn = store.begin();
            txn.put(format!("k{key}").into(), vec![7; 1_000].into(), LeaseId::NONE);
            txn.commit();
        }
        store.publish(AppliedPosition { index: RaftIndex(17), term: Term(1) }).expect("published");
        drop(store);
        let store = open();
        let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
        let snapshots = PathBuf::from("/snap");
        env.disk.create_dir_all(&snapshots).expect("a directory");
        let other = Env { disk: Arc::new(MemDisk::new()), ..Env::real() };
        let (wal, _) = Wal::open(other, Path::new("/wal"), WalOptions::default()).expect("an empty log");
        let scrub = StoreScrub { env, reader: store.reader(), snapshots, care: Arc::default(), wal: Arc::new(wal) };
        Fixture { store, scrub, disk }
    }

    impl Fixture {
        fn warm_count(&self) -> usize {
            (2..KEYS + 2).filter(|main| self.store.reader().cached(Revision::new(*main, 0)).is_some()).count()
        }

        async fn purge(&self) {
            let (done, purged) = tokio::sync::oneshot::channel();
            let id = EntryId { term: Term(1), index: RaftIndex(9), node: None };
            self.scrub.wal.purge_to(id, move |result| drop(done.send(result)));
            purged.await.expect("the log's thread").expect("purged");
        }
    }

    /// Cause: a start reads no values. Symptom: the first lists after it took several times as long as later ones.
    #[tokio::test(start_paused = true)]
    async fn what_lives_is_in_memory_a_while_after_a_start() {
        let fixture = fixture();
        assert_eq!(fixture.warm_count(), 0);
        fixture.scrub.warm().await;
        assert_eq!(fixture.warm_count(), KEYS as usize);
    }

    /// Cause: a record that is damaged is met by whoever reads it. Symptom: a member ends, and can't start again, by a value
    /// that nobody asked for.
    #[tokio::test(start_paused = true)]
    async fn nothing_is_read_that_could_not_be_had_anew() {
        let fixture = fixture();
        fixture.store.reader().values().lose(Revision::new(KEYS / 2, 0));
        fixture.purge().await;
        fixture.scrub.warm().await;
        assert_eq!(fixture.warm_count(), 0, "the log has lost its beginning, and there is no snapshot");
        let path = Path::new("/snap/0000000000000011.snapshot");
        fixture.disk.set_bytes(path, vec![1; 100]);
        fixture.scrub.warm().await;
        assert_eq!(fixture.warm_count(), 0, "nor one that is whole");
        assert!(fixture.scrub.care.is_snapshot_bad());
        assert_eq!(*fixture.store.reader().values().health().borrow(), Health::Good);
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_that_is_whole_is_enough() {
        let fixture = fixture();
        fixture.purge().await;
        let save = crate::server::rebuild::save(fixture.scrub.env.clone(), fixture.store.reader(), "/snap".into());
        blocking(save).await.expect("a thread").expect("saved");
        fixture.scrub.warm().await;
        assert_eq!(fixture.warm_count(), KEYS as usize);
    }
}
