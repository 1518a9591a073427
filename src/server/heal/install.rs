//! At a start: the snapshot that was fetched takes the place of the state that differs.
//!
//! ```text
//! healing.ready ─► noted? ─► log whole since then? ─► whole? fits the log? ─► stores of earlier tries go
//!   ─► mark: healed by it, under way ─► store ─► store.diverged (a later try's: store.diverged.later)
//!   ─► <index>.snapshot ─► own snapshots removed ─► mark: not under way any more
//!   ─► (open) an empty store, filled from it, then the log's entries after it
//! an error, or a start that must not heal ─► finished if the snapshot has its name, else undone: the store moves back
//! it can't be read in ─► mark: back ─► (the next start) the store from aside in its place again
//! ```
//! Killed anywhere, the next start finds `healing.ready` and goes on; or the mark that says that it is under way, and sees
//! in the directory how far it is; or the mark that names the snapshot, and a store that doesn't hold it yet. The mark stays
//! until the new state was compared with the others'.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::consensus::peer::HEALING;
use crate::consensus::term_of_vote;
use crate::env::{Access, Disk, Env, Spread, make_dir_durably};
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
    // One whose name can't be looked for is found by the next start, or by the healer.
    if let Some(mark) = mark.filter(|_| enabled)
        && let Some(noted) = mark.arrived
        && disk.exists(&ready).unwrap_or(false)
    {
        refuse_lost_log(data, recovered, noted)?;
        let done = read(env, &ready).map_err(OpenError::from).and_then(|position| {
            fits(wal, position)?;
            replace(disk, data, mark, position, &ready)
        });
        if let Err(error) = done {
            tracing::error!(
                %error, attempts = mark.attempts,
                "the others' state could not take the place of this member's at once"
            );
        }
    }
    finish_or_undo(disk, data, &ready)?;
    let mark = data.divergence(disk)?;
    forget_arrival(disk, data, mark);
    // What is under way is settled, so that nobody needs it any more.
    if disk.exists(&ready).unwrap_or(false)
        && let Err(error) = disk.remove(&ready)
    {
        tracing::warn!(%error, path = %ready.display(), "what came for healing could not be removed");
    }
    Ok(mark.and_then(|mark| mark.healed).unwrap_or_default())
}

/// What comes next is to be counted again. An error leaves it for the next start.
fn forget_arrival(disk: &dyn Disk, data: &DataDir, mark: Option<Divergence>) {
    if let Some(mark) = mark.filter(|mark| mark.arrived.is_some())
        && let Err(error) = data.note_divergence(disk, &mark.dealt_with())
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

/// Counts a snapshot that is to be taken in by the next start: as a try, and its time once (`is_timed`), however often the
/// rest has to be done again.
pub(super) fn count(
    disk: &dyn Disk,
    data: &DataDir,
    now: SystemTime,
    mark: &Divergence,
    is_timed: &mut bool,
) -> Result<(), DataDirError> {
    if !*is_timed {
        data.note_healing(disk, now)?;
        *is_timed = true;
    }
    data.note_divergence(disk, &mark.counted())
}

/// Where the snapshot stands, if it is whole. Beside a member that runs, it gives way to everything else.
pub(super) fn read(env: &Env, ready: &Path) -> Result<AppliedPosition, StorageError> {
    snapshot::read_through(env, ready, Spread::Pool, |_| Ok(())).map(|header| header.position)
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

/// Where this try puts the store that it replaces: what was found to differ is what somebody wants to look at, and of what
/// took its place the newest is kept for a while.
fn aside_of(mark: Divergence) -> Aside {
    if mark.kept { Aside::Later } else { Aside::First }
}

/// Puts it in the store's place. After an error [`finish_or_undo`] sees to the rest.
fn replace(
    disk: &dyn Disk,
    data: &DataDir,
    mark: Divergence,
    position: AppliedPosition,
    ready: &Path,
) -> Result<(), OpenError> {
    let begun = Divergence { healed: Some(position.index), swapping: true, unread: false, ..mark };
    if !mark.swapping {
        // What lies aside from now on was put there by this try.
        if !mark.kept {
            discard(disk, data, Aside::First)?;
        }
        discard(disk, data, Aside::Later)?;
    }
    if begun != mark {
        data.note_divergence(disk, &begun)?;
    }
    let (store, aside) = (data.store(), data.diverged_store(aside_of(begun)));
    let io = |error| StorageError::io("put aside", &store, error);
    if !is_empty(disk, &store).map_err(io)? {
        disk.rename(&store, &aside).map_err(io)?;
        make_dir_durably(disk, &store).map_err(io)?;
        tracing::warn!(aside = %aside.display(), "the store that differs is kept aside");
    }
    rebuild::rename(disk, ready, &rebuild::path_of(&data.snapshots(), position.index))?;
    finish(disk, data, begun)
}

/// The last steps, once the snapshot has its name.
fn finish(disk: &dyn Disk, data: &DataDir, begun: Divergence) -> Result<(), OpenError> {
    let aside = data.diverged_store(aside_of(begun));
    let is_kept = disk.exists(&aside).map_err(|error| StorageError::io("look for", &aside, error))?;
    // They were made of what is aside now.
    let snapshot = rebuild::path_of(&data.snapshots(), begun.healed.unwrap_or_default());
    rebuild::remove_all_but(disk, &data.snapshots(), Some(&snapshot))?;
    let done = Divergence { swapping: false, kept: begun.kept || is_kept, unread: true, ..begun };
    data.note_divergence(disk, &done)?;
    Ok(())
}

/// What is under way all the same is finished if the snapshot has its name; else the old store is in its place again, and
/// nothing has replaced it.
fn finish_or_undo(disk: &dyn Disk, data: &DataDir, ready: &Path) -> Result<(), OpenError> {
    let Some(begun) = data.divergence(disk)?.filter(|mark| mark.swapping) else { return Ok(()) };
    let snapshot = rebuild::path_of(&data.snapshots(), begun.healed.unwrap_or_default());
    let look = |path: &Path| disk.exists(path).map_err(|error| StorageError::io("look for", path, error));
    let is_moved = is_empty(disk, &data.store()).map_err(|error| StorageError::io("look into", data.store(), error))?;
    if is_moved && !look(ready)? && look(&snapshot)? {
        return finish(disk, data, begun);
    }
    if is_moved {
        move_back(disk, data, aside_of(begun))?;
    }
    data.note_divergence(disk, &Divergence { healed: None, swapping: false, ..begun })?;
    tracing::warn!("this member goes on with the state that differs, which isn't served");
    Ok(())
}

/// Made anew at each start: an empty one is none, and must not take the old one's place aside.
fn is_empty(disk: &dyn Disk, dir: &Path) -> io::Result<bool> {
    Ok(!disk.exists(dir)? || disk.list(dir)?.is_empty())
}

/// Removes a store that was put aside, so that nobody ever takes a part of it for one.
fn discard(disk: &dyn Disk, data: &DataDir, which: Aside) -> Result<(), StorageError> {
    let (aside, gone) = (data.diverged_store(which), data.discarded_store());
    let io = |error| StorageError::io("remove", &aside, error);
    if disk.exists(&gone).map_err(io)? {
        disk.remove_dir(&gone).map_err(io)?;
    }
    if disk.exists(&aside).map_err(io)? {
        disk.rename(&aside, &gone).map_err(io)?;
        disk.sync_dir(gone.parent().unwrap_or(&gone)).map_err(io)?;
        disk.remove_dir(&gone).map_err(io)?;
    }
    Ok(())
}

/// The old store back from where it was put aside; what lies in its place is a part of a new one at most.
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
    disk.sync_dir(store.parent().unwrap_or(&store)).map_err(io)
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
/// both (`is_full`: then it doesn't count as a try): the member goes on with the old store then, which isn't served. Not in
/// this process, whose engine may go on writing in what took its place. False if there is no old one, or if the snapshot was
/// read in by an earlier start: the old store is of long ago then, and the log may be purged beyond it.
///
/// # Errors
/// Those of the disk.
pub(in crate::server) fn ask_back(disk: &dyn Disk, data: &DataDir, is_full: bool) -> Result<bool, OpenError> {
    let Some(mark) = data.divergence(disk)?.filter(|mark| mark.healed.is_some() && mark.unread) else {
        return Ok(false);
    };
    let is_there = |which| {
        let aside = data.diverged_store(which);
        disk.exists(&aside).map_err(|error| OpenError::Store(StorageError::io("look for", &aside, error)))
    };
    let which = if mark.kept && is_there(Aside::Later)? { Aside::Later } else { Aside::First };
    if !is_there(which)? {
        return Ok(false);
    }
    let attempts = mark.attempts.saturating_sub(u32::from(is_full));
    data.note_divergence(disk, &Divergence { back: Some(which), attempts, ..mark })?;
    if is_full && let Err(error) = data.note_healing_full(disk) {
        // It counts as one that has replaced the state, so that tries come to an end all the same.
        tracing::warn!(%error, "that there was no room for the others' state could not be noted");
    }
    Ok(true)
}

/// The snapshot that has taken the state's place is in the store: from now on it goes on from there.
pub(in crate::server) fn note_read(disk: &dyn Disk, data: &DataDir) {
    let noted = data.divergence(disk).and_then(|mark| match mark.filter(|mark| mark.unread) {
        Some(mark) => data.note_divergence(disk, &Divergence { unread: false, ..mark }),
        None => Ok(()),
    });
    if let Err(error) = noted {
        tracing::warn!(%error, "that the state which heals this member was read in could not be noted; it will be");
    }
}

/// Bytes that have to be free to read a snapshot of so many into a store of its own, while the old one lies aside. An engine
/// takes up to half as much again; where that wasn't enough lately, so many times (`full`), as much more each time.
pub(super) fn needed(snapshot: u64, full: usize) -> u64 {
    snapshot.saturating_add(snapshot / 2).saturating_mul((full as u64).saturating_add(1))
}

/// Bytes that come free before: of this member's own snapshots, and of what earlier tries have put aside.
///
/// # Errors
/// Those of the disk.
pub(super) fn freed(disk: &dyn Disk, data: &DataDir, mark: &Divergence) -> Result<u64, OpenError> {
    let mut files = rebuild::files(disk, &data.snapshots())?;
    let asides = [(Aside::First, !mark.kept), (Aside::Later, true)].into_iter().filter(|(_, goes)| *goes);
    for dir in asides.map(|(which, _)| data.diverged_store(which)).chain([data.discarded_store()]) {
        let io = |error| StorageError::io("look into", &dir, error);
        if disk.exists(&dir).map_err(io)? {
            files.extend(disk.list(&dir).map_err(io)?.into_iter().map(|name| dir.join(name)));
        }
    }
    // What can't be opened counts for nothing.
    let size = |path: &PathBuf| disk.open(path, Access::Read).and_then(|file| file.size()).unwrap_or_default();
    Ok(files.iter().map(size).sum())
}

/// Does it. As long as it is noted, it is done again; where the store is in its place already, what is left of it.
fn put_back(disk: &dyn Disk, data: &DataDir, mark: Divergence, which: Aside) -> Result<(), OpenError> {
    move_back(disk, data, which)?;
    // One that is ahead of the log would look as if that had lost its end.
    rebuild::remove_all_but(disk, &data.snapshots(), None)?;
    let kept = mark.kept && which == Aside::Later;
    let back = Divergence { healed: None, swapping: false, arrived: None, back: None, unread: false, kept, ..mark };
    data.note_divergence(disk, &back)?;
    tracing::warn!("the state that differs is in its place again, and isn't served");
    Ok(())
}

/// What took the place of a state that differed, and differed, too, is of no use once the member is healed.
pub(super) fn remove_later(disk: &dyn Disk, data: &DataDir) {
    if let Err(error) = discard(disk, data, Aside::Later) {
        tracing::warn!(%error, "a store that was put aside could not be removed");
    }
}

#[cfg(test)]
mod tests;
