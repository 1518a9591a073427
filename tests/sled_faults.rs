//! Errors inside sled's own system calls, which go past the doors where other tests put faults: sled's counter of calls
//! makes one of them fail.
//!
//! ```text
//! store ─► a call of sled fails in a flush ─► the engine moves ─► all there, in this process and in the next
//!                                              └─► killed at a step of it ─► all there in the next
//! ```
//! The counter is the whole process's, so each test has one of its own. There the program `sync` isn't found, which sled runs at
//! each opening, and the disk doesn't settle: each would wait some hundred times for all that the machine has to write, and no
//! power is cut here.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use fault_injection::FAULT_INJECT_COUNTER;
use rusd::env::{Access, Disk, DiskFile, Env, RealDisk};
use rusd::ops::startup;
use rusd::storage::backend::Engine;
use rusd::storage::values::{self, Health, ValueReader, ValueWriter, ValuesConfig};
use rusd::storage::{AppliedPosition, Record, VersionRecord};
use rusd::types::{LeaseId, RaftIndex, Revision, StorageError, Term};

/// Set in a test's own process.
const ALONE: &str = "RUSD_TEST_ALONE";
const COUNTED: &str = "counted: ";
const FIRST: std::ops::Range<i64> = 1..201;
const ALL: std::ops::Range<i64> = 1..401;

/// Runs a test, by its name, in so many processes of its own, which most of the time wait; each is told which one it is, and gives
/// a count. Gives the sum.
fn alone(name: &str, processes: usize, test: impl FnOnce(usize) -> usize) -> Option<usize> {
    if let Ok(part) = env::var(ALONE) {
        // What fails keeps its files open.
        startup::allow_files();
        println!("{COUNTED}{}", test(part.parse().unwrap()));
        return None;
    }
    let begin = |part: usize| {
        let mut child = Command::new(env::current_exe().unwrap());
        child.args(["--exact", name, "--nocapture"]).env(ALONE, part.to_string()).env("PATH", "/no-such-dir");
        child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = (0..processes).map(begin).collect();
    // All of them first: none is left behind by one that fails.
    let ended: Vec<_> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let counts = ended.into_iter().map(|done| {
        let (said, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{name}: {}\n{said}\n{errors}", done.status);
        let count = said.lines().find_map(|line| line.split_once(COUNTED)?.1.parse::<usize>().ok());
        count.unwrap_or_else(|| panic!("{name}: {said}"))
    });
    Some(counts.sum())
}

/// Has the call fail that is so many away; 1 is the next.
fn fail(call: u64) {
    FAULT_INJECT_COUNTER.store(call, Ordering::SeqCst);
}

/// Whether it was made. The counter goes round.
fn has_failed() -> bool {
    matches!(FAULT_INJECT_COUNTER.load(Ordering::SeqCst), 0 | 0x8000_0000_0000_0000..)
}

fn config(dir: &Path) -> ValuesConfig {
    let mut config = ValuesConfig::new(Engine::Sled, dir.join("store"));
    config.backend.reserve_bytes = 0;
    // Little stays in memory, and no flush comes by the time.
    config.cache_bytes = 1 << 20;
    config.flush_interval = Duration::from_secs(3600);
    config
}

/// The system's disk, on which nothing fails.
fn unsettled() -> Env {
    Env { disk: Dying::new((Op::MakeDir, u64::MAX), true), ..Env::real() }
}

fn position(index: i64) -> AppliedPosition {
    AppliedPosition { index: RaftIndex(index as u64), term: Term(1) }
}

fn record(main: i64) -> Record {
    let value = vec![main as u8; 3000 + main as usize].into();
    let version = VersionRecord { value, create_revision: main, version: 1, lease: LeaseId(0) };
    Record { key: Bytes::from(format!("key/{main:06}")), version: Some(version) }
}

fn append(writer: &mut ValueWriter, mains: std::ops::Range<i64>) {
    for main in mains {
        writer.append(vec![(Revision::new(main, 0), record(main))], vec![], position(main)).unwrap();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A store with the first records, durably.
fn begun(dir: &Path) -> (ValueWriter, ValueReader) {
    let (mut writer, reader, _) = values::open(&unsettled(), config(dir)).unwrap();
    append(&mut writer, FIRST);
    assert_eq!(block_on(writer.flush()).unwrap(), position(FIRST.end - 1));
    (writer, reader)
}

fn is_all_there(reader: &ValueReader, mains: std::ops::Range<i64>, when: &str) {
    for main in mains {
        assert!(reader.record(Revision::new(main, 0)).unwrap() == Some(record(main)), "{when}: {main}");
    }
}

/// The engines in a home.
fn engines(dir: &Path) -> Vec<String> {
    let names = RealDisk.list(&dir.join("store")).unwrap().into_iter().map(|name| name.into_string().unwrap());
    names.filter(|name| name.starts_with("engine-")).collect()
}

/// Cause: a handle whose flush failed can't be let go. Symptom: no other could be opened in this process. Holds: whichever
/// call of the flush fails, what was to be written is, reads find all of it meanwhile, and a second failure is no worse.
#[test]
fn a_flush_that_fails_at_any_call_is_made_up_for() {
    let moved = alone("a_flush_that_fails_at_any_call_is_made_up_for", 3, fail_each_call_of_a_flush);
    assert!(moved.is_none_or(|moved| moved >= 3), "{moved:?} of 6 calls were those of a flush");
}

fn fail_each_call_of_a_flush(part: usize) -> usize {
    let mut moved = 0;
    for call in (1..=6).skip(part).step_by(3) {
        let when = format!("call {call}");
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, reader) = begun(dir.path());
        let middle = FIRST.end + 100;
        for mains in [FIRST.end..middle, middle..ALL.end] {
            // Before, as a flush may begin by itself.
            fail(call);
            append(&mut writer, mains.clone());
            let flushed = writer.flush();
            is_all_there(&reader, 1..mains.end, &when);
            assert_eq!(block_on(flushed).unwrap(), position(mains.end - 1), "{when}");
            assert_eq!(*writer.health().borrow(), Health::Good, "{when}");
            FAULT_INJECT_COUNTER.store(u64::MAX, Ordering::SeqCst);
        }
        let places = engines(dir.path());
        assert_eq!(places.len(), 1, "{when}: {places:?}");
        moved += usize::from(places != ["engine-1"]);
        is_all_there(&reader, ALL, &when);
        drop((writer, reader));
        let (writer, reader, loaded) = values::open(&unsettled(), config(dir.path())).unwrap();
        assert_eq!(loaded.position, position(ALL.end - 1), "{when}");
        is_all_there(&reader, ALL, &when);
        drop((writer, reader, loaded));
    }
    moved
}

/// Cause: an opening that ends between the snapshot it makes of its logs and the log it goes on in. Symptom: the one after it
/// removes that snapshot for an old one's, and the next finds its logs without a beginning. Holds: whichever call of an
/// opening fails, all is there at each of the next ones, or it is noticed at once: sled takes a read that fails for its
/// log's end.
#[test]
fn an_opening_that_fails_at_any_call_leaves_all_there() {
    let failures = alone("an_opening_that_fails_at_any_call_leaves_all_there", 4, fail_each_call_of_an_opening);
    assert!(failures.is_none_or(|failures| failures >= 25), "{failures:?} calls failed");
}

fn fail_each_call_of_an_opening(part: usize) -> usize {
    let (mut failures, mut noticed) = (0, 0);
    // The calls behind these open one slab after the other.
    for call in (1..=40).skip(part).step_by(4) {
        let when = format!("call {call}");
        let dir = tempfile::tempdir().unwrap();
        drop(begun(dir.path()));
        fail(call);
        let opened = values::open(&unsettled(), config(dir.path()));
        assert!(has_failed(), "{when} was not made");
        FAULT_INJECT_COUNTER.store(u64::MAX, Ordering::SeqCst);
        if matches!(opened, Err(StorageError::Damaged { .. })) {
            noticed += 1;
            continue;
        }
        failures += usize::from(opened.is_err());
        drop(opened);
        for _ in 0..2 {
            let (writer, reader, loaded) = values::open(&unsettled(), config(dir.path())).unwrap();
            assert_eq!(loaded.position, position(FIRST.end - 1), "{when}");
            is_all_there(&reader, FIRST, &when);
            drop((writer, reader, loaded));
        }
    }
    assert!(noticed <= 2, "{noticed} times it came to harm");
    failures
}

/// What a process is killed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    MakeDir,
    Link,
    Open,
    Rename,
    SyncDir,
    Remove,
}

/// The system's disk, until a move comes to its nth operation of a kind: from there on nothing is done.
#[derive(Debug)]
struct Dying {
    at: (Op, u64),
    left: AtomicU64,
    /// A move has begun.
    moves: AtomicBool,
    dead: AtomicBool,
    has_links: bool,
}

impl Dying {
    fn new(at: (Op, u64), has_links: bool) -> Arc<Self> {
        let (moves, dead) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { at, left: AtomicU64::new(at.1), moves, dead, has_links })
    }

    fn step(&self, op: Op, path: &Path) -> io::Result<()> {
        let is_new_place = path.to_string_lossy().ends_with("store/engine-2");
        if op == Op::MakeDir && is_new_place {
            self.moves.store(true, Ordering::SeqCst);
        }
        let counts = self.moves.load(Ordering::SeqCst) && op == self.at.0;
        if counts && self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            self.dead.store(true, Ordering::SeqCst);
        }
        if self.dead.load(Ordering::SeqCst) { Err(io::Error::other("killed")) } else { Ok(()) }
    }
}

impl Disk for Dying {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.step(Op::MakeDir, dir)?;
        RealDisk.create_dir_all(dir)
    }
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        if access != Access::Read {
            self.step(Op::Open, path)?;
        }
        RealDisk.open(path, access)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step(Op::Rename, to)?;
        RealDisk.rename(from, to)
    }
    fn hard_link(&self, file: &Path, name: &Path) -> io::Result<()> {
        self.step(Op::Link, name)?;
        if !self.has_links {
            return Err(io::ErrorKind::Unsupported.into());
        }
        RealDisk.hard_link(file, name)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step(Op::Remove, path)?;
        RealDisk.remove(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        RealDisk.list(dir)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.step(Op::SyncDir, dir)?;
        RealDisk.sync_dir(dir)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        RealDisk.free_bytes(dir)
    }
}

/// What another process would open, since this one lives on and keeps the lock.
fn copied(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_dir(&dir.join("store"), &copy.path().join("store"));
    copy
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (old, name) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
        let new = to.join(name);
        if old.is_dir() { copy_dir(&old, &new) } else { assert!(fs::copy(&old, &new).is_ok()) }
    }
}

/// A process that is killed while its engine moves: the next one finds all that was flushed.
#[test]
fn each_step_of_a_move_may_be_the_last() {
    let met = alone("each_step_of_a_move_may_be_the_last", 6, end_at_each_step_of_a_move);
    assert!(met.is_none_or(|met| met >= 14), "{met:?} of the steps were there");
}

fn end_at_each_step_of_a_move(part: usize) -> usize {
    let steps = [
        (Op::MakeDir, 0..3),
        (Op::Link, 0..2),
        (Op::Link, 40..41),
        (Op::SyncDir, 0..5),
        (Op::Open, 0..2),
        (Op::Rename, 0..1),
        (Op::Remove, 0..2),
        (Op::Remove, 50..51),
    ];
    let mut met = 0;
    let steps = steps.into_iter().flat_map(|(op, range)| range.map(move |nth| (op, nth)));
    for (op, nth) in steps.skip(part).step_by(6) {
        let when = format!("{op:?} {nth}");
        let dir = tempfile::tempdir().unwrap();
        let dying = Dying::new((op, nth), true);
        let env = Env { disk: dying.clone(), ..Env::real() };
        let (mut writer, reader, _) = values::open(&env, config(dir.path())).unwrap();
        append(&mut writer, FIRST);
        assert_eq!(block_on(writer.flush()).unwrap(), position(FIRST.end - 1));
        fail(1);
        append(&mut writer, FIRST.end..ALL.end);
        // Over when it was done by another step, or when the store is given up.
        let flushed = block_on(writer.flush());
        assert!(has_failed(), "{when}");
        FAULT_INJECT_COUNTER.store(u64::MAX, Ordering::SeqCst);
        drop((writer, reader));
        met += usize::from(dying.dead.load(Ordering::SeqCst));

        let copy = copied(dir.path());
        let (writer, reader, loaded) = values::open(&unsettled(), config(copy.path())).unwrap();
        let found = loaded.position.index.get() as i64;
        assert!(found >= FIRST.end - 1, "{when}: {found}");
        assert!(flushed.is_err() || found == ALL.end - 1, "{when}: {found}");
        is_all_there(&reader, 1..found + 1, &when);
        assert_eq!(engines(copy.path()).len(), 1, "{when}");
        drop((writer, reader, loaded));
    }
    met
}

/// Where the files can't have second names the store is given up, after some tries, for a reason that another process hasn't:
/// the server then starts again in its place.
#[test]
fn without_hard_links_only_another_process_opens_it() {
    alone("without_hard_links_only_another_process_opens_it", 1, move_without_hard_links);
}

fn move_without_hard_links(_: usize) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let env = Env { disk: Dying::new((Op::MakeDir, u64::MAX), false), ..Env::real() };
    let (mut writer, reader, _) = values::open(&env, config(dir.path())).unwrap();
    append(&mut writer, FIRST);
    assert_eq!(block_on(writer.flush()).unwrap(), position(FIRST.end - 1));
    fail(1);
    append(&mut writer, FIRST.end..ALL.end);
    assert!(block_on(writer.flush()).is_err());
    assert!(has_failed());
    FAULT_INJECT_COUNTER.store(u64::MAX, Ordering::SeqCst);
    assert!(matches!(&*writer.health().borrow(), Health::Failed(_)));
    assert!(reader.is_stuck());
    // What waited is still read from memory.
    is_all_there(&reader, FIRST.end..ALL.end, "given up");
    let copy = copied(dir.path());
    let (writer, reader, loaded) = values::open(&unsettled(), config(copy.path())).unwrap();
    assert_eq!(loaded.position, position(FIRST.end - 1));
    is_all_there(&reader, FIRST, "another process");
    assert!(!reader.is_stuck());
    drop((writer, reader, loaded));
    1
}
