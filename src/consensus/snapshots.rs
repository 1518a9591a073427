//! Snapshot files: what the store can be rebuilt from, together with the log after them.
//!
//! ```text
//! trigger ─► builder ─► save (what the store has flushed, to a file) ─► current ─► the log may be purged up to it
//! ```
//!
//! What is in a file and how it gets to disk is the storage's; here is only which one counts.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use openraft::RaftSnapshotBuilder;
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use parking_lot::Mutex;

use super::codec::decode_membership;
use super::index::log_id_of;
use super::peer::installed_name;
use super::types::{StoredMembership, TypeConfig};
use crate::env::unblock;
use crate::storage::{AppliedPosition, Opened, Store};
use crate::types::StorageError;

/// Writes what the store has flushed into a file, durably, and says of which entry it is. Runs where
/// blocking is allowed. The engine must not lag behind the file after a crash: a start would then
/// have to install it first.
pub type Save = Box<dyn Fn() -> Result<SavedSnapshot, StorageError> + Send + Sync>;

/// Puts the state of a snapshot file in place of a store's, durably and in one step; the file has its
/// lasting name ([`installed_name`]) afterwards.
pub type Load = Box<dyn Fn(&mut Store, &Path) -> Result<Opened, StorageError> + Send + Sync>;

/// A finished snapshot file.
#[derive(Clone, Debug)]
pub struct SavedSnapshot {
    /// The entry that it is after.
    pub position: AppliedPosition,
    /// The membership at that entry, in `consensus::codec`'s bytes.
    pub membership: Bytes,
    /// The file.
    pub path: PathBuf,
}

/// The snapshots of this member.
pub struct Snapshots {
    save: Save,
    load: Load,
    inner: Mutex<Inner>,
    /// Held while one is written: two of the same entry would be one file.
    saving: Mutex<()>,
}

#[derive(Default)]
struct Inner {
    current: Option<SnapshotOf<TypeConfig, PathBuf>>,
    /// Written, and not yet given to Raft.
    is_new: bool,
}

impl Inner {
    fn replace(&mut self, snapshot: SnapshotOf<TypeConfig, PathBuf>) {
        // One that came from another member while this one was written may be newer.
        if self.current.as_ref().is_some_and(|current| current.meta.last_log_id > snapshot.meta.last_log_id) {
            return;
        }
        self.current = Some(snapshot);
        self.is_new = true;
    }
}

impl Snapshots {
    /// Snapshots that `save` writes and `load` reads; `found` is the newest whole one there is.
    ///
    /// # Errors
    /// Its membership can't be read.
    pub fn new(save: Save, load: Load, found: Option<SavedSnapshot>) -> Result<Arc<Self>, io::Error> {
        let current = found.map(snapshot_of).transpose()?;
        Ok(Arc::new(Self { save, load, inner: Mutex::new(Inner { current, is_new: false }), saving: Mutex::new(()) }))
    }

    /// The newest finished one.
    pub(super) fn current(&self) -> Option<SnapshotOf<TypeConfig, PathBuf>> {
        self.inner.lock().current.clone()
    }

    /// Writes a snapshot; Raft learns of it when it asks for one the next time.
    ///
    /// Raft ends when a snapshot that it asked for fails, so whoever wants one writes it here first:
    /// a disk that is full for a while is then no more than a warning.
    ///
    /// # Errors
    /// The disk's.
    pub async fn save_now(self: &Arc<Self>) -> io::Result<()> {
        let snapshots = Arc::clone(self);
        let write = move || {
            let _alone = snapshots.saving.lock();
            let saved = (snapshots.save)().map_err(io::Error::other)?;
            snapshots.inner.lock().replace(snapshot_of(saved)?);
            Ok(())
        };
        unblock(write).await?
    }

    /// Takes over a file that was installed.
    pub(super) fn installed(&self, meta: SnapshotMetaOf<TypeConfig>, path: PathBuf) {
        let path = installed_name(&path).unwrap_or(path);
        self.inner.lock().current = Some(SnapshotOf::<TypeConfig, PathBuf> { meta, snapshot: path });
    }

    pub(super) fn load(&self, store: &mut Store, path: &Path) -> Result<Opened, StorageError> {
        (self.load)(store, path)
    }

    pub(super) fn builder(self: &Arc<Self>) -> SnapshotBuilder {
        SnapshotBuilder { snapshots: Arc::clone(self) }
    }
}

fn snapshot_of(saved: SavedSnapshot) -> Result<SnapshotOf<TypeConfig, PathBuf>, io::Error> {
    let last_membership = match &saved.membership[..] {
        [] => StoredMembership::default(),
        bytes => decode_membership(bytes).map_err(io::Error::other)?,
    };
    let meta = SnapshotMetaOf::<TypeConfig> { last_log_id: log_id_of(saved.position), last_membership };
    Ok(SnapshotOf::<TypeConfig, PathBuf> { meta, snapshot: saved.path })
}

/// Writes a snapshot beside everything else.
pub struct SnapshotBuilder {
    snapshots: Arc<Snapshots>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = PathBuf;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, PathBuf>, io::Error> {
        if !self.snapshots.inner.lock().is_new {
            self.snapshots.save_now().await?;
        }
        let mut inner = self.snapshots.inner.lock();
        inner.is_new = false;
        inner.current.clone().ok_or_else(|| io::Error::other("no snapshot although one was just written"))
    }
}
