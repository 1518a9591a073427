//! `Ballast`: a file that only takes room, given up where an engine can't be opened for want of it.
//!
//! ```text
//! home/ballast   taken while there is room ─► an opening finds the disk full ─► let go ─► opened ─► what is left taken back
//! ```
//!
//! A write that finds the disk full costs an engine its handle, and to be opened again it writes: sled its metadata
//! anew, redb its tables. Without a byte left reads of what isn't in memory would end there, and no start would serve.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::BackendConfig;
use crate::env::{Access, DiskFile, Env};
use crate::types::StorageError;

/// Its file's name.
pub(super) const BALLAST: &str = "ballast";
/// What it takes: sled's metadata of some 100 000 leaves, of 128 values each, has less.
const BYTES: u64 = 8 << 20;
/// No more than this part of what is free.
const SHARE: u64 = 16;
/// Less isn't taken back.
const LEAST_BYTES: u64 = 64 << 10;

/// Room that is kept for openings.
#[derive(Debug)]
pub(super) struct Ballast {
    env: Env,
    path: PathBuf,
    reserve_bytes: u64,
    /// How much it has.
    bytes: AtomicU64,
}

impl Ballast {
    /// That of a home, as an earlier run left it.
    pub(super) fn of(env: &Env, config: &BackendConfig) -> Self {
        let path = config.dir.join(BALLAST);
        let found = env.disk.open(&path, Access::Read).and_then(|file| file.size());
        let (env, reserve_bytes) = (env.clone(), config.reserve_bytes);
        Self { env, path, reserve_bytes, bytes: AtomicU64::new(found.unwrap_or(0)) }
    }

    /// Opens by `open`, with the ballast's room where the disk is full otherwise.
    ///
    /// # Errors
    /// Those of `open`.
    pub(super) fn with_room<T>(&self, mut open: impl FnMut() -> Result<T, StorageError>) -> Result<T, StorageError> {
        let mut opened = open();
        if matches!(opened, Err(StorageError::Full { .. }))
            && let Some(bytes) = self.let_go()
        {
            tracing::warn!(path = %self.path.display(), bytes, "the disk is full; the store is opened with room that is kept for that");
            opened = open();
            // It was ours a moment ago, and is needed again by the next opening.
            self.take_back(bytes);
        } else if opened.is_ok() {
            self.keep();
        }
        opened
    }

    /// Takes what is missing of it if there is room for that besides the reserve.
    pub(super) fn keep(&self) {
        let has = self.bytes.load(Ordering::Relaxed);
        if has >= BYTES {
            return;
        }
        let Some(dir) = self.path.parent() else { return };
        // With its own: where it was taken back by halves it comes to what it was when there is as much room as there was.
        let free = self.env.disk.free_bytes(dir).unwrap_or(0).saturating_add(has);
        let spare = free.saturating_sub(self.reserve_bytes);
        let wanted = BYTES.min(spare / SHARE);
        if wanted > has.max(LEAST_BYTES)
            && let Err(error) = self.take(wanted)
        {
            tracing::debug!(path = %self.path.display(), %error, "no room could be kept for openings on a full disk");
        }
    }

    fn take(&self, bytes: u64) -> io::Result<()> {
        let file = self.file()?;
        if let Err(error) = file.allocate(0, bytes) {
            // Some file systems keep what they found until there was no more: room that nobody would give back.
            file.set_len(self.bytes.load(Ordering::Relaxed))?;
            return Err(error);
        }
        self.bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// As much as there is of so many bytes.
    fn take_back(&self, bytes: u64) {
        let mut sizes =
            std::iter::successors(Some(bytes), |bytes| Some(bytes / 2).filter(|bytes| *bytes >= LEAST_BYTES));
        sizes.any(|bytes| self.take(bytes).is_ok());
    }

    /// Gives its room back to the disk; how much that was, if any.
    fn let_go(&self) -> Option<u64> {
        let bytes = self.bytes.swap(0, Ordering::Relaxed);
        if bytes == 0 {
            return None;
        }
        // Synced, since a file system may give it to others only when that is done.
        let result = self.file().and_then(|file| file.set_len(0).and_then(|()| file.sync_all()));
        if let Err(error) = result {
            tracing::warn!(path = %self.path.display(), %error, "the room that is kept for openings could not be given back");
        }
        Some(bytes)
    }

    fn file(&self) -> io::Result<Arc<dyn DiskFile>> {
        self.env.disk.open(&self.path, Access::Create)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::env::MemDisk;
    use crate::storage::backend::Engine;

    fn ballast(disk: &MemDisk) -> Ballast {
        let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
        let config = BackendConfig { reserve_bytes: 1 << 20, ..BackendConfig::new(Engine::Redb, "/h") };
        env.disk.create_dir_all(&config.dir).unwrap();
        Ballast::of(&env, &config)
    }

    fn full() -> StorageError {
        StorageError::Full { path: "/h".into() }
    }

    fn len(disk: &MemDisk) -> u64 {
        disk.bytes(Path::new("/h/ballast")).map_or(0, |bytes| bytes.len() as u64)
    }

    #[test]
    fn an_opening_on_a_full_disk_has_its_room_and_it_is_taken_back() {
        let disk = MemDisk::new();
        disk.set_capacity(Some(1 << 30));
        assert_eq!(ballast(&disk).with_room(|| Ok(1)).unwrap(), 1);
        assert_eq!(len(&disk), BYTES);

        // Another run, which finds it.
        let kept = ballast(&disk);
        disk.set_capacity(Some(BYTES));
        for _ in 0..3 {
            let mut found = Vec::new();
            let opened = kept.with_room(|| {
                found.push(len(&disk));
                if len(&disk) == 0 { Ok(()) } else { Err(full()) }
            });
            opened.unwrap();
            assert_eq!((found, len(&disk)), (vec![BYTES, 0], BYTES));
        }
        // Something was left there, or taken by another: as much as can be had.
        let opened = kept.with_room(|| {
            if len(&disk) == 0 {
                disk.set_capacity(Some(BYTES / 2 + 5));
            }
            Err::<(), _>(full())
        });
        assert!(matches!(opened, Err(StorageError::Full { .. })));
        assert_eq!(len(&disk), BYTES / 2);
        disk.set_capacity(Some(1 << 30));
        kept.keep();
        assert_eq!(len(&disk), BYTES);
    }

    /// Cause: what it had was not counted as room for it. Symptom: halved once on a small disk, it never was whole again.
    #[test]
    fn what_was_halved_is_whole_again_with_the_room_that_there_was() {
        let disk = MemDisk::new();
        let before = (1 << 20) + SHARE * BYTES;
        disk.set_capacity(Some(before));
        let kept = ballast(&disk);
        kept.keep();
        assert_eq!(len(&disk), BYTES);
        for halves in 1..=8 {
            let _ = kept.with_room(|| {
                disk.set_capacity(Some(BYTES >> halves));
                Err::<(), _>(full())
            });
            assert_eq!(len(&disk), if halves == 8 { 0 } else { BYTES >> halves });
        }
        for _ in 0..2 {
            disk.set_capacity(Some((1 << 20) + SHARE * BYTES / 2));
            kept.keep();
            assert_eq!(len(&disk), BYTES / 2);
        }
        disk.set_capacity(Some(before));
        kept.keep();
        assert_eq!(len(&disk), BYTES);
    }

    #[test]
    fn none_is_taken_of_the_reserve_and_only_a_full_disk_takes_it() {
        let disk = MemDisk::new();
        disk.set_capacity(Some(1 << 20));
        let kept = ballast(&disk);
        kept.with_room(|| Ok(())).unwrap();
        let mut tries = 0;
        let refused = kept.with_room(|| {
            tries += 1;
            Err::<(), _>(full())
        });
        assert!(refused.is_err() && tries == 1 && len(&disk) == 0);
        disk.set_capacity(Some(33 << 20));
        kept.with_room(|| Ok(())).unwrap();
        assert_eq!(len(&disk), 2 << 20);
        let failed = kept.with_room(|| Err::<(), _>(StorageError::Closed("another reason".into())));
        assert!(failed.is_err() && len(&disk) == 2 << 20);
    }
}
