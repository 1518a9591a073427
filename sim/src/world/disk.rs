//! A member's disk: `rusd`'s disk in memory, which forgets what wasn't synced, with points at which the power goes.
//!
//! ```text
//! operation ─► armed for its kind, and its turn? ── before ─► power cut, error
//!                                               └── after  ─► done, power cut, error (nobody learns that it was done)
//! ```

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rusd::env::{Access, CrashStyle, Direct, Disk, DiskFile, DiskOp, MemDisk, SeededRng};
use rusd_sim::random::Rand;

const EIO: i32 = 5;

/// A power cut that waits for its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) op: DiskOp,
    /// Operations of the kind that are let pass.
    pub(crate) left: u64,
    /// The operation is done, and nobody learns of it.
    pub(crate) after: bool,
}

#[derive(Debug)]
struct State {
    mem: MemDisk,
    point: Mutex<Option<Point>>,
    is_cut: AtomicBool,
    rng: SeededRng,
    torn: AtomicBool,
    /// Microseconds between a write and its sync, at least and at most.
    gap: (AtomicU64, AtomicU64),
    gaps: Mutex<Rand>,
}

/// The disk; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk(Arc<State>);

impl SimDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(State {
            mem: MemDisk::new(),
            point: Mutex::new(None),
            is_cut: AtomicBool::new(false),
            rng: SeededRng::new(seed),
            torn: AtomicBool::new(false),
            gap: (AtomicU64::new(300), AtomicU64::new(2_000)),
            gaps: Mutex::new(Rand::new(seed, 5)),
        }))
    }

    /// Cuts the power at an operation to come; what it leaves of unsynced sectors is none or, torn, some.
    pub(crate) fn arm(&self, point: Option<Point>, torn: bool) {
        self.0.torn.store(torn, Ordering::Relaxed);
        *self.0.point.lock() = point;
    }

    /// Cuts the power now.
    pub(crate) fn cut(&self, torn: bool) {
        let style = if torn { CrashStyle::Torn(&self.0.rng) } else { CrashStyle::LoseAll };
        self.0.mem.crash(style);
        *self.0.point.lock() = None;
        self.0.is_cut.store(true, Ordering::Relaxed);
    }

    /// Ends the process: everything stays, nothing becomes durable by it.
    pub(crate) fn kill(&self) {
        self.0.mem.crash(CrashStyle::KeepAll);
        *self.0.point.lock() = None;
    }

    /// Whether the power went since the last question.
    pub(crate) fn take_cut(&self) -> bool {
        self.0.is_cut.swap(false, Ordering::Relaxed)
    }

    /// Lets an operation to come fail.
    pub(crate) fn fail(&self, op: DiskOp, after: u64, errno: i32) {
        self.0.mem.fail(op, after, errno);
    }

    /// Lets nothing fail that was to and hasn't yet.
    pub(crate) fn forgive(&self) {
        self.0.mem.forgive();
    }

    pub(crate) fn set_capacity(&self, bytes: Option<u64>) {
        self.0.mem.set_capacity(bytes);
    }

    /// How long a sync takes from now on.
    pub(crate) fn set_gap(&self, least: Duration, most: Duration) {
        self.0.gap.0.store(least.as_micros() as u64, Ordering::Relaxed);
        self.0.gap.1.store(most.as_micros() as u64, Ordering::Relaxed);
    }

    /// How long this sync takes.
    pub(crate) fn gap(&self) -> Duration {
        let (least, most) = (self.0.gap.0.load(Ordering::Relaxed), self.0.gap.1.load(Ordering::Relaxed));
        Duration::from_micros(self.0.gaps.lock().between(least, most))
    }

    /// Does an operation, unless it is the power's last.
    fn run<T>(&self, op: DiskOp, work: impl FnOnce(&MemDisk) -> io::Result<T>) -> io::Result<T> {
        let due = {
            let mut point = self.0.point.lock();
            match &mut *point {
                Some(armed) if armed.op == op && armed.left == 0 => point.take(),
                Some(armed) if armed.op == op => {
                    armed.left -= 1;
                    None
                }
                _ => None,
            }
        };
        let Some(point) = due else { return work(&self.0.mem) };
        if point.after {
            // Whatever it answers, nobody hears it.
            let _ = work(&self.0.mem);
        }
        self.cut(self.0.torn.load(Ordering::Relaxed));
        Err(io::Error::from_raw_os_error(EIO))
    }
}

impl Disk for SimDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.0.mem.create_dir_all(dir)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.run(DiskOp::Open, |mem| mem.open(path, access))?;
        Ok(Arc::new(SimFile { disk: self.clone(), file }))
    }

    fn open_direct(&self, path: &Path) -> io::Result<Option<Direct>> {
        let direct = self.0.mem.open_direct(path)?;
        Ok(direct.map(|Direct { file, align }| Direct { file: Arc::new(SimFile { disk: self.clone(), file }), align }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(DiskOp::Rename, |mem| mem.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.run(DiskOp::Remove, |mem| mem.remove(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.0.mem.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.run(DiskOp::SyncDir, |mem| mem.sync_dir(dir))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.mem.exists(path)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.0.mem.free_bytes(dir)
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: Arc<dyn DiskFile>,
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.run(DiskOp::Write, |_| self.file.write_at(bytes, offset))
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.disk.run(DiskOp::Allocate, |_| self.file.allocate(offset, len))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.run(DiskOp::Sync, |_| self.file.sync_data())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.disk.run(DiskOp::Sync, |_| self.file.sync_all())
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }
}
