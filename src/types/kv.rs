//! A pair as clients see it, and a change to one.

use bytes::Bytes;

use super::{LeaseId, Revision};

/// One version of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value; empty where a request asked for keys only.
    pub value: Bytes,
    /// Main revision of the put that began this generation of the key.
    pub create_revision: i64,
    /// Main revision of this version's put.
    pub mod_revision: i64,
    /// Puts since creation: 1 for the first.
    pub version: i64,
    /// The lease that the key hangs on, or none.
    pub lease: LeaseId,
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was created or changed.
    Put,
    /// It was deleted.
    Delete,
}

/// One change to one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The new version; for a delete only `key` and `mod_revision` are set.
    pub kv: KeyValue,
    /// Where this change stands in history; `kv.mod_revision` is its main part.
    pub revision: Revision,
}

impl Event {
    /// Whether this put began a new generation of its key (it then has no previous pair).
    pub fn is_create(&self) -> bool {
        self.kind == EventKind::Put && self.kv.version == 1
    }
}
