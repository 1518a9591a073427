//! At a start: the snapshot that was fetched takes the place of the state that differs.
//!
//! ```text
//! healing.ready ─► noted? ─► log whole since then? ─► whole? fits the log? ─► mark: healed by it
//!               ─► store ─► store.diverged ─► own snapshots removed
//!               ─► <index>.snapshot ─► (open) an empty store, filled from it, then the log's entries after it
//! ```
//! Killed anywhere, the next start finds either `healing.ready` and does it all again, or the mark that names the
//! snapshot, and a store that doesn't hold it yet. The mark stays until the new state was compared with the others'.

use std::path::Path;

use crate::consensus::peer::HEALING;
use crate::consensus::term_of_vote;
use crate::env::{Disk, Env, make_dir_durably};
use crate::ops::data_dir::{DataDir, Divergence, LogEnd};
use crate::server::open::OpenError;
use crate::server::rebuild;
use crate::storage::{AppliedPosition, snapshot};
use crate::types::{RaftIndex, StorageError};
use crate::wal::{Recovered, Wal};

/// How often a member's state is replaced before that is left to a person.
pub(in crate::server) const ATTEMPTS_MAX: u32 = 3;

/// Puts a snapshot that was fetched for healing in the place of store and snapshots, if there is one and its arrival
/// was noted. Returns the entry that the store has to hold, or 0.
///
/// Whatever goes wrong with it, the member goes on with the state that it had, which isn't served: it is removed, and
/// another one is fetched then, unless it was the last try.
///
/// # Errors
/// `LogEndLost`; the mark can't be read.
pub(in crate::server) fn install(
    env: &Env,
    data: &DataDir,
    wal: &Wal,
    recovered: &Recovered,
    enabled: bool,
) -> Result<RaftIndex, OpenError> {
    let disk = env.disk.as_ref();
    let ready = data.snapshots().join(HEALING);
    let mark = data.divergence(disk)?;
    let before = mark.and_then(|mark| mark.healed).unwrap_or_default();
    // One whose name can't be looked for is found by the next start, or by the healer.
    if !disk.exists(&ready).unwrap_or(false) {
        forget_arrival(disk, data, mark);
        return Ok(before);
    }
    let arrived = mark.filter(|_| enabled).and_then(|mark| Some((mark, mark.arrived?)));
    if let Some((mark, noted)) = arrived {
        refuse_lost_log(data, recovered, noted)?;
        let done = usable(env, wal, &ready).map_err(OpenError::from).and_then(|position| {
            replace(disk, data, mark, position, &ready)?;
            Ok(position.index)
        });
        match done {
            Ok(index) => {
                forget_arrival(disk, data, data.divergence(disk)?);
                return Ok(index);
            }
            Err(error) => tracing::error!(
                %error, attempts = mark.attempts,
                "the others' state could not take the place of this member's: it goes on, and isn't served"
            ),
        }
    }
    forget_arrival(disk, data, mark);
    if let Err(error) = disk.remove(&ready) {
        tracing::warn!(%error, path = %ready.display(), "what came for healing could not be removed");
    }
    Ok(before)
}

/// What comes next is to be counted again. An error leaves it for the next start.
fn forget_arrival(disk: &dyn Disk, data: &DataDir, mark: Option<Divergence>) {
    if let Some(mark) = mark.filter(|mark| mark.arrived.is_some())
        && let Err(error) = data.note_divergence(disk, &Divergence { arrived: None, ..mark })
    {
        tracing::warn!(%error, "that what came for healing was dealt with could not be noted");
    }
}

/// A snapshot ahead of the log must not hide that the log's end was lost since it came, and votes with it.
fn refuse_lost_log(data: &DataDir, recovered: &Recovered, noted: LogEnd) -> Result<(), OpenError> {
    let last = recovered.last.map_or(RaftIndex(0), |id| id.index);
    let term = recovered.vote.as_deref().and_then(term_of_vote).unwrap_or_default();
    if !(LogEnd { last, term }).lacks(&noted) {
        return Ok(());
    }
    let log = data.wal().display().to_string();
    Err(OpenError::LogEndLost { log, had: noted.last, had_term: noted.term, last, term })
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
    data.note_divergence(disk, &Divergence { healed: Some(position.index), ..mark })?;
    let io = |error| OpenError::Store(StorageError::io("put aside", &store, error));
    // Made anew at each start: an empty one is none, and must not take the old one's place aside.
    let moves = !disk.list(&store).map_err(io)?.is_empty();
    let swap = || -> Result<(), OpenError> {
        if moves {
            make_dir_durably(disk, &store).map_err(io)?;
            tracing::warn!(aside = %aside.display(), "the store that differs is kept aside");
        }
        // They were made of it.
        rebuild::remove_all(disk, &snapshots)?;
        rebuild::rename(disk, ready, &rebuild::path_of(&snapshots, position.index))?;
        Ok(())
    };
    if moves {
        if disk.exists(&aside).map_err(io)? {
            disk.remove_dir(&aside).map_err(io)?;
        }
        disk.rename(&store, &aside).map_err(io)?;
    }
    swap().inspect_err(|_| {
        if let Err(error) = move_back(disk, data) {
            tracing::error!(%error, aside = %aside.display(), "nor could the old store be put back");
        }
    })
}

/// The old store back from where it was put aside; what lies in its place is a part of a new one at most. The snapshot
/// goes, as one that is ahead of the log would look as if that had lost its end.
fn move_back(disk: &dyn Disk, data: &DataDir) -> Result<(), StorageError> {
    let (store, aside) = (data.store(), data.diverged_store());
    let io = |error| StorageError::io("put back", &store, error);
    if !disk.exists(&aside).map_err(io)? {
        return Ok(());
    }
    if disk.exists(&store).map_err(io)? {
        disk.remove_dir(&store).map_err(io)?;
    }
    disk.rename(&aside, &store).map_err(io)?;
    disk.sync_dir(store.parent().unwrap_or(&store)).map_err(io)?;
    rebuild::remove_all(disk, &data.snapshots())
}

/// Undoes an installation whose snapshot could not be read into a store, as where there is no room for both: the
/// member goes on with the old store, which isn't served. False if there is no old one.
///
/// # Errors
/// Those of the disk.
pub(in crate::server) fn put_back(disk: &dyn Disk, data: &DataDir) -> Result<bool, OpenError> {
    let Some(mark) = data.divergence(disk)?.filter(|mark| mark.healed.is_some()) else { return Ok(false) };
    let aside = data.diverged_store();
    if !disk.exists(&aside).map_err(|error| OpenError::Store(StorageError::io("look for", &aside, error)))? {
        return Ok(false);
    }
    // As long as a healing is noted, the store isn't made anew of the log alone.
    move_back(disk, data)?;
    data.note_divergence(disk, &Divergence { healed: None, arrived: None, ..mark })?;
    Ok(true)
}

#[cfg(test)]
mod tests;
