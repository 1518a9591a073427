//! Files that move away from an engine that failed: at every step a crash or an error leaves one whole set of them.

use std::path::Path;
use std::sync::Arc;

use rusd::env::{Access, CrashStyle, DiskOp, Env, MemDisk, SeededRng};
use rusd::storage::backend::{BackendConfig, Engine, Home};
use rusd::types::StorageError;

use crate::common::position;

const FILES: [&str; 5] = ["cookie", "slabs/64", "slabs/4096", "metadata/log_2", "metadata/snapshot_1"];
const OPS: [DiskOp; 7] =
    [DiskOp::Link, DiskOp::Open, DiskOp::Write, DiskOp::Sync, DiskOp::SyncDir, DiskOp::Rename, DiskOp::Remove];
const EIO: i32 = 5;

fn home(disk: &MemDisk) -> (Env, BackendConfig) {
    let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
    (env, BackendConfig { reserve_bytes: 0, ..BackendConfig::new(Engine::Sled, "/no-such-dir/store") })
}

/// A home with files in it, and one that is just being written.
fn filled() -> (MemDisk, Home) {
    let disk = MemDisk::new();
    disk.set_capacity(Some(1 << 20));
    let (env, config) = home(&disk);
    let home = Home::open(&env, &config).unwrap();
    home.testify(position(7)).unwrap();
    for name in FILES.into_iter().chain(["metadata/snapshot_2.tmp"]) {
        let path = home.engine_dir().join(name);
        env.disk.create_dir_all(path.parent().unwrap()).unwrap();
        let file = env.disk.open(&path, Access::Create).unwrap();
        file.write_at(name.as_bytes(), 0).unwrap();
        file.sync_all().unwrap();
        env.disk.sync_dir(path.parent().unwrap()).unwrap();
    }
    (disk, home)
}

fn is_whole(disk: &MemDisk, home: &Home, when: &str) {
    for name in FILES {
        assert_eq!(disk.bytes(&home.engine_dir().join(name)).as_deref(), Some(name.as_bytes()), "{when}: {name}");
    }
    home.cross_examine(position(7)).unwrap();
    let older = home.cross_examine(position(6));
    assert!(matches!(older, Err(StorageError::Damaged { .. })), "{when}: the witness came along");
}

fn opened(disk: &MemDisk, when: &str) -> Home {
    let (env, config) = home(disk);
    let home = Home::open(&env, &config).unwrap_or_else(|error| panic!("{when}: {error}"));
    is_whole(disk, &home, when);
    home
}

fn engines(disk: &MemDisk) -> Vec<String> {
    let (env, config) = home(disk);
    let has_files = |name: &String| disk.bytes(&config.dir.join(name).join("cookie")).is_some();
    let names = env.disk.list(&config.dir).unwrap().into_iter().map(|name| name.into_string().unwrap());
    names.filter(|name| name.starts_with("engine-")).filter(has_files).collect()
}

#[test]
fn what_moved_is_all_there_but_for_drafts() {
    let (disk, mut home) = filled();
    let before = home.engine_dir();
    home.move_house().unwrap();
    assert_ne!(home.engine_dir(), before);
    is_whole(&disk, &home, "moved");
    assert_eq!((disk.bytes(&home.engine_dir().join("metadata/snapshot_2.tmp")), home.moves()), (None, 1));
    assert_eq!(engines(&disk), ["engine-2"]);
    drop(home);
    disk.crash(CrashStyle::LoseAll);
    opened(&disk, "after a power cut");
}

/// Each operation of each kind fails once, and the power goes with it, or the process, or nothing but the operation.
#[test]
fn each_step_may_be_the_last() {
    let rng = SeededRng::new(4);
    let mut steps = 0;
    for op in OPS {
        for after in 0.. {
            let when = format!("{op:?} {after}");
            let (disk, mut moving) = filled();
            let count = disk.count(op);
            disk.fail(op, after, EIO);
            let moved = moving.move_house();
            if disk.count(op) <= count + after {
                moved.unwrap();
                break;
            }
            steps += 1;
            for style in [CrashStyle::LoseAll, CrashStyle::KeepAll, CrashStyle::Torn(&rng)] {
                let fork = disk.fork();
                fork.crash(style);
                opened(&fork, &format!("{when}, {style:?}"));
                assert_eq!(engines(&fork).len(), 1, "{when}: the other one is gone");
            }
            // The process goes on: what it has is whole, and it moves in the end.
            is_whole(&disk, &moving, &when);
            if moved.is_err() {
                moving.move_house().unwrap_or_else(|error| panic!("{when}: {error}"));
                is_whole(&disk, &moving, &when);
            }
            disk.crash(CrashStyle::LoseAll);
            let found = opened(&disk, &when);
            assert_eq!(found.engine_dir(), moving.engine_dir(), "{when}");
        }
    }
    assert!(steps > 20, "{steps}");
}

/// Cause: the power goes after a move that was cut off in CURRENT's last sync, and that was tried again.
#[test]
fn a_snapshot_that_is_begun_removes_neither_place_of_a_move_that_is_cut_off() {
    let (disk, mut home) = filled();
    // The last sync: of CURRENT's rename.
    let (probe, mut other) = filled();
    let before = probe.count(DiskOp::SyncDir);
    other.move_house().unwrap();
    disk.fail(DiskOp::SyncDir, probe.count(DiskOp::SyncDir) - before - 1, EIO);
    assert!(home.move_house().is_err());
    home.next().unwrap();
    for style in [CrashStyle::LoseAll, CrashStyle::KeepAll] {
        let fork = disk.fork();
        fork.crash(style);
        opened(&fork, &format!("{style:?}"));
    }
}

/// Cause: a snapshot takes over while a move is cut off. Symptom: the move's links stayed until the next start, with the room of
/// what they name.
#[test]
fn a_snapshot_that_takes_over_leaves_nothing_of_a_move_that_is_cut_off() {
    let (disk, mut home) = filled();
    disk.fail(DiskOp::Rename, 0, EIO);
    assert!(home.move_house().is_err());
    assert_eq!(engines(&disk), ["engine-1", "engine-2"], "linked, and CURRENT isn't written");
    let mut next = home.next().unwrap();
    next.take_over(&home).unwrap();
    home.remove();
    assert_eq!(engines(&disk), Vec::<String>::new(), "the new one is empty");
}

/// What a failed engine keeps is given back by the process's end alone.
#[test]
fn a_process_moves_a_bounded_number_of_times() {
    let (disk, mut home) = filled();
    for moves in 0..8 {
        assert_eq!(home.moves(), moves);
        home.move_house().unwrap();
    }
    assert!(matches!(home.move_house(), Err(StorageError::Engine { .. })));
    is_whole(&disk, &home, "after the last");
    drop(home);
    disk.crash(CrashStyle::KeepAll);
    opened(&disk, "another process").move_house().unwrap();
}

/// Two names of one number would be one directory, in which the threads of two engines meet.
#[test]
fn no_generation_comes_twice() {
    let (disk, mut home) = filled();
    let begun = home.next().unwrap();
    home.move_house().unwrap();
    let again = home.next().unwrap();
    let places = [begun.engine_dir(), home.engine_dir(), again.engine_dir()];
    assert_eq!(places.map(|place| Path::file_name(&place).unwrap().to_owned()), ["engine-2", "engine-3", "engine-4"]);
    is_whole(&disk, &home, "beside a snapshot");
}
