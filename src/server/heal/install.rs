//! At a start: the snapshot that was fetched takes the place of the state that differs.
//!
//! ```text
//! healing.ready ─► whole? fits the log? ─► mark: healed by it ─► store ─► store.diverged ─► own snapshots removed
//!               ─► <index>.snapshot ─► (open) an empty store, filled from it, then the log's entries after it
//! ```
//! Killed anywhere, the next start finds either `healing.ready` and does it all again, or the mark that names the
//! snapshot, and a store that doesn't hold it yet. The mark stays until the new state was compared with the others'.

use std::path::Path;

use crate::consensus::peer::HEALING;
use crate::env::{Disk, Env, make_dir_durably};
use crate::ops::data_dir::{DataDir, Divergence};
use crate::server::open::OpenError;
use crate::server::rebuild;
use crate::storage::{AppliedPosition, snapshot};
use crate::types::{RaftIndex, StorageError};
use crate::wal::Wal;

/// How often a member's state is replaced before that is left to a person.
pub(in crate::server) const ATTEMPTS_MAX: u32 = 3;

/// Puts a snapshot that was fetched for healing in the place of store and snapshots, if there is one. Returns the
/// entry that the store has to hold, or 0.
///
/// # Errors
/// Those of the disk. A snapshot that is damaged, or doesn't fit the log, is removed; another one is fetched then.
pub(in crate::server) fn install(env: &Env, data: &DataDir, wal: &Wal, enabled: bool) -> Result<RaftIndex, OpenError> {
    let disk = env.disk.as_ref();
    let ready = data.snapshots().join(HEALING);
    let mark = data.divergence(disk)?;
    let io = |action, path: &Path, error| OpenError::Store(StorageError::io(action, path, error));
    if disk.exists(&ready).map_err(|error| io("look for", &ready, error))? {
        match mark.filter(|_| enabled).map(|mark| Ok((mark, usable(env, wal, &ready)?))) {
            Some(Ok((mark, position))) => {
                replace(disk, data, mark, position, &ready)?;
                return Ok(position.index);
            }
            other => {
                if let Some(Err::<_, StorageError>(error)) = other {
                    tracing::warn!(%error, "the others' state is of no use; it will be fetched again");
                }
                disk.remove(&ready).map_err(|error| io("remove", &ready, error))?;
            }
        }
    }
    Ok(mark.and_then(|mark| mark.healed).unwrap_or_default())
}

/// Where the snapshot stands, if it is whole and the log goes on from there.
fn usable(env: &Env, wal: &Wal, ready: &Path) -> Result<AppliedPosition, StorageError> {
    let input = snapshot::open_snapshot(env, ready)?;
    let header = snapshot::read_snapshot(input, |_| Ok(())).map_err(|error| error.at(ready))?;
    let position = header.position;
    let purged = wal.purged().map_or(RaftIndex(0), |id| id.index);
    let last = wal.last().map_or(RaftIndex(0), |id| id.index);
    let fits = if position.index > last {
        // Raft takes it as a snapshot that was installed, and drops the log before it.
        wal.last().is_none_or(|last| last.term <= position.term)
    } else {
        let same = wal.id_at(position.index).is_some_and(|id| id.term == position.term);
        position.index >= purged && (same || position.index == purged)
    };
    if fits { Ok(position) } else { Err(StorageError::Mismatch("the log doesn't go on after the snapshot".into())) }
}

fn replace(
    disk: &dyn Disk,
    data: &DataDir,
    mark: Divergence,
    position: AppliedPosition,
    ready: &Path,
) -> Result<(), OpenError> {
    let (store, aside, snapshots) = (data.store(), data.diverged_store(), data.snapshots());
    // One that was killed meanwhile is no further attempt.
    if mark.healed != Some(position.index) {
        let attempts = mark.attempts.saturating_add(1);
        data.note_divergence(disk, &Divergence { healed: Some(position.index), attempts, ..mark })?;
    }
    let io = |error| OpenError::Store(StorageError::io("put aside", &store, error));
    // Made anew at each start: an empty one is none, and must not take the old one's place aside.
    if !disk.list(&store).map_err(io)?.is_empty() {
        if disk.exists(&aside).map_err(io)? {
            disk.remove_dir(&aside).map_err(io)?;
        }
        disk.rename(&store, &aside).map_err(io)?;
        make_dir_durably(disk, &store).map_err(io)?;
        tracing::warn!(aside = %aside.display(), "the store that differs is kept aside");
    }
    // They were made of it.
    rebuild::remove_all(disk, &snapshots)?;
    rebuild::rename(disk, ready, &rebuild::path_of(&snapshots, position.index))?;
    Ok(())
}

#[cfg(test)]
mod tests;
