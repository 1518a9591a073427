//! The parts of the wiring that a simulated member is put together from, as the server uses them.
//!
//! Only in a build of the simulation: a member there has no configuration, no listeners and no signals.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::answers::Answers;
use super::compare::Comparer;
use super::marks::{Marks, Notes};
use super::scrub::Care;
use super::turns::Turns;
use super::upkeep::{SnapshotPolicy, Upkeep};
use super::{ends, open, rebuild};
use crate::api::PeerDoor;
use crate::apply::AlarmView;
use crate::auth::AuthView;
use crate::consensus::peer::{Peers, Service};
use crate::consensus::{Load, Node, SavedSnapshot, Snapshots};
use crate::env::Env;
use crate::ops::data_dir::DataDirError;
use crate::propose::{Leases, Proposer};
use crate::storage::{Opened, Store, StoreReader};
use crate::types::{RaftIndex, StorageError};
use crate::wal::{Recovered, Wal};

/// Reads snapshots that Raft wants installed.
pub fn load(env: Env) -> Load {
    rebuild::load(env)
}

/// Gives a snapshot that was installed just before a crash its lasting name.
///
/// # Errors
/// Those of the disk.
pub fn finish_received(env: &Env, dir: &Path, have: RaftIndex) -> Result<(), StorageError> {
    rebuild::finish_received(env, dir, have)
}

/// What is behind the peer port.
pub fn peer_door(node: &Node, peers: &Peers, leases: Leases) -> PeerDoor {
    // No alarm is seen here, so nobody gets a turn: no member is healed.
    let turns = Arc::new(Turns::new(node.clone(), AlarmView::default(), Duration::from_secs(1)));
    let answers = Answers { leases, marks: marks(node), turns };
    let service = Service::new(node.clone(), peers.clone(), Arc::new(answers));
    PeerDoor::new(service.routes(), peers.cluster(), Arc::new(Vec::new))
}

/// The newest snapshot file below `dir` whose header can be read.
///
/// # Errors
/// Those of the disk.
pub fn newest(env: &Env, dir: &Path) -> Result<Option<SavedSnapshot>, StorageError> {
    rebuild::newest(env, dir)
}

/// Leaves out a snapshot that ends before the log begins.
pub fn reaching(newest: Option<SavedSnapshot>, purged: RaftIndex) -> Option<SavedSnapshot> {
    rebuild::reaching(newest, purged)
}

/// Puts the newest whole snapshot in place of what the store holds.
///
/// # Errors
/// Those of the disk.
pub fn from_snapshot(env: &Env, store: &mut Store, dir: &Path) -> Result<Option<Opened>, StorageError> {
    Ok(match rebuild::from_snapshot(env, store, dir)? {
        rebuild::Rebuilt::Of(opened) => Some(opened),
        rebuild::Rebuilt::No(_) => None,
    })
}

/// Whether the log lacks what this member once had, so that it must not start.
pub fn is_log_lost(have: RaftIndex, snapshot: RaftIndex, has_served: bool, recovered: &Recovered) -> bool {
    open::is_log_lost(have, snapshot, has_served, recovered)
}

/// Takes a snapshot every `entries` entries and purges the log but for `keep_entries` before it.
pub fn upkeep(
    node: Node,
    snapshots: Arc<Snapshots>,
    reader: StoreReader,
    entries: u64,
    keep_entries: u64,
    wal: Arc<Wal>,
) -> JoinHandle<()> {
    let policy = SnapshotPolicy { entries_min: entries, bytes_min: 0, keep_entries };
    let care = Arc::new(Care::default());
    Upkeep { node, snapshots, reader, policy, behind_bytes: 0, care, wal }.spawn(|| 0)
}

/// Compares the members' states while this one leads, as the server does; nothing is noted on the disk.
pub fn comparer(node: Node, proposer: Proposer, alarms: AlarmView, auth: AuthView) -> JoinHandle<()> {
    let marks = marks(&node);
    Comparer::new(node, proposer, (alarms, auth), marks).spawn()
}

/// A member that differs ends the run.
struct Nowhere;

impl Notes for Nowhere {
    fn note(&self, _: RaftIndex) -> Result<(), DataDirError> {
        Ok(())
    }

    fn clear(&self) -> Result<(), DataDirError> {
        Ok(())
    }
}

fn marks(node: &Node) -> Arc<Marks> {
    Arc::new(Marks::new(node.status().clone(), Nowhere, false))
}

/// Waits until this member has been removed from its cluster.
pub async fn removed(node: &Node) {
    ends::removed(node).await;
}

/// Where the snapshot after entry `index` lies.
pub fn snapshot_path(dir: &Path, index: RaftIndex) -> PathBuf {
    rebuild::path_of(dir, index)
}
