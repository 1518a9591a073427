//! Opening a store: the index is built again from the heads of the stored records.

use bytes::Bytes;

use super::reclaim::Reclaim;
use super::store::{COMPACT_KEY, Store};
use crate::env::Env;
use crate::storage::backend::{Engine, MemoryImage};
use crate::storage::index::{Builder, Index, Version};
use crate::storage::publish::{Compaction, Published, Shared};
use crate::storage::values::{self, RecordHead, RecordHeads, ValuesConfig};
use crate::storage::{AppliedPosition, KeyMeta};
use crate::types::{Revision, StorageError};
use std::path::PathBuf;
use std::sync::Arc;

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
    /// The revision is the highest of the last stored one and the compact one, so that it never goes
    /// back even if the last key was deleted and compacted away.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] if the content isn't what was written; the caller puts the
    /// directory aside and rebuilds it.
    pub fn open(env: &Env, config: StoreConfig) -> Result<(Self, Opened), StorageError> {
        let dir = config.values.backend.dir.clone();
        let (writer, reader, loaded) = values::open(env, config.values)?;
        let compact = match loaded.meta.iter().find(|(key, _)| key == COMPACT_KEY) {
            None => Compaction::NEVER,
            Some((_, row)) => compaction_of(row).ok_or_else(|| StorageError::Damaged {
                path: dir,
                offset: 0,
                what: "the row of the compact revision is not 16 bytes long".into(),
            })?,
        };
        let (index, last) = rebuild(loaded.records)?;
        let revision = last.max(compact.revision).max(1);
        let opened = Opened { position: loaded.position, meta: loaded.meta, leases: loaded.lease, auth: loaded.auth };
        let published = Published { index: index.clone(), revision, compact, position: loaded.position };
        let store = Self {
            index,
            revision,
            compact,
            changes: Vec::new(),
            rows: Vec::new(),
            values: writer,
            shared: Arc::new(Shared::new(published, reader, Arc::clone(&env.clock))),
            reclaim: Reclaim::new(compact.revision),
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

fn compaction_of(row: &[u8]) -> Option<Compaction> {
    let (revision, previous) = row.split_first_chunk::<8>()?;
    let previous = previous.try_into().ok()?;
    Some(Compaction { revision: i64::from_be_bytes(*revision), previous: i64::from_be_bytes(previous) })
}

/// The index of all heads, and the last main revision among them (0 if there is none).
fn rebuild(heads: RecordHeads) -> Result<(Index, i64), StorageError> {
    let mut found: Vec<(Bytes, Version)> = Vec::with_capacity(usize::try_from(RecordHeads::count(&heads)).unwrap_or(0));
    let mut last = 0;
    for head in heads {
        let (at, head) = head?;
        last = at.main;
        found.push((head.key.clone(), version_of(at, &head)));
    }
    // Stable, so that a key's versions stay in the order of their revisions.
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut builder = Builder::default();
    let mut versions = Vec::new();
    for group in found.chunk_by(|(a, _), (b, _)| a == b) {
        versions.clear();
        versions.extend(group.iter().map(|(_, version)| *version));
        builder.push(&group[0].0, &versions);
    }
    Ok((builder.finish(), last))
}

fn version_of(at: Revision, head: &RecordHead) -> Version {
    match &head.version {
        None => Version::tombstone(at),
        Some(version) => {
            let meta = KeyMeta {
                create: version.create_revision,
                modified: at,
                version: version.version,
                lease: version.lease,
            };
            Version::put(meta, version.digest)
        }
    }
}
