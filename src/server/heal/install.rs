//! At a start: the snapshot that was fetched takes the place of the state that differs.
//!
//! ```text
//! healing.ready ─► noted? ─► log whole since then? ─► whole? fits the log? ─► mark: healed by it
//!               ─► store ─► store.diverged (a later try's: store.diverged.later) ─► own snapshots removed
//!               ─► <index>.snapshot ─► (open) an empty store, filled from it, then the log's entries after it
//! it can't be read in ─► mark: back ─► (the next start) the store from aside in its place again
//! ```
//! Killed anywhere, the next start finds either `healing.ready` and does it all again, or the mark that names the
//! snapshot, and a store that doesn't hold it yet. The mark stays until the new state was compared with the others'.

use std::path::Path;

use crate::consensus::peer::HEALING;
use crate::consensus::term_of_vote;
use crate::env::{Disk, Env, make_dir_durably};
use crate::ops::data_dir::{Aside, DataDir, DataDirError, Divergence, LogEnd};
use crate::server::open::OpenError;
use crate::server::rebuild;
use crate::storage::{AppliedPosition, snapshot};
use crate::types::{RaftIndex, StorageError, Term};
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
    if let Some(mark) = data.divergence(disk)?
        && let Some(aside) = mark.back
    {
        put_back(disk, data, mark, aside)?;
    }
    let mark = data.divergence(disk)?;
    if mark.is_none() {
        remove_later(disk, data);
    }
    let before = mark.and_then(|mark| mark.healed).unwrap_or_default();
    // One whose name can't be looked for is found by the next start, or by the healer.
    if !disk.exists(&ready).unwrap_or(false) {
        forget_arrival(disk, data, mark);
        return Ok(before);
    }
    let arrived = mark.filter(|_| enabled).and_then(|mark| Some((mark, mark.arrived?)));
    if let Some((mark, noted)) = arrived {
        refuse_lost_log(data, recovered, noted)?;
        let done = read(env, &ready).map_err(OpenError::from).and_then(|position| {
            fits(wal, position)?;
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
    let mark = data.divergence(disk)?;
    let before = mark.and_then(|mark| mark.healed).unwrap_or_default();
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

/// Notes how far the log and the vote are, so that the snapshot that was counted is taken in by the next start. Only once
/// Raft has ended: what it does after that would look as if the log had lost its end.
pub(in crate::server) fn note_arrival(
    disk: &dyn Disk,
    data: &DataDir,
    end: Option<(RaftIndex, Term)>,
) -> Result<(), DataDirError> {
    if let Some((last, term)) = end
        && let Some(mark) = data.divergence(disk)?
    {
        data.note_divergence(disk, &Divergence { arrived: Some(LogEnd { last, term }), ..mark })?;
    }
    Ok(())
}

/// Where the snapshot stands, if it is whole.
pub(super) fn read(env: &Env, ready: &Path) -> Result<AppliedPosition, StorageError> {
    let input = snapshot::open_snapshot(env, ready)?;
    let header = snapshot::read_snapshot(input, |_| Ok(())).map_err(|error| error.at(ready))?;
    Ok(header.position)
}

/// Whether the log goes on from there.
pub(super) fn fits(wal: &Wal, position: AppliedPosition) -> Result<(), StorageError> {
    let purged = wal.purged().map_or(RaftIndex(0), |id| id.index);
    let last = wal.last().map_or(RaftIndex(0), |id| id.index);
    let fits = if position.index > last {
        // Raft takes it as a snapshot that was installed, and drops the log before it.
        wal.last().is_none_or(|last| last.term <= position.term)
    } else {
        let same = wal.id_at(position.index).is_some_and(|id| id.term == position.term);
        position.index >= purged && (same || position.index == purged)
    };
    if fits { Ok(()) } else { Err(StorageError::Mismatch("the log doesn't go on after the snapshot".into())) }
}

/// Puts it in the store's place, or leaves the old one there.
fn replace(
    disk: &dyn Disk,
    data: &DataDir,
    mark: Divergence,
    position: AppliedPosition,
    ready: &Path,
) -> Result<(), OpenError> {
    // What was found to differ is what somebody wants to look at; of what took its place the newest is kept for a while.
    let which = if mark.kept { Aside::Later } else { Aside::First };
    let begun = Divergence { healed: Some(position.index), ..mark };
    let mut moved = false;
    let swapped = data
        .note_divergence(disk, &begun)
        .map_err(OpenError::from)
        .and_then(|()| swap(disk, data, begun, which, ready, &mut moved));
    swapped.inspect_err(|_| {
        let back = if moved { move_back(disk, data, which) } else { Ok(()) };
        let now = match back {
            Ok(()) => mark,
            Err(error) => {
                tracing::error!(%error, "nor could the old store be put back; the next start does it");
                Divergence { back: Some(which), ..begun }
            }
        };
        if let Err(error) = data.note_divergence(disk, &now) {
            tracing::warn!(%error, "that the old store stays could not be noted");
        }
    })
}

/// `moved` becomes true once the old store lies aside.
fn swap(
    disk: &dyn Disk,
    data: &DataDir,
    mark: Divergence,
    which: Aside,
    ready: &Path,
    moved: &mut bool,
) -> Result<(), OpenError> {
    let (store, aside, later) = (data.store(), data.diverged_store(which), data.diverged_store(Aside::Later));
    let io = |error| OpenError::Store(StorageError::io("put aside", &store, error));
    // Of an earlier divergence: it must not be taken for what this one has put aside.
    if !mark.kept && disk.exists(&later).map_err(io)? {
        disk.remove_dir(&later).map_err(io)?;
    }
    // Made anew at each start: an empty one is none, and must not take the old one's place aside.
    if disk.list(&store).map_err(io)?.is_empty() {
        *moved = disk.exists(&aside).map_err(io)?;
    } else {
        if disk.exists(&aside).map_err(io)? {
            disk.remove_dir(&aside).map_err(io)?;
        }
        disk.rename(&store, &aside).map_err(io)?;
        *moved = true;
        make_dir_durably(disk, &store).map_err(io)?;
        tracing::warn!(aside = %aside.display(), "the store that differs is kept aside");
    }
    if *moved && !mark.kept {
        data.note_divergence(disk, &Divergence { kept: true, ..mark })?;
    }
    // They were made of it.
    rebuild::remove_all(disk, &data.snapshots())?;
    let index = mark.healed.unwrap_or_default();
    rebuild::rename(disk, ready, &rebuild::path_of(&data.snapshots(), index))?;
    Ok(())
}

/// The old store back from where it was put aside; what lies in its place is a part of a new one at most. The snapshot
/// goes, as one that is ahead of the log would look as if that had lost its end.
fn move_back(disk: &dyn Disk, data: &DataDir, which: Aside) -> Result<(), StorageError> {
    let (store, aside) = (data.store(), data.diverged_store(which));
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

/// Whoever makes this member the only one has chosen its state: there is nobody left to differ from.
///
/// # Errors
/// Those of the disk.
pub(in crate::server) fn settle(disk: &dyn Disk, data: &DataDir) -> Result<(), DataDirError> {
    if let Some(mark) = data.divergence(disk)? {
        data.clear_divergence(disk)?;
        tracing::warn!(
            differed_at = %mark.index,
            "this member's state differed from the others', and --force-new-cluster makes it the only one: it is what \
             counts from now on"
        );
    }
    Ok(())
}

/// Has the next start undo an installation whose snapshot could not be read into a store, as where there is no room for
/// both: the member goes on with the old store then, which isn't served. Not in this process, whose engine may go on
/// writing in what took its place. False if there is no old one.
///
/// # Errors
/// Those of the disk.
pub(in crate::server) fn ask_back(disk: &dyn Disk, data: &DataDir) -> Result<bool, OpenError> {
    let Some(mark) = data.divergence(disk)?.filter(|mark| mark.healed.is_some()) else { return Ok(false) };
    let is_there = |which| {
        let aside = data.diverged_store(which);
        disk.exists(&aside).map_err(|error| OpenError::Store(StorageError::io("look for", &aside, error)))
    };
    let which = if mark.kept && is_there(Aside::Later)? { Aside::Later } else { Aside::First };
    if !is_there(which)? {
        return Ok(false);
    }
    data.note_divergence(disk, &Divergence { back: Some(which), ..mark })?;
    Ok(true)
}

/// Does it. As long as it is noted, it is done again; where the store is in its place already, what is left of it.
fn put_back(disk: &dyn Disk, data: &DataDir, mark: Divergence, which: Aside) -> Result<(), OpenError> {
    move_back(disk, data, which)?;
    rebuild::remove_all(disk, &data.snapshots())?;
    let kept = mark.kept && which == Aside::Later;
    data.note_divergence(disk, &Divergence { healed: None, arrived: None, back: None, kept, ..mark })?;
    tracing::warn!("the state that differs is in its place again, and isn't served");
    Ok(())
}

/// What took the place of a state that differed, and differed, too, is of no use once the member is healed.
pub(super) fn remove_later(disk: &dyn Disk, data: &DataDir) {
    let later = data.diverged_store(Aside::Later);
    if disk.exists(&later).unwrap_or(false)
        && let Err(error) = disk.remove_dir(&later)
    {
        tracing::warn!(%error, path = %later.display(), "a store that was put aside could not be removed");
    }
}

#[cfg(test)]
mod tests;
