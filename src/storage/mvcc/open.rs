//! Opening a store: the index is built again from the heads of the stored records.

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::reclaim::Reclaim;
use super::store::{COMPACT_KEY, Store};
use crate::env::Env;
use crate::storage::backend::{Engine, MemoryImage};
use crate::storage::index::{Builder, Index, Rows, Version, ascending};
use crate::storage::publish::{Compaction, Published, Shared};
use crate::storage::values::{self, RecordHead, RecordHeads, ValuesConfig};
use crate::storage::{AppliedPosition, Table};
use crate::types::{Revision, StorageError};

/// How to open a store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Engine, directory, memory budget, flushing.
    pub values: ValuesConfig,
}

impl StoreConfig {
    /// The defaults for an engine in a directory.
    pub fn new(engine: Engine, dir: impl Into<PathBuf>) -> Self {
        Self { values: ValuesConfig::new(engine, dir) }
    }
}

/// What a store found on disk when it was opened, for the rooms above.
#[derive(Debug, Default)]
pub struct Opened {
    /// Up to where the log is in it.
    pub position: AppliedPosition,
    /// The pairs of `Table::Meta`.
    pub meta: Vec<(Bytes, Bytes)>,
    /// The pairs of `Table::Lease`.
    pub leases: Vec<(Bytes, Bytes)>,
    /// The pairs of `Table::Auth`.
    pub auth: Vec<(Bytes, Bytes)>,
}

impl Store {
    /// Opens what lies in the configured directory, or an empty store.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] if the content isn't what was written; the caller puts the
    /// directory aside and rebuilds it.
    pub fn open(env: &Env, config: StoreConfig) -> Result<(Self, Opened), StorageError> {
        let dir = config.values.backend.dir.clone();
        let (writer, reader, loaded) = values::open(env, config.values)?;
        let mut found = Found::with_capacity(RecordHeads::count(&loaded.records));
        for head in loaded.records {
            let (at, head) = head?;
            found.add(at, head.key.clone(), version_of(at, &head));
        }
        let mut rows = Rows::default();
        for (table, pairs) in [(Table::Meta, loaded.meta), (Table::Lease, loaded.lease), (Table::Auth, loaded.auth)] {
            pairs.into_iter().for_each(|(key, value)| rows.set(table, &key, Some(value)));
        }
        let (published, opened) = found.publish(rows, loaded.position).map_err(|what| damaged(dir, what))?;
        let store = Self {
            index: published.index.clone(),
            revision: published.revision,
            compact: published.compact,
            changes: Vec::new(),
            rows: published.rows.clone(),
            row_changes: Vec::new(),
            values: writer,
            reclaim: Reclaim::new(published.compact.revision),
            install_hook: None,
            shared: Arc::new(Shared::new(published, reader, Arc::clone(&env.clock))),
        };
        Ok((store, opened))
    }

    /// An empty store whose disk is memory; for tests and for trying things out.
    pub fn in_memory() -> Self {
        let mut config = StoreConfig::new(Engine::Memory(MemoryImage::default()), "memory");
        config.values.cache_bytes = 16 << 20;
        let (store, _) = Self::open(&Env::real(), config).expect("an empty map opens, and one more thread can be had");
        store
    }
}

pub(super) fn damaged(path: PathBuf, what: &str) -> StorageError {
    StorageError::Damaged { path, offset: 0, what: what.into() }
}

fn compaction_of(row: &[u8]) -> Option<Compaction> {
    let (revision, previous) = row.split_first_chunk::<8>()?;
    let previous = previous.try_into().ok()?;
    Some(Compaction { revision: i64::from_be_bytes(*revision), previous: i64::from_be_bytes(previous) })
}

/// Keys that are looked at together.
const AT_A_TIME: usize = 64;

/// What stored records say about their keys, gathered in the order of revisions.
#[derive(Debug, Default)]
pub(super) struct Found {
    versions: Vec<(Bytes, Version)>,
    last: i64,
}

impl Found {
    fn with_capacity(records: u64) -> Self {
        Self { versions: Vec::with_capacity(usize::try_from(records).unwrap_or(0)), last: 0 }
    }

    pub(super) fn add(&mut self, at: Revision, key: Bytes, version: Version) {
        self.last = at.main;
        self.versions.push((key, version));
    }

    /// The state that these records and `rows` are.
    ///
    /// The revision is the highest of the last stored one and the compact one, so that it never goes
    /// back even if the last key was deleted and compacted away.
    pub(super) fn publish(self, rows: Rows, position: AppliedPosition) -> Result<(Published, Opened), &'static str> {
        let compact = match rows.get(Table::Meta, COMPACT_KEY) {
            None => Compaction::NEVER,
            Some(row) => compaction_of(row).ok_or("the row of the compact revision is not 16 bytes long")?,
        };
        let opened =
            Opened { position, meta: rows.of(Table::Meta), leases: rows.of(Table::Lease), auth: rows.of(Table::Auth) };
        let revision = self.last.max(compact.revision).max(1);
        Ok((Published { index: self.index(), rows, revision, compact, position }, opened))
    }

    fn index(self) -> Index {
        let found = &self.versions;
        // A key's versions stay in the order of their revisions.
        let order = ascending(found.iter().map(|(key, _)| key), |place| &found[place].0);
        let mut builder = Builder::default();
        let mut versions = Vec::new();
        let mut looked = 0;
        let mut begun = 0;
        for group in order.chunk_by(|_, next| next.is_same) {
            // Some are looked at before, so that the processor waits for all of them at once.
            if begun >= looked {
                let ahead = order[begun..].iter().take(AT_A_TIME);
                black_box(ahead.filter_map(|place| found[place.at].0.last()).fold(0, |sum, byte| sum ^ byte));
                looked = begun + AT_A_TIME;
            }
            begun += group.len();
            versions.clear();
            versions.extend(group.iter().map(|place| found[place.at].1));
            builder.push(&found[group[0].at].0, &versions);
        }
        builder.finish()
    }
}

fn version_of(at: Revision, head: &RecordHead) -> Version {
    let written = head.version.as_ref();
    Version::stored(at, written.map(|put| (put.create_revision, put.version, put.lease, put.digest)))
}
