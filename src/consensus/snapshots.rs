//! Snapshot files: what the store can be rebuilt from, together with the log after them.
//!
//! ```text
//! trigger ─► builder (holds one frozen state) ─► save (blocking) ─► current ─► the log may be purged up to it
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

use super::codec::{decode_membership, encode_membership};
use super::index::log_id_of;
use super::types::{StoredMembership, TypeConfig};
use crate::storage::{AppliedPosition, Snapshot};
use crate::types::StorageError;

/// Writes one frozen state and the membership it belongs to into a file below the directory given,
/// durably, and says where. Runs where blocking is allowed.
pub type Save = Box<dyn Fn(&Snapshot, Bytes, &Path) -> Result<PathBuf, StorageError> + Send + Sync>;

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
    dir: PathBuf,
    save: Save,
    current: Mutex<Option<SnapshotOf<TypeConfig, PathBuf>>>,
}

impl Snapshots {
    /// Snapshots below `dir`; `found` is the newest whole one that lies there.
    ///
    /// # Errors
    /// Its membership can't be read.
    pub fn new(dir: PathBuf, save: Save, found: Option<SavedSnapshot>) -> Result<Arc<Self>, io::Error> {
        let current = match found {
            Some(saved) => {
                let membership = decode_membership(&saved.membership).map_err(io::Error::other)?;
                Some(snapshot_of(saved.position, membership, saved.path))
            }
            None => None,
        };
        Ok(Arc::new(Self { dir, save, current: Mutex::new(current) }))
    }

    /// The newest finished one.
    pub(super) fn current(&self) -> Option<SnapshotOf<TypeConfig, PathBuf>> {
        self.current.lock().clone()
    }

    pub(super) fn builder(self: &Arc<Self>, state: Snapshot, membership: StoredMembership) -> SnapshotBuilder {
        SnapshotBuilder { snapshots: Arc::clone(self), frozen: Some((state, membership)) }
    }
}

fn snapshot_of(
    position: AppliedPosition,
    membership: StoredMembership,
    path: PathBuf,
) -> SnapshotOf<TypeConfig, PathBuf> {
    let meta = SnapshotMetaOf::<TypeConfig> { last_log_id: log_id_of(position), last_membership: membership };
    SnapshotOf::<TypeConfig, PathBuf> { meta, snapshot: path }
}

/// Writes the state that was frozen when it was made.
pub struct SnapshotBuilder {
    snapshots: Arc<Snapshots>,
    frozen: Option<(Snapshot, StoredMembership)>,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = PathBuf;

    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, PathBuf>, io::Error> {
        let (state, membership) = self.frozen.take().ok_or_else(|| io::Error::other("a builder builds once"))?;
        let snapshots = Arc::clone(&self.snapshots);
        let write = move || {
            let position = state.position();
            let path = (snapshots.save)(&state, encode_membership(&membership), &snapshots.dir)?;
            let snapshot = snapshot_of(position, membership, path);
            *snapshots.current.lock() = Some(snapshot.clone());
            Ok::<_, StorageError>(snapshot)
        };
        tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?.map_err(io::Error::other)
    }
}
