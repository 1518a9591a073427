//! Snapshot files: written for later, and the store rebuilt from the newest whole one.
//!
//! ```text
//! save:    pin (nothing is removed) ─► freeze (flushed, as of a position) ─► <index>.snapshot ─► older ones removed
//! rebuild: newest whole file ─► items ─► Store::install
//! install: a file from another member ─► items ─► Store::install ─► its lasting name
//! ```
//!
//! Two files are kept: should the newer one turn out to be damaged, the log still begins at or
//! before the older one only if nothing was purged since; a gap is then noticed and named.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::consensus::peer::installed_name;
use crate::consensus::{COPIED_KEY, Load, Save, SavedSnapshot};
use crate::env::{Disk, Env, Spread, gently_once};
use crate::storage::backend::BackendConfig;
use crate::storage::snapshot::{self, SaveTimes, SnapshotHeader, SnapshotItem};
use crate::storage::{Opened, Store, StoreReader, Table};
use crate::types::{RaftIndex, StorageError};

/// Ending of snapshot files; the name is the entry's index in 16 hexadecimal digits.
const ENDING: &str = ".snapshot";
/// Snapshot files that are kept.
const KEPT: usize = 2;

/// What a snapshot leaves free for the log.
const LOG_RESERVE_BYTES: u64 = BackendConfig::RESERVE_BYTES_DEFAULT / 4;

/// Where the snapshot after entry `index` lies.
pub(super) fn path_of(dir: &Path, index: RaftIndex) -> PathBuf {
    dir.join(format!("{:016x}{ENDING}", index.get()))
}

/// Writes snapshots below `dir`.
pub(super) fn save(env: Env, reader: StoreReader, dir: PathBuf) -> Save {
    save_noting(env, reader, dir, |_| ())
}

/// The same; what took how long is told to `note`.
pub(super) fn save_noting(
    env: Env,
    reader: StoreReader,
    dir: PathBuf,
    note: impl Fn(SaveTimes) + Send + Sync + 'static,
) -> Save {
    Box::new(move || {
        // Held until the file is whole: what it reads must not be compacted away meanwhile.
        check_room(&env, &dir, reader.logical_size())?;
        let pinned = reader.snapshot_pinned();
        let frozen = futures::executor::block_on(reader.values().freeze())?;
        let path = path_of(&dir, frozen.position.index);
        let (header, times) = snapshot::save_snapshot(&env, &frozen, reader.values(), &path)?;
        note(times);
        drop(pinned);
        remove_older(&env, &dir)?;
        Ok(saved(header, path))
    })
}

/// Whether a snapshot of `bytes`, which is never larger than what it is of, leaves what the log needs to go on. That is
/// less than what writes leave: a snapshot is what the log is purged by, and so makes room.
fn check_room(env: &Env, dir: &Path, bytes: u64) -> Result<(), StorageError> {
    match env.disk.free_bytes(dir) {
        Ok(free) if free < bytes.saturating_add(LOG_RESERVE_BYTES) => Err(StorageError::Full { path: dir.to_owned() }),
        // A disk that can't be asked says so when it is written to.
        _ => Ok(()),
    }
}

/// Reads snapshots that Raft wants installed.
pub(super) fn load(env: Env) -> Load {
    Box::new(move |store, path| {
        let opened = install(&env, store, path)?;
        if let Some(lasting) = installed_name(path) {
            rename(env.disk.as_ref(), path, &lasting)?;
        }
        Ok(opened)
    })
}

/// Gives a file another name, durably.
pub(super) fn rename(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), StorageError> {
    disk.rename(from, to).map_err(|error| StorageError::io("rename", from, error))?;
    let dir = to.parent().unwrap_or(to);
    disk.sync_dir(dir).map_err(|error| StorageError::io("sync", dir, error))
}

/// Gives a snapshot that came from another member its lasting name, if the store at entry `have` was made
/// of it just before a crash. Others that came in and were not installed mean nothing.
///
/// # Errors
/// The disk's.
pub(super) fn finish_received(env: &Env, dir: &Path, have: RaftIndex) -> Result<(), StorageError> {
    for name in env.disk.list(dir).map_err(|error| StorageError::io("list", dir, error))? {
        let path = dir.join(name);
        let Some(lasting) = installed_name(&path) else { continue };
        let is_installed = header(env, &path).is_ok_and(|header| header.position.index == have);
        if is_installed {
            rename(env.disk.as_ref(), &path, &lasting)?;
        }
    }
    Ok(())
}

fn saved(header: SnapshotHeader, path: PathBuf) -> SavedSnapshot {
    SavedSnapshot { position: header.position, membership: header.membership, path }
}

/// Snapshot files, the newest first.
pub(super) fn files(disk: &dyn Disk, dir: &Path) -> Result<Vec<PathBuf>, StorageError> {
    let names = disk.list(dir).map_err(|error| StorageError::io("list", dir, error))?;
    let is_ours = |name: &OsString| name.to_str().is_some_and(|name| name.ends_with(ENDING));
    let mut names: Vec<_> = names.into_iter().filter(is_ours).collect();
    names.sort_unstable();
    Ok(names.into_iter().rev().map(|name| dir.join(name)).collect())
}

fn remove_older(env: &Env, dir: &Path) -> Result<(), StorageError> {
    for path in files(env.disk.as_ref(), dir)?.iter().skip(KEPT) {
        env.disk.remove(path).map_err(|error| StorageError::io("remove", path, error))?;
    }
    Ok(())
}

/// Removes a snapshot, durably.
pub(super) fn remove(disk: &dyn Disk, path: &Path) -> Result<(), StorageError> {
    disk.remove(path).map_err(|error| StorageError::io("remove", path, error))?;
    let dir = path.parent().unwrap_or(path);
    disk.sync_dir(dir).map_err(|error| StorageError::io("sync", dir, error))
}

/// Removes all snapshots but one, durably; what was renamed there lasts, too.
pub(super) fn remove_all_but(disk: &dyn Disk, dir: &Path, kept: Option<&Path>) -> Result<(), StorageError> {
    for path in files(disk, dir)?.into_iter().filter(|path| Some(path.as_path()) != kept) {
        disk.remove(&path).map_err(|error| StorageError::io("remove", &path, error))?;
    }
    disk.sync_dir(dir).map_err(|error| StorageError::io("sync", dir, error))
}

/// The newest snapshot whose header can be read; the rest of it is checked when it is needed.
///
/// What a crash left unfinished is removed first, and the names that are left are made to last: the log is purged
/// by what is found here, and a process killed before it synced the directory leaves a name that a power cut takes.
///
/// # Errors
/// The directory can't be listed or synced, or something in it not removed.
pub(super) fn newest(env: &Env, dir: &Path) -> Result<Option<SavedSnapshot>, StorageError> {
    for name in env.disk.list(dir).map_err(|error| StorageError::io("list", dir, error))? {
        if name.to_str().is_some_and(|name| name.ends_with(".tmp")) {
            let path = dir.join(name);
            env.disk.remove(&path).map_err(|error| StorageError::io("remove", path, error))?;
        }
    }
    env.disk.sync_dir(dir).map_err(|error| StorageError::io("sync", dir, error))?;
    for path in files(env.disk.as_ref(), dir)? {
        match header(env, &path) {
            Ok(header) => return Ok(Some(saved(header, path))),
            Err(error) => tracing::warn!(%error, "a snapshot can't be read; looking for an older one"),
        }
    }
    Ok(None)
}

/// Leaves out a snapshot that ends before the log begins, as when the newer one can't be read: whoever got it would
/// lack what is between. Without one, Raft has a new one written at its start.
pub(super) fn reaching(newest: Option<SavedSnapshot>, purged: RaftIndex) -> Option<SavedSnapshot> {
    let (usable, short) = match newest {
        Some(newest) if newest.position.index < purged => (None, Some(newest.path)),
        newest => (newest, None),
    };
    if let Some(path) = short {
        tracing::warn!(path = %path.display(), %purged, "the newest snapshot that can be read ends before the log begins");
    }
    usable
}

fn header(env: &Env, path: &Path) -> Result<SnapshotHeader, StorageError> {
    let input = snapshot::open_snapshot(env, path)?;
    snapshot::read_header(input).map_err(|error| error.at(path))
}

/// What came of a search for a snapshot that can be read in.
pub(super) enum Rebuilt {
    /// The store holds what it says.
    Of(Opened),
    /// Nothing was changed. The error, if there is one, is of the kind that passes: what could not be read in may be of use
    /// later.
    No(Option<StorageError>),
}

/// Puts the state of the newest whole snapshot in place of what the store holds.
///
/// # Errors
/// The directory can't be listed.
pub(super) fn from_snapshot(env: &Env, store: &mut Store, dir: &Path) -> Result<Rebuilt, StorageError> {
    let mut passing = None;
    for path in files(env.disk.as_ref(), dir)? {
        match install(env, store, &path) {
            Ok(opened) => {
                tracing::info!(path = %path.display(), index = opened.position.index.get(), "rebuilt the store");
                return Ok(Rebuilt::Of(opened));
            }
            Err(error) => {
                tracing::warn!(%error, "a snapshot is of no use; looking for an older one");
                let passes = matches!(error, StorageError::Full { .. } | StorageError::Io { .. });
                passing = passing.or(passes.then_some(error));
            }
        }
    }
    Ok(Rebuilt::No(passing))
}

/// Reads a file and puts its state in place of the store's, beside everything else that runs: whoever serves meanwhile
/// hardly notices. Only the last step, in which the state is exchanged, doesn't give way. In one step with it is noted that
/// the state was read in: it is another one than the one that its lineage tells of, from there on.
pub(super) fn install(env: &Env, store: &mut Store, path: &Path) -> Result<Opened, StorageError> {
    let clock = &*env.clock;
    // What isn't one at all is refused before anything is begun.
    header(env, path)?;
    let mut installation = store.begin_install()?;
    installation.add(SnapshotItem::Row(Table::Meta, Bytes::from_static(COPIED_KEY), Bytes::from_static(b"1")))?;
    let read = snapshot::read_through(env, path, Spread::Here, |item| match item {
        // Each row once, and this one is there already.
        SnapshotItem::Row(Table::Meta, key, _) if key == COPIED_KEY => Ok(()),
        item => installation.add(item),
    })?;
    let position = read.position;
    gently_once(clock, Spread::Here, || installation.seal(position))?;
    let prepared = gently_once(clock, Spread::Pool, || installation.prepare(position))?;
    store.finish_install(prepared)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::env::{Access, CrashStyle, MemDisk};
    use crate::storage::{AppliedPosition, StoreReader};
    use crate::types::Term;

    /// etcd 18055. Cause: the second of two snapshots that came shortly after each other had the file of the first
    /// cleared away, which was still to be read. Symptom: a panic, and at every start again. Here each is read from a file
    /// of its own, and what is called the newest can be read whenever it is asked for.
    #[test]
    fn issue_18055_two_snapshots_in_quick_succession() {
        let env = Env { disk: Arc::new(MemDisk::new()), ..Env::real() };
        let dir = Path::new("/snap");
        env.disk.create_dir_all(dir).expect("a directory");
        let mut source = Store::in_memory();
        let mut received = Vec::new();
        for index in [17, 18] {
            let mut txn = source.begin();
            txn.put("k".into(), index.to_string().into(), crate::types::LeaseId::NONE);
            txn.commit();
            source.publish(AppliedPosition { index: RaftIndex(index), term: Term(1) }).expect("published");
            let saved = save(env.clone(), source.reader(), dir.to_owned())().expect("saved");
            let name = saved.path.file_stem().and_then(|name| name.to_str()).expect("a name").to_owned();
            let path = dir.join(format!("{name}-{index:x}.received.tmp"));
            env.disk.rename(&saved.path, &path).expect("as it comes from another member");
            received.push(path);
        }
        let mut store = Store::in_memory();
        let load = load(env.clone());
        for (path, index) in received.iter().zip([17, 18]) {
            assert_eq!(load(&mut store, path).expect("its file is there").position.index, RaftIndex(index));
            let again = from_snapshot(&env, &mut Store::in_memory(), dir).expect("listed");
            assert!(
                matches!(again, Rebuilt::Of(opened) if opened.position.index == RaftIndex(index)),
                "it can be read"
            );
        }
        let found = newest(&env, dir).expect("listed").expect("two were installed");
        assert_eq!(found.position.index, RaftIndex(18));
    }

    /// Cause: why a snapshot could not be read in was only said. Symptom: an error that passes, as of a full disk, was one for
    /// good: an old store was put back, or the member was to be removed.
    #[test]
    fn what_may_be_of_use_later_is_told_from_what_never_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let (env, dir) = (Env::real(), dir.path());
        let search = || from_snapshot(&env, &mut Store::in_memory(), dir).expect("listed");
        assert!(matches!(search(), Rebuilt::No(None)));
        let junk = env.disk.open(&path_of(dir, RaftIndex(5)), Access::CreateNew).expect("made");
        junk.write_at(&[7; 10_000], 0).expect("written");
        assert!(matches!(search(), Rebuilt::No(None)));
        // The disk doesn't read it.
        env.disk.create_dir_all(&path_of(dir, RaftIndex(4))).expect("made");
        assert!(matches!(search(), Rebuilt::No(Some(StorageError::Io { .. }))));
    }

    #[test]
    fn no_snapshot_takes_the_room_that_the_log_needs() {
        let disk = MemDisk::new();
        let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
        let dir = Path::new("/snap");
        env.disk.create_dir_all(dir).expect("a directory");
        let mut store = Store::in_memory();
        let mut txn = store.begin();
        txn.put("k".into(), vec![0; 1 << 20].into(), crate::types::LeaseId::NONE);
        txn.commit();
        store.publish(AppliedPosition { index: RaftIndex(7), term: Term(1) }).expect("published");
        let save_with = |free| {
            disk.set_capacity(Some(free));
            save(env.clone(), store.reader(), dir.to_owned())().map(drop)
        };
        let needed = store.reader().logical_size() + LOG_RESERVE_BYTES;
        assert!(matches!(save_with(needed - 1), Err(StorageError::Full { .. })));
        save_with(needed).expect("there is room");
    }

    /// Cause: whether a state was read in was known only to the process that did it. Symptom: after a kill it passed for one
    /// that went on from where its lineage says. The row that says it comes in with the state, and once.
    #[test]
    fn a_state_that_is_read_in_says_so() {
        let env = Env { disk: Arc::new(MemDisk::new()), ..Env::real() };
        let dir = Path::new("/snap");
        env.disk.create_dir_all(dir).expect("a directory");
        let mut source = Store::in_memory();
        source.publish(AppliedPosition { index: RaftIndex(7), term: Term(1) }).expect("published");
        let says = |store: &Store| store.reader().snapshot().rows().get(Table::Meta, COPIED_KEY).is_some();
        assert!(!says(&source));
        for _ in 0..2 {
            let saved = save(env.clone(), source.reader(), dir.to_owned())().expect("saved");
            let mut copy = Store::in_memory();
            install(&env, &mut copy, &saved.path).expect("read in");
            assert!(says(&copy));
            // Also of one that was saved before its member took it over.
            source = copy;
        }
    }

    /// Seed 910057 of the simulation: a process was killed between the rename and the sync, the next one purged
    /// the log by the file that it found, and the power cut after that took the file's name.
    #[test]
    fn a_snapshot_that_was_found_stays() {
        let disk = MemDisk::new();
        let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
        let dir = Path::new("/snap");
        env.disk.create_dir_all(dir).expect("a directory");
        let mut store = Store::in_memory();
        let position = AppliedPosition { index: RaftIndex(7), term: Term(1) };
        store.install::<StorageError>(position, std::iter::empty()).expect("installed");
        let reader: StoreReader = store.reader();
        let saved = save(env.clone(), reader, dir.to_owned())().expect("saved");
        let later = path_of(dir, RaftIndex(9));
        env.disk.rename(&saved.path, &later).expect("renamed");

        let found = newest(&env, dir).expect("listed").map(|found| found.path);
        assert_eq!(found, Some(later));
        disk.crash(CrashStyle::LoseAll);
        let again = newest(&env, dir).expect("listed").map(|found| found.path);
        assert_eq!(again, found);

        // Seed 24: the newest couldn't be opened, and the one before it ended before the log began.
        let usable = |purged| reaching(newest(&env, dir).expect("listed"), RaftIndex(purged)).is_some();
        assert!(usable(7) && !usable(8), "it is after entry 7, whatever its name says");
    }
}
