//! Engines in temporary directories, and records to fill them with.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use rusd::env::Env;
use rusd::storage::backend::{BackendConfig, Engine, MemoryImage};
use rusd::storage::values::{self, Loaded, RecordHeads, ValueReader, ValueWriter, ValuesConfig};
use rusd::storage::{AppliedPosition, Record, VersionRecord};
use rusd::types::{LeaseId, RaftIndex, Revision, StorageError, Term};

/// Runs each test of a module on each engine.
macro_rules! on_each_engine {
    ($($test:ident),+ $(,)?) => {
        mod memory { $(#[test] fn $test() { super::$test(rusd::storage::backend::Engine::Memory(Default::default())); })+ }
        mod sled { $(#[test] fn $test() { super::$test(rusd::storage::backend::Engine::Sled); })+ }
        mod redb { $(#[test] fn $test() { super::$test(rusd::storage::backend::Engine::Redb); })+ }
    };
}
pub(crate) use on_each_engine;

/// An engine's configuration and the directory that goes with it.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) engine: Engine,
}

impl Place {
    pub(crate) fn new(engine: Engine) -> Self {
        let engine = match engine {
            Engine::Memory(_) => Engine::Memory(MemoryImage::default()),
            other => other,
        };
        Self { dir: tempfile::tempdir().unwrap(), engine }
    }

    pub(crate) fn backend(&self) -> BackendConfig {
        BackendConfig {
            cache_bytes: 8 << 20,
            reserve_bytes: 0,
            ..BackendConfig::new(self.engine.clone(), self.dir.path().join("engine"))
        }
    }

    pub(crate) fn values(&self) -> ValuesConfig {
        values_config(self.engine.clone(), self.dir.path())
    }

    pub(crate) fn open(&self) -> Result<(ValueWriter, ValueReader, Loaded), StorageError> {
        values::open(&Env::real(), self.values())
    }
}

pub(crate) fn values_config(engine: Engine, dir: &Path) -> ValuesConfig {
    let mut config = ValuesConfig::new(engine, dir.join("store"));
    config.backend.reserve_bytes = 0;
    config.cache_bytes = 32 << 20;
    config.flush_interval = Duration::from_millis(5);
    config
}

pub(crate) fn at(main: i64) -> Revision {
    Revision::new(main, 0)
}

pub(crate) fn position(index: i64) -> AppliedPosition {
    AppliedPosition { index: RaftIndex(index as u64), term: Term(u64::from(index > 0)) }
}

/// The record that belongs to a main revision: its value is as long as `bytes` says.
pub(crate) fn record(main: i64, bytes: usize) -> Record {
    let seed = (main as u8).wrapping_mul(31);
    let value: Vec<u8> = (0..bytes).map(|at| seed.wrapping_add((at >> 3) as u8 ^ at as u8)).collect();
    let version = VersionRecord { value: value.into(), create_revision: main, version: 1, lease: LeaseId(main % 3) };
    Record { key: Bytes::from(format!("key/{:06}", main % 1000)), version: Some(version) }
}

pub(crate) fn append(writer: &mut ValueWriter, main: i64, bytes: usize) {
    writer.append(vec![(at(main), record(main, bytes))], vec![], position(main)).unwrap();
}

pub(crate) fn flush(writer: &ValueWriter) -> AppliedPosition {
    block_on(writer.flush()).unwrap()
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Whether this process may mount; a test that can't says so.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Checks that heads and records are exactly those of these main revisions.
pub(crate) fn is_everything(reader: &ValueReader, heads: RecordHeads, mains: std::ops::Range<i64>, bytes: usize) {
    let heads: Vec<_> = heads.map(Result::unwrap).collect();
    assert_eq!(heads.iter().map(|(at, _)| at.main).collect::<Vec<_>>(), mains.clone().collect::<Vec<_>>());
    for (at, head) in &heads {
        let record = record(at.main, bytes);
        assert_eq!(head.key, record.key);
        let (head, version) = (head.version.unwrap(), record.version.unwrap());
        assert_eq!(
            (head.create_revision, head.version, head.lease),
            (version.create_revision, version.version, version.lease)
        );
        assert_eq!(head.value_bytes, bytes as u64);
    }
    let records = reader.scan(at(mains.start), at(mains.end), usize::MAX).unwrap();
    let expected: Vec<_> = mains.map(|main| (at(main), record(main, bytes))).collect();
    assert!(records == expected, "{} records, {} expected", records.len(), expected.len());
}
