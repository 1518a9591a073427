//! A disk without room: writes wait, nothing is lost, and they go on when there is room again.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusd::env::{Access, Disk, DiskFile, Env, MemDisk, RealDisk};
use rusd::storage::backend::Engine;
use rusd::storage::values::{self, Health};
use rusd::types::StorageError;

use crate::common::{append, at, block_on, flush, is_root, position, record, values_config};

#[test]
fn sled_waits_for_room_on_a_small_disk() {
    waits_for_room_on_a_small_disk(Engine::Sled, 24 << 20);
}

#[test]
fn redb_waits_for_room_on_a_small_disk() {
    waits_for_room_on_a_small_disk(Engine::Redb, 24 << 20);
}

struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// A tmpfs of so many bytes; `None`, said loudly, where this process may not mount one.
fn mount(dir: &Path, bytes: u64) -> Option<Mounted<'_>> {
    let mounted = is_root()
        && Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(dir)
            .status()
            .is_ok_and(|status| status.success());
    if !mounted {
        // Written past the test runner's capture, which would hide it in a passing test.
        writeln!(std::io::stdout(), "SKIPPED full_disk: this process may not mount a tmpfs").ok();
    }
    mounted.then_some(Mounted(dir))
}

/// Bytes that don't compress.
fn noise(seed: &mut u64, bytes: usize) -> Vec<u8> {
    let next = |_| {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed as u8
    };
    (0..bytes).map(next).collect()
}

fn waits_for_room_on_a_small_disk(engine: Engine, bytes: u64) {
    let dir = tempfile::tempdir().unwrap();
    let Some(mount) = mount(dir.path(), bytes) else { return };
    let mut config = values_config(engine, dir.path());
    config.backend.reserve_bytes = 6 << 20;
    config.cache_bytes = 64 << 20;
    let (mut writer, reader, _) = values::open(&Env::real(), config.clone()).unwrap();
    // Something else takes most of the room.
    std::fs::write(dir.path().join("other"), vec![0; bytes as usize - (12 << 20)]).unwrap();
    let health = writer.health();
    let mut main = 0;
    // Values that don't compress, until the store says that it waits.
    let mut seed = 9u64;
    while *health.borrow() == Health::Good {
        main += 1;
        let mut incompressible = record(main, 0);
        incompressible.version.as_mut().unwrap().value = noise(&mut seed, 20_000).into();
        writer.append(vec![(at(main), incompressible)], vec![], position(main)).unwrap();
        assert!(main < 3000, "60 MB went onto a disk of 24 MiB");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(matches!(&*health.borrow(), Health::Waiting(why) if why.contains("no space")), "{:?}", health.borrow());
    for wanted in 1..=main {
        assert!(reader.record(at(wanted)).unwrap().is_some(), "readable while there is no room");
    }
    std::fs::remove_file(dir.path().join("other")).unwrap();
    assert_eq!(flush(&writer), position(main));
    assert_eq!(*health.borrow(), Health::Good);
    drop((writer, reader));
    let (writer, reader, loaded) = values::open(&Env::real(), config).unwrap();
    assert_eq!(loaded.position, position(main));
    assert_eq!(reader.scan(at(0), at(i64::MAX), usize::MAX).unwrap().len() as i64, main);
    drop((writer, reader, loaded, mount));
}

/// The system's disk, on which there seems to be room until it says the truth: as where something else takes the last
/// byte between the look and the write.
#[derive(Debug)]
struct TakenMeanwhile {
    is_true: Arc<AtomicBool>,
}

impl Disk for TakenMeanwhile {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        RealDisk.create_dir_all(dir)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.open(path, access)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }

    fn hard_link(&self, file: &Path, name: &Path) -> io::Result<()> {
        RealDisk.hard_link(file, name)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        RealDisk.list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        RealDisk.sync_dir(dir)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        RealDisk.exists(path)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        if self.is_true.load(Ordering::SeqCst) { RealDisk.free_bytes(dir) } else { Ok(u64::MAX) }
    }
}

/// A write that finds the disk full costs the engine its handle: it is opened again without a byte left, reads of what
/// isn't in memory wait for that, and so does a start.
fn reads_outlive_a_write_that_finds_the_disk_full(engine: Engine) {
    const ALL: std::ops::Range<i64> = 1..201;
    let dir = tempfile::tempdir().unwrap();
    let Some(mount) = mount(dir.path(), 96 << 20) else { return };
    let is_true = Arc::new(AtomicBool::new(true));
    let env = Env { disk: Arc::new(TakenMeanwhile { is_true: is_true.clone() }), ..Env::real() };
    let mut config = values_config(engine, dir.path());
    config.cache_bytes = 4 << 20;
    let (mut writer, reader, _) = values::open(&env, config.clone()).unwrap();
    for main in ALL {
        append(&mut writer, main, 50_000);
    }
    flush(&writer);
    drop((writer, reader));
    // Nothing is in memory.
    let (mut writer, reader, _) = values::open(&env, config.clone()).unwrap();
    let mut other = std::fs::File::create(dir.path().join("other")).unwrap();
    while other.write_all(&[7; 4096]).is_ok() {}
    drop(other);
    is_true.store(false, Ordering::SeqCst);
    let mut large = record(ALL.end, 0);
    large.version.as_mut().unwrap().value = noise(&mut 9, 700_000).into();
    writer.append(vec![(at(ALL.end), large.clone())], vec![], position(ALL.end)).unwrap();
    let flushed = writer.flush();
    let mut health = writer.health();
    block_on(health.wait_for(|health| matches!(health, Health::Waiting(why) if why.contains("no space")))).unwrap();
    for main in ALL {
        assert!(reader.record(at(main)).unwrap() == Some(record(main, 50_000)), "{main} on a full disk");
    }
    is_true.store(true, Ordering::SeqCst);
    for main in ALL {
        assert!(reader.record(at(main)).unwrap() == Some(record(main, 50_000)), "{main} on a full disk");
    }
    assert_eq!(reader.record(at(ALL.end)).unwrap(), Some(large.clone()));
    // The end without room: what isn't written is in the log, and a start serves the rest.
    drop((writer, reader, flushed));
    let (mut writer, reader, loaded) = values::open(&env, config.clone()).unwrap();
    // Of the room that is kept for openings some may have been left to the write, if it was tried again before the disk
    // said the truth.
    let is_written = loaded.position == position(ALL.end);
    assert!(is_written || loaded.position == position(ALL.end - 1), "{:?}", loaded.position);
    assert_eq!(reader.record(at(3)).unwrap(), Some(record(3, 50_000)));
    if !is_written {
        writer.append(vec![(at(ALL.end), large.clone())], vec![], position(ALL.end)).unwrap();
    }
    std::fs::remove_file(dir.path().join("other")).unwrap();
    assert_eq!(flush(&writer), position(ALL.end));
    drop((writer, reader, loaded));
    let (writer, reader, loaded) = values::open(&env, config).unwrap();
    assert_eq!(loaded.position, position(ALL.end));
    assert_eq!(reader.record(at(ALL.end)).unwrap(), Some(large));
    assert_eq!(reader.scan(at(0), at(i64::MAX), usize::MAX).unwrap().len() as i64, ALL.end);
    drop((writer, reader, loaded, mount));
}

/// Cause: sled writes its metadata anew to be opened. Symptom: on a disk without a byte left no start served. Holds: some
/// room is kept for the opening, and is there again for the next.
#[test]
fn sled_is_opened_on_a_disk_without_a_byte() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mount) = mount(dir.path(), 96 << 20) else { return };
    let config = values_config(Engine::Sled, dir.path());
    let (mut writer, reader, _) = values::open(&Env::real(), config.clone()).unwrap();
    for main in 1..201 {
        append(&mut writer, main, 50_000);
    }
    flush(&writer);
    drop((writer, reader));
    let mut other = std::fs::File::create(dir.path().join("other")).unwrap();
    while other.write_all(&[7; 4096]).is_ok() {}
    drop(other);
    for _ in 0..2 {
        let (writer, reader, loaded) = values::open(&Env::real(), config.clone()).unwrap();
        assert_eq!(loaded.position, position(200));
        crate::common::is_everything(&reader, loaded.records, 1..201, 50_000);
        drop((writer, reader));
    }
    drop(mount);
}

/// Cause: sled's handle whose flush failed never lets its directory's lock go. Symptom: the engine could not be opened again
/// by this process, which ended after some tries. Holds: its files move to another directory, and are opened there.
#[test]
fn reads_outlive_a_write_of_sled_that_finds_the_disk_full() {
    reads_outlive_a_write_that_finds_the_disk_full(Engine::Sled);
}

/// As above, again and again, and with room in between: nothing is lost, and what moved moves again.
#[test]
fn sled_outlives_a_disk_that_is_full_twice() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mount) = mount(dir.path(), 96 << 20) else { return };
    let is_true = Arc::new(AtomicBool::new(true));
    let env = Env { disk: Arc::new(TakenMeanwhile { is_true: is_true.clone() }), ..Env::real() };
    let mut config = values_config(Engine::Sled, dir.path());
    config.cache_bytes = 4 << 20;
    let (mut writer, reader, _) = values::open(&env, config.clone()).unwrap();
    let other = dir.path().join("other");
    let mut last = 0;
    let mut health = writer.health();
    // Nothing that was freed before has room for it.
    let large = |main: i64| {
        let mut large = record(main, 0);
        large.version.as_mut().unwrap().value = noise(&mut (main as u64), 10_000 * main as usize).into();
        large
    };
    for _ in 0..2 {
        for main in last + 1..last + 101 {
            append(&mut writer, main, 50_000);
        }
        last += 100;
        assert_eq!(flush(&writer), position(last));
        let mut filler = std::fs::File::create(&other).unwrap();
        while filler.write_all(&[7; 4096]).is_ok() {}
        drop(filler);
        is_true.store(false, Ordering::SeqCst);
        last += 1;
        writer.append(vec![(at(last), large(last))], vec![], position(last)).unwrap();
        let flushed = writer.flush();
        block_on(health.wait_for(|health| matches!(health, Health::Waiting(_)))).unwrap();
        is_true.store(true, Ordering::SeqCst);
        for main in (1..last).filter(|main| main % 101 != 0) {
            assert!(reader.record(at(main)).unwrap() == Some(record(main, 50_000)), "{main} on a full disk");
        }
        std::fs::remove_file(&other).unwrap();
        assert_eq!(block_on(flushed).unwrap(), position(last));
        assert_eq!(*health.borrow(), Health::Good);
    }
    drop((writer, reader));
    let (writer, reader, loaded) = values::open(&Env::real(), config).unwrap();
    assert_eq!(loaded.position, position(last));
    for main in 1..=last {
        let written = if main % 101 == 0 { large(main) } else { record(main, 50_000) };
        assert!(reader.record(at(main)).unwrap() == Some(written), "{main} after a start");
    }
    drop((writer, reader, loaded, mount));
}

#[test]
fn reads_outlive_a_write_of_redb_that_finds_the_disk_full() {
    reads_outlive_a_write_that_finds_the_disk_full(Engine::Redb);
}

/// The disk is full in the middle of a flush, beyond what was foreseen.
#[test]
fn redb_comes_back_from_enospc_inside_a_write() {
    let disk = MemDisk::new();
    let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
    let mut config = values_config(Engine::Redb, Path::new("/no-such-dir/data"));
    config.flush_interval = Duration::from_millis(1);
    let (mut writer, reader, _) = values::open(&env, config.clone()).unwrap();
    for main in 1..=100 {
        append(&mut writer, main, 1000);
    }
    flush(&writer);
    let health = writer.health();
    for (op, round) in [(rusd::env::DiskOp::Write, 1), (rusd::env::DiskOp::Sync, 2), (rusd::env::DiskOp::Write, 3)] {
        disk.fail(op, round, 28);
        for main in round as i64 * 100 + 1..=round as i64 * 100 + 100 {
            append(&mut writer, main, 1000);
        }
        let begin = Instant::now();
        assert_eq!(flush(&writer), position(round as i64 * 100 + 100));
        assert!(begin.elapsed() < Duration::from_secs(30));
        assert_eq!(*health.borrow(), Health::Good);
    }
    drop((writer, reader));
    let (_writer, reader, loaded) = values::open(&env, config).unwrap();
    crate::common::is_everything(&reader, loaded.records, 1..401, 1000);
}

/// Cause: a snapshot holds removals off and waits for a flush. Symptom: on a full disk the flush could
/// not come before the removals, nor they before the snapshot's end: both stood for ever. Holds: the
/// snapshot is refused, removals go on, and they make the room.
#[test]
fn a_snapshot_is_refused_on_a_full_disk_and_doesnt_hold_removals_up() {
    let disk = MemDisk::new();
    let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
    let mut config = values_config(Engine::Redb, Path::new("/no-such-dir/data"));
    config.flush_interval = Duration::from_millis(1);
    let (mut writer, reader, _) = values::open(&env, config).unwrap();
    for main in 1..=100 {
        append(&mut writer, main, 1000);
    }
    flush(&writer);
    assert!(block_on(reader.freeze()).is_ok());
    disk.set_capacity(Some(0));
    append(&mut writer, 101, 1000);
    for _ in 0..2 {
        // Would wait for ever.
        let refused = block_on(reader.freeze());
        assert!(matches!(refused, Err(StorageError::Full { .. })), "{refused:?}");
    }
    assert!(matches!(&*writer.health().borrow(), Health::Waiting(_)));
    disk.set_capacity(None);
    assert_eq!(block_on(reader.freeze()).unwrap().position, position(101));
}

/// Cause: an engine that fails under a read refuses everything, and was opened again only by the next
/// write's step. Symptom: reads of cold values failed until then, and a transaction that read one ended
/// the process. Holds: the store thread opens it again at once, and the read waits for that.
#[test]
fn a_read_outlives_an_engine_that_fails_under_it() {
    let disk = MemDisk::new();
    let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
    let config = values_config(Engine::Redb, Path::new("/no-such-dir/data"));
    let (mut writer, reader, _) = values::open(&env, config.clone()).unwrap();
    for main in 1..=200 {
        append(&mut writer, main, 50_000);
    }
    flush(&writer);
    drop((writer, reader));
    let (writer, reader, _) = values::open(&env, config).unwrap();
    for main in [5, 100, 190] {
        disk.fail(rusd::env::DiskOp::Read, 0, 5);
        assert_eq!(reader.record(at(main)).unwrap(), Some(record(main, 50_000)));
    }
    assert_eq!(*writer.health().borrow(), Health::Good);
}
