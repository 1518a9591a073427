//! A disk in memory that forgets what was not synced and fails on demand.
//!
//! ```text
//! write ─► live bytes + dirty sectors ── sync ──► durable bytes
//! names ─► live names + pending changes ─ sync_dir ─► durable names
//! crash: every file falls back to its durable bytes (and, torn, to some of its dirty sectors),
//!        every directory to its durable names (and, torn, to the first few pending changes);
//!        handles from before the crash are dead
//! ```
//!
//! After a failed sync the dirty sectors count as clean though they were not written, as the Linux
//! page cache has it: a second sync succeeds and saves nothing.

mod file;
mod inode;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::{Access, Disk, DiskFile};
use super::rng::Rng;
use super::sectors::Direct;
use file::MemFile;
use inode::{Inode, SECTOR};

const ENOSPC: i32 = 28;

/// Operations that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskOp {
    /// `open`
    Open,
    /// `read_at`
    Read,
    /// `write_at`; the first half of the bytes is written all the same.
    Write,
    /// `allocate`
    Allocate,
    /// `sync_data` and `sync_all`
    Sync,
    /// `rename`
    Rename,
    /// `hard_link`
    Link,
    /// `remove`
    Remove,
    /// `sync_dir`
    SyncDir,
}

/// What is left of the work that was not synced.
#[derive(Clone, Copy, Debug)]
pub enum CrashStyle<'a> {
    /// Nothing.
    LoseAll,
    /// All of it: the process was killed, the machine lives.
    KeepAll,
    /// A random part, sector by sector.
    Torn(&'a dyn Rng),
}

type FileId = u64;

#[derive(Clone, Debug)]
enum NameChange {
    Set(PathBuf, FileId),
    Unset(PathBuf),
    Move(PathBuf, PathBuf, FileId),
}

#[derive(Debug, Default)]
struct State {
    inodes: BTreeMap<FileId, Inode>,
    names: BTreeMap<PathBuf, FileId>,
    durable_names: BTreeMap<PathBuf, FileId>,
    pending_names: Vec<NameChange>,
    dirs: BTreeSet<PathBuf>,
    locked: BTreeSet<FileId>,
    next_id: FileId,
    boot: u64,
    capacity: Option<u64>,
    is_cached_only: bool,
    counts: BTreeMap<DiskOp, u64>,
    faults: BTreeMap<(DiskOp, u64), i32>,
}

/// The disk; clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemDisk(Arc<Mutex<State>>);

impl MemDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the disk hold this many bytes at most; `None` for no bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.lock().capacity = bytes;
    }

    /// Has no handle whose writes go past the page cache, as some file systems.
    pub fn set_cached_only(&self) {
        self.0.lock().is_cached_only = true;
    }

    /// Makes the operation fail that is `after` ones of its kind away (0 is the next), with this errno.
    pub fn fail(&self, op: DiskOp, after: u64, errno: i32) {
        let mut state = self.0.lock();
        let at = state.counts.get(&op).copied().unwrap_or(0) + after;
        state.faults.insert((op, at), errno);
    }

    /// Lets nothing fail that was to and hasn't yet.
    pub fn forgive(&self) {
        self.0.lock().faults.clear();
    }

    /// How many operations of this kind were tried.
    pub fn count(&self, op: DiskOp) -> u64 {
        self.0.lock().counts.get(&op).copied().unwrap_or(0)
    }

    /// Ends every open handle and drops unsynced work.
    pub fn crash(&self, style: CrashStyle<'_>) {
        let mut state = self.0.lock();
        let state = &mut *state;
        state.boot += 1;
        state.locked.clear();
        state.faults.clear();
        for inode in state.inodes.values_mut() {
            inode.crash(style);
        }
        let kept = match style {
            CrashStyle::LoseAll => 0,
            CrashStyle::KeepAll => return,
            CrashStyle::Torn(rng) => pick(rng, state.pending_names.len() + 1),
        };
        for change in state.pending_names.drain(..).take(kept) {
            change.apply(&mut state.durable_names);
        }
        state.names = state.durable_names.clone();
        state.forget_nameless();
    }

    /// The bytes of a file as a reader sees them now.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.0.lock();
        Some(state.inodes[state.names.get(path)?].live.clone())
    }

    /// Replaces a file's bytes, durably: damage by hand.
    pub fn set_bytes(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.0.lock();
        let state = &mut *state;
        let id = *state.names.entry(path.to_owned()).or_insert_with(|| {
            state.next_id += 1;
            state.next_id
        });
        state.durable_names.insert(path.to_owned(), id);
        state.inodes.insert(id, Inode::durable(bytes));
    }

    /// A second disk with the same contents and no handles, for tries that must not touch the first.
    pub fn fork(&self) -> Self {
        let state = self.0.lock();
        Self(Arc::new(Mutex::new(State {
            inodes: state.inodes.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            pending_names: state.pending_names.clone(),
            dirs: state.dirs.clone(),
            next_id: state.next_id,
            is_cached_only: state.is_cached_only,
            ..State::default()
        })))
    }
}

/// A number below `bound`, which is above 0.
fn pick(rng: &dyn Rng, bound: usize) -> usize {
    usize::try_from(rng.next_u64() % bound as u64).unwrap_or(0)
}

impl NameChange {
    fn apply(self, names: &mut BTreeMap<PathBuf, FileId>) {
        match self {
            Self::Set(path, id) => {
                names.insert(path, id);
            }
            Self::Unset(path) => {
                names.remove(&path);
            }
            Self::Move(from, to, id) => {
                names.remove(&from);
                names.insert(to, id);
            }
        }
    }

    fn is_in(&self, dir: &Path) -> bool {
        let (Self::Set(path, _) | Self::Unset(path) | Self::Move(_, path, _)) = self;
        path.parent() == Some(dir)
    }
}

impl State {
    /// Counts an operation and gives its fault, if one was planted.
    fn enter(&mut self, op: DiskOp) -> io::Result<()> {
        let count = self.counts.entry(op).or_insert(0);
        let at = *count;
        *count += 1;
        self.faults.remove(&(op, at)).map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }

    /// A file that has lost its last name takes no room, though an open handle still reads it.
    fn used(&self) -> u64 {
        let named: BTreeSet<FileId> = self.names.values().copied().collect();
        named.iter().map(|id| self.inodes[id].live.len() as u64).sum()
    }

    fn make_room(&self, more: usize) -> io::Result<()> {
        match self.capacity {
            // What is there already may be written over on the fullest disk.
            Some(capacity) if more > 0 && self.used() + more as u64 > capacity => {
                Err(io::Error::from_raw_os_error(ENOSPC))
            }
            _ => Ok(()),
        }
    }

    fn forget_nameless(&mut self) {
        let mut named: BTreeSet<FileId> = self.names.values().chain(self.durable_names.values()).copied().collect();
        for change in &self.pending_names {
            if let NameChange::Set(_, id) | NameChange::Move(_, _, id) = change {
                named.insert(*id);
            }
        }
        self.inodes.retain(|id, _| named.contains(id));
    }

    fn change(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.pending_names.push(change);
    }
}

impl Disk for MemDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.dirs.extend(dir.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.enter(DiskOp::Open)?;
        let known = state.names.get(path).copied();
        let id = match (known, access) {
            (Some(_), Access::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(id), _) => id,
            (None, Access::Read | Access::Write) => return Err(io::ErrorKind::NotFound.into()),
            (None, Access::Create | Access::CreateNew) => {
                if path.parent().is_none_or(|dir| !state.dirs.contains(dir)) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                state.next_id += 1;
                let id = state.next_id;
                state.inodes.insert(id, Inode::default());
                state.change(NameChange::Set(path.to_owned(), id));
                id
            }
        };
        let writable = access != Access::Read;
        Ok(Arc::new(MemFile::new(self.clone(), id, state.boot, writable, 1)))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Option<Direct>> {
        let state = self.0.lock();
        let id = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        let file = MemFile::new(self.clone(), id, state.boot, true, SECTOR);
        Ok((!state.is_cached_only).then(|| Direct { file: Arc::new(file), align: SECTOR }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.enter(DiskOp::Rename)?;
        let id = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.change(NameChange::Move(from.to_owned(), to.to_owned(), id));
        Ok(())
    }

    fn hard_link(&self, file: &Path, name: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.enter(DiskOp::Link)?;
        let id = *state.names.get(file).ok_or(io::ErrorKind::NotFound)?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if name.parent().is_none_or(|dir| !state.dirs.contains(dir)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(NameChange::Set(name.to_owned(), id));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.enter(DiskOp::Remove)?;
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.change(NameChange::Unset(path.to_owned()));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let state = self.0.lock();
        if !state.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = |path: &&PathBuf| path.parent() == Some(dir);
        let files = state.names.keys().filter(inside);
        let mut names: Vec<OsString> =
            files.chain(state.dirs.iter().filter(inside)).filter_map(|path| path.file_name().map(Into::into)).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        let state = &mut *state;
        state.enter(DiskOp::SyncDir)?;
        let (now, later): (Vec<_>, Vec<_>) = state.pending_names.drain(..).partition(|change| change.is_in(dir));
        state.pending_names = later;
        for change in now {
            change.apply(&mut state.durable_names);
        }
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.0.lock();
        Ok(state.names.contains_key(path) || state.dirs.contains(path))
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let state = self.0.lock();
        Ok(state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used())))
    }
}

#[cfg(test)]
mod tests {
    use super::super::rng::SeededRng;
    use super::*;

    const EIO: i32 = 5;

    fn disk() -> MemDisk {
        let disk = MemDisk::new();
        disk.create_dir_all(Path::new("/d")).unwrap();
        disk
    }

    #[test]
    fn unsynced_bytes_and_names_are_lost() {
        let disk = disk();
        let file = disk.open(Path::new("/d/f"), Access::Create).unwrap();
        file.write_at(b"one", 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_at(b"two", 0).unwrap();
        disk.rename(Path::new("/d/f"), Path::new("/d/g")).unwrap();
        disk.crash(CrashStyle::LoseAll);
        assert!(file.write_at(b"x", 0).is_err(), "an old handle is dead");
        assert_eq!(disk.bytes(Path::new("/d/f")).unwrap(), b"one");
        assert_eq!(disk.bytes(Path::new("/d/g")), None);
    }

    #[test]
    fn a_kill_keeps_everything_but_leaves_it_undurable() {
        let disk = disk();
        let file = disk.open(Path::new("/d/f"), Access::Create).unwrap();
        file.write_at(b"one", 0).unwrap();
        disk.crash(CrashStyle::KeepAll);
        assert_eq!(disk.bytes(Path::new("/d/f")).unwrap(), b"one");
        disk.crash(CrashStyle::LoseAll);
        assert_eq!(disk.bytes(Path::new("/d/f")), None);
    }

    #[test]
    fn a_failed_sync_loses_the_bytes_for_good() {
        let disk = disk();
        let file = disk.open(Path::new("/d/f"), Access::Create).unwrap();
        disk.sync_dir(Path::new("/d")).unwrap();
        file.write_at(&[7; 2000], 0).unwrap();
        disk.fail(DiskOp::Sync, 0, EIO);
        assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(EIO));
        file.sync_data().unwrap();
        disk.crash(CrashStyle::LoseAll);
        assert!(disk.bytes(Path::new("/d/f")).unwrap().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_torn_crash_keeps_whole_sectors_only() {
        let mut kept = BTreeSet::new();
        for seed in 0..20 {
            let disk = disk();
            let file = disk.open(Path::new("/d/f"), Access::Create).unwrap();
            file.allocate(0, 4096).unwrap();
            file.sync_all().unwrap();
            disk.sync_dir(Path::new("/d")).unwrap();
            file.write_at(&[7; 4096], 0).unwrap();
            disk.crash(CrashStyle::Torn(&SeededRng::new(seed)));
            let bytes = disk.bytes(Path::new("/d/f")).unwrap();
            for sector in bytes.chunks(SECTOR) {
                assert!(sector.iter().all(|byte| *byte == sector[0]));
            }
            kept.insert(bytes.iter().filter(|byte| **byte == 7).count() / SECTOR);
        }
        assert!(kept.len() > 3, "{kept:?}");
    }

    #[test]
    fn a_full_disk_and_the_nth_fault_answer_with_their_errno() {
        let disk = disk();
        disk.set_capacity(Some(1000));
        let file = disk.open(Path::new("/d/f"), Access::Create).unwrap();
        file.allocate(0, 900).unwrap();
        assert_eq!(disk.free_bytes(Path::new("/d")).unwrap(), 100);
        assert_eq!(file.allocate(0, 1001).unwrap_err().raw_os_error(), Some(ENOSPC));
        disk.fail(DiskOp::Write, 1, EIO);
        file.write_at(b"ok", 0).unwrap();
        assert_eq!(file.write_at(b"broken", 0).unwrap_err().raw_os_error(), Some(EIO));
        file.write_at(b"ok", 0).unwrap();
        disk.set_capacity(Some(0));
        file.write_at(b"over", 0).unwrap();
        assert_eq!(file.write_at(b"behind", 900).unwrap_err().raw_os_error(), Some(ENOSPC));
    }
}
