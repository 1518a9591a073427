//! `Snapshot`: one published state, held.

use crate::storage::{AppliedPosition, KeyMeta, RangeQuery, RangeResult, Scoped};
use crate::types::{KeyRange, KeyValue, RequestError, StorageError};

/// Whether a read may wait for the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// Values in memory only; anything else is [`ReadError::NeedsDisk`]. For callers on an async task.
    Never,
    /// The caller may block.
    Allowed,
}

/// Why a read gave no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The request can't be answered.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// A value is not in memory: ask again with [`Disk::Allowed`] where blocking is allowed.
    #[error("a value has to be read from disk")]
    NeedsDisk,
}

impl From<StorageError> for ReadError {
    fn from(error: StorageError) -> Self {
        Self::Request(error.into())
    }
}

/// A published state that doesn't change any more.
#[derive(Debug)]
pub struct Snapshot {}

impl Snapshot {
    /// The current revision in it.
    pub fn revision(&self) -> i64 {
        1
    }

    /// The lowest readable revision; −1 if nothing was ever compacted.
    pub fn compact_revision(&self) -> i64 {
        -1
    }

    /// Up to where the log is in it.
    pub fn position(&self) -> AppliedPosition {
        AppliedPosition::default()
    }

    /// Bytes of all kept records, for the quota and for `db_size_in_use`.
    pub fn logical_size(&self) -> u64 {
        0
    }

    /// The digest of the living keys at [`Snapshot::revision`]; equal on every member at that revision.
    pub fn digest(&self) -> u64 {
        0
    }

    /// Living keys in `range` now, in O(log n).
    pub fn count(&self, range: &KeyRange) -> i64 {
        let _ = range;
        0
    }

    /// A range read after the rules of 02 §3.
    pub fn range(&self, query: &RangeQuery, disk: Disk) -> Result<Scoped<RangeResult>, ReadError> {
        let _ = (query, disk);
        Ok(Scoped { value: RangeResult::default(), revision: 1, term: self.position().term })
    }

    /// One key as of now.
    pub fn get(&self, key: &[u8], disk: Disk) -> Result<Scoped<Option<KeyValue>>, ReadError> {
        let _ = (key, disk);
        Ok(Scoped { value: None, revision: 1, term: self.position().term })
    }

    /// What the index knows of one key now.
    pub fn meta_of(&self, key: &[u8]) -> Option<KeyMeta> {
        let _ = key;
        None
    }

    /// The digest of the keys living at `revision` (0 or less: now), with the revision it is of.
    pub fn hash_kv(&self, revision: i64) -> Result<Scoped<HashKv>, ReadError> {
        let _ = revision;
        Ok(Scoped {
            value: HashKv { hash: 0, compact_revision: -1, hash_revision: 1 },
            revision: 1,
            term: self.position().term,
        })
    }
}

/// What members compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// The digest folded to the wire's 32 bits.
    pub hash: u32,
    /// The compact revision then, as the wire has it (0 if there is none).
    pub compact_revision: i64,
    /// The revision that was hashed.
    pub hash_revision: i64,
}
