//! Damage: one flipped byte is noticed or harmless; it never gives wrong data, and nothing hangs.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use rusd::env::Env;
use rusd::storage::backend::{Engine, quarantine};
use rusd::storage::values;
use rusd::types::StorageError;

use crate::common::{append, at, flush, is_everything, position, record, values_config};

const LIMIT: Duration = Duration::from_secs(120);
const LAST: i64 = 600;

/// etcd 20271. Cause: a page of its database file was other than it had been written. Symptom: a panic while it ran, and
/// at every start. Here whatever is read is checked, and what is wrong is an error that names the place.
#[test]
fn issue_20271_sled_never_gives_wrong_data_after_a_flipped_byte() {
    never_gives_wrong_data(Engine::Sled, 160);
}

/// As for sled.
#[test]
fn issue_20271_redb_never_gives_wrong_data_after_a_flipped_byte() {
    never_gives_wrong_data(Engine::Redb, 160);
}

/// A directory with a history of flushes: several logs, frames and free slots.
fn make(engine: Engine, dir: &Path, close: bool) {
    let (mut writer, reader, _) = values::open(&Env::real(), values_config(engine, dir)).unwrap();
    for main in 1..=LAST {
        append(&mut writer, main, if main % 100 == 0 { 30_000 } else { 200 });
        if main % 60 == 0 {
            flush(&writer);
        }
    }
    flush(&writer);
    if close {
        drop((writer, reader));
    } else {
        // As a kill leaves it: the files are copied while it is open.
        copy(&dir.join("store"), &dir.join("copy"));
        drop((writer, reader));
        std::fs::remove_dir_all(dir.join("store")).unwrap();
        std::fs::rename(dir.join("copy"), dir.join("store")).unwrap();
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    for file in files(from) {
        let to = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(file, to).unwrap();
    }
}

/// Everything that can be read from a directory, or that it is damaged.
fn check(engine: Engine, dir: &Path) -> Result<(), StorageError> {
    let (_writer, reader, loaded) = values::open(&Env::real(), values_config(engine, dir))?;
    assert_eq!(loaded.position, position(LAST), "an older state was taken for the newest");
    let mut heads = 0;
    for (head, main) in loaded.records.zip(1..) {
        let (found, _) = head?;
        assert_eq!(found, at(main));
        heads = main;
    }
    assert_eq!(heads, LAST);
    for main in 1..=LAST {
        let bytes = if main % 100 == 0 { 30_000 } else { 200 };
        assert_eq!(reader.record(at(main))?, Some(record(main, bytes)));
    }
    let all = reader.scan(at(0), at(i64::MAX), usize::MAX)?;
    assert_eq!(all.len() as i64, LAST);
    Ok(())
}

/// The same under a time limit; a panic of an assertion comes through.
fn check_in_time(engine: Engine, dir: PathBuf, what: &str) -> Result<(), StorageError> {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || sender.send(check(engine, &dir)).unwrap());
    match receiver.recv_timeout(LIMIT) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what}: a read does not come to an end"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let _ = thread.join();
            panic!("{what}: wrong data")
        }
    }
}

fn never_gives_wrong_data(engine: Engine, flips: usize) {
    let mut seed = 11u64;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    let mut noticed = 0;
    for close in [true, false] {
        let original = tempfile::tempdir().unwrap();
        make(engine.clone(), original.path(), close);
        assert!(check_in_time(engine.clone(), clone_of(original.path()).keep(), "unharmed").is_ok());
        // Metadata is small and slots are large: each file gets its share of the flips.
        let files: Vec<_> = files(&original.path().join("store"))
            .into_iter()
            .filter(|file| file.metadata().unwrap().len() > 0)
            .collect();
        for flip in 0..flips / 2 {
            let file = &files[flip % files.len()];
            let dir = clone_of(original.path());
            let file = dir.path().join(file.strip_prefix(original.path()).unwrap());
            let mut bytes = std::fs::read(&file).unwrap();
            // Half of the flips go near the beginning, where the headers are.
            let place = if flip % 2 == 0 { random(bytes.len()) } else { random(bytes.len().min(8192)) };
            bytes[place] ^= 1 << random(8);
            std::fs::write(&file, bytes).unwrap();
            let what = format!("{} byte {place}, closed: {close}", file.display());
            let begin = std::time::Instant::now();
            let result = check_in_time(engine.clone(), dir.path().to_owned(), &what);
            if begin.elapsed() > Duration::from_secs(5) {
                println!("{what}: {result:?} took {:?}", begin.elapsed());
            }
            match result {
                Ok(()) => {}
                Err(StorageError::Damaged { .. }) => noticed += 1,
                Err(error) => panic!("{what}: {error}"),
            }
        }
    }
    assert!(noticed > flips / 20, "only {noticed} of {flips} flips were noticed");
}

fn clone_of(dir: &Path) -> tempfile::TempDir {
    let clone = tempfile::tempdir().unwrap();
    copy(dir, clone.path());
    clone
}

#[test]
fn lost_files_are_noticed() {
    for engine in [Engine::Sled, Engine::Redb] {
        let original = tempfile::tempdir().unwrap();
        make(engine.clone(), original.path(), true);
        for file in files(&original.path().join("store")) {
            let dir = clone_of(original.path());
            let file = dir.path().join(file.strip_prefix(original.path()).unwrap());
            if file.metadata().unwrap().len() == 0 || file.to_string_lossy().contains("durability_cookie") {
                continue;
            }
            std::fs::remove_file(&file).unwrap();
            let what = format!("without {}", file.display());
            match check_in_time(engine.clone(), dir.path().to_owned(), &what) {
                // Then it held nothing: an empty snapshot, a witness that agrees.
                Ok(()) => {}
                Err(StorageError::Damaged { .. }) => {}
                Err(error) => panic!("{what}: {error}"),
            }
        }
    }
}

#[test]
fn an_old_copy_of_the_engine_is_noticed() {
    for engine in [Engine::Sled, Engine::Redb] {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, reader, _) = values::open(&Env::real(), values_config(engine.clone(), dir.path())).unwrap();
        append(&mut writer, 1, 100);
        drop((writer, reader));
        copy(&dir.path().join("store/engine-1"), &dir.path().join("old"));
        let (mut writer, reader, _) = values::open(&Env::real(), values_config(engine.clone(), dir.path())).unwrap();
        append(&mut writer, 2, 100);
        drop((writer, reader));
        std::fs::remove_dir_all(dir.path().join("store/engine-1")).unwrap();
        std::fs::rename(dir.path().join("old"), dir.path().join("store/engine-1")).unwrap();
        let result = values::open(&Env::real(), values_config(engine, dir.path()));
        assert!(matches!(result, Err(StorageError::Damaged { .. })), "{:?}", result.err());
    }
}

#[test]
fn a_damaged_home_is_put_aside_and_another_made() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("store");
    for round in 0..3 {
        make(Engine::Redb, dir.path(), true);
        let aside = quarantine(&Env::real(), &home).unwrap();
        let number = if round == 0 { String::new() } else { format!("-{round}") };
        assert_eq!(aside, dir.path().join(format!("store.damaged{number}")));
        assert!(!home.exists() && aside.join("CURRENT").exists());
    }
    let (_writer, reader, loaded) = values::open(&Env::real(), values_config(Engine::Redb, dir.path())).unwrap();
    is_everything(&reader, loaded.records, 1..1, 0);
}
