//! Kills: what was flushed is there, and what is there is the state at one position.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusd::env::{CrashStyle, Env, MemDisk, SeededRng};
use rusd::storage::backend::{Engine, Table};
use rusd::storage::values::{self, Loaded, ValueReader, ValueWriter};

use crate::common::{at, position, record, values_config};

const DIR: &str = "RUSD_TEST_CRASH_DIR";
const ENGINE: &str = "RUSD_TEST_CRASH_ENGINE";
const ROUNDS: u32 = 12;

#[test]
fn sled_survives_kills() {
    survives_kills("sled");
}

#[test]
fn redb_survives_kills() {
    survives_kills("redb");
}

fn engine(name: &str) -> Engine {
    if name == "sled" { Engine::Sled } else { Engine::Redb }
}

/// A child writes and removes and says what is durable; it is killed at some moment; the next one
/// goes on from there.
fn survives_kills(name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut durable = 0;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--ignored", "--nocapture"])
            .env(DIR, dir.path())
            .env(ENGINE, name)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let began = lines.by_ref().map_while(Result::ok).any(|line| line == "began");
        assert!(began, "round {round}: the child could not open what the last one left");
        std::thread::sleep(Duration::from_millis(u64::from(20 + 37 * round % 300)));
        child.kill().unwrap();
        child.wait().unwrap();
        let said = lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("durable ")?.parse().ok()).last();
        durable = durable.max(said.unwrap_or(0));

        let config = values_config(engine(name), dir.path());
        let (writer, reader, loaded) = values::open(&Env::real(), config).unwrap();
        let found = loaded.position.index.get() as i64;
        assert!(found >= durable, "round {round}: entry {durable} was durable, {found} was found");
        is_the_state_at(found, &writer, &reader, loaded);
        durable = found;
    }
    assert!(durable > 100, "the children hardly wrote anything: {durable}");
}

/// Main revision n is entry n. Every tenth entry removes the nine before the ten before it.
fn write_entry(writer: &mut ValueWriter, main: i64) {
    let bytes = if main % 50 == 0 { 40_000 } else { 100 + (main % 200) as usize };
    let row = (Table::Meta, Bytes::from_static(b"main"), Some(Bytes::from(main.to_string())));
    writer.append(vec![(at(main), record(main, bytes))], vec![row], position(main)).unwrap();
    if main % 10 == 0 && main > 20 {
        writer.remove((main - 19..main - 10).map(at).collect(), None);
    }
}

fn is_the_state_at(main: i64, writer: &ValueWriter, reader: &ValueReader, loaded: Loaded) {
    if main == 0 {
        return;
    }
    assert_eq!(loaded.meta, [(Bytes::from_static(b"main"), Bytes::from(main.to_string()))]);
    let heads: Vec<i64> = loaded.records.map(|head| head.unwrap().0.main).collect();
    let records = reader.scan(at(0), at(i64::MAX), usize::MAX).unwrap();
    assert_eq!(records.iter().map(|(at, _)| at.main).collect::<Vec<_>>(), heads);
    for (at, found) in &records {
        let bytes = found.version.as_ref().unwrap().value.len();
        assert_eq!(*found, record(at.main, bytes));
    }
    // All that are never removed are there, and nothing above the position.
    let kept = |main: &i64| main % 10 == 0;
    assert!((1..=main).filter(kept).all(|main| heads.binary_search(&main).is_ok()));
    assert!((main - 10..=main).filter(|main| *main > 0).all(|main| heads.binary_search(&main).is_ok()));
    assert_eq!(heads.last(), Some(&main));
    let sizes: u64 = records.iter().map(|(_, record)| values::record_bytes(record)).sum();
    assert_eq!(writer.logical_size(), sizes);
}

#[test]
#[ignore = "run by the tests above as a child"]
fn child() {
    let (Some(dir), Ok(name)) = (std::env::var_os(DIR), std::env::var(ENGINE)) else {
        return;
    };
    let mut config = values_config(engine(&name), Path::new(&dir));
    config.remove_step = 50;
    let (mut writer, _reader, loaded) = values::open(&Env::real(), config).unwrap();
    println!("began");
    let durable = writer.durable();
    let mut said = loaded.position;
    // The parent kills it long before.
    for main in loaded.position.index.get() as i64 + 1..1_000_000 {
        write_entry(&mut writer, main);
        let now = *durable.borrow();
        if now > said {
            said = now;
            println!("durable {}", now.index.get());
        }
    }
}

/// redb reaches its file through the door, so the power can be cut under it: what isn't synced is
/// lost, wholly or sector by sector.
#[test]
fn redb_survives_power_cuts_at_any_moment() {
    let random = SeededRng::new(5);
    for style in [CrashStyle::LoseAll, CrashStyle::Torn(&random)] {
        let mut disk = MemDisk::new();
        let mut durable = 0;
        for round in 0..15 {
            let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
            let mut config = values_config(Engine::Redb, Path::new("/no-such-dir/data"));
            config.flush_interval = Duration::from_millis(1);
            let opened = values::open(&env, config);
            let (mut writer, reader, loaded) = opened.unwrap_or_else(|error| panic!("round {round}: {error}"));
            let found = loaded.position.index.get() as i64;
            assert!(found >= durable, "round {round}: entry {durable} was durable, {found} was found");
            is_the_state_at(found, &writer, &reader, loaded);
            let position = writer.durable();
            for main in found + 1..found + 400 {
                write_entry(&mut writer, main);
            }
            // Somewhere in the middle of its work: the disk as it is now is what the crash leaves.
            std::thread::sleep(Duration::from_micros(700 * round));
            durable = position.borrow().index.get() as i64;
            let left = disk.fork();
            drop((writer, reader));
            left.crash(style);
            disk = left;
        }
        assert!(durable > 100);
    }
}

#[test]
fn a_crash_between_write_and_flush_leaves_the_flush() {
    use rusd::storage::backend::{self, BackendConfig, Batch};
    for engine in [Engine::Memory(Default::default()), Engine::Redb] {
        let disk = MemDisk::new();
        let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
        let config = BackendConfig::new(engine, "/data/engine");
        let engine = backend::open(&env, &config).unwrap();
        let put = |value: &[u8]| {
            let mut batch = Batch::default();
            batch.put(Table::Kv, b"a", value);
            batch.put(Table::Meta, b"b", value);
            engine.write(&batch).unwrap();
        };
        put(b"flushed");
        engine.flush().unwrap();
        put(b"written");
        let left = disk.fork();
        std::mem::forget(engine);
        left.crash(CrashStyle::LoseAll);
        let env = Env { disk: Arc::new(left), ..Env::real() };
        let again = backend::open(&env, &config).unwrap();
        assert_eq!(again.get(Table::Kv, b"a").unwrap().as_deref(), Some(&b"flushed"[..]));
        assert_eq!(again.get(Table::Meta, b"b").unwrap().as_deref(), Some(&b"flushed"[..]));
    }
}
