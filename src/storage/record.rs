//! `Record`: what is stored for one revision. Its bytes on disk are `storage::backend::codec`'s.

use bytes::{BufMut, Bytes, BytesMut};

use crate::types::{Event, EventKind, KeyValue, LeaseId, Revision};

/// One change as it is stored: a version of a key, or its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The key.
    pub key: Bytes,
    /// The version, or `None` for a tombstone.
    pub version: Option<VersionRecord>,
}

/// The stored part of a put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionRecord {
    /// The value.
    pub value: Bytes,
    /// Main revision of the put that began the generation.
    pub create_revision: i64,
    /// Puts since creation, 1 for the first.
    pub version: i64,
    /// The lease, or none.
    pub lease: LeaseId,
}

impl Record {
    /// Bytes of key and value.
    pub fn size(&self) -> usize {
        self.key.len() + self.version.as_ref().map_or(0, |version| version.value.len())
    }

    /// The pair as clients see it; `None` for a tombstone.
    pub fn key_value(&self, at: Revision) -> Option<KeyValue> {
        self.version.as_ref().map(|version| KeyValue {
            key: self.key.clone(),
            value: version.value.clone(),
            create_revision: version.create_revision,
            mod_revision: at.main,
            version: version.version,
            lease: version.lease,
        })
    }

    /// The same without a copy of the record.
    pub fn into_key_value(self, at: Revision) -> Option<KeyValue> {
        let Self { key, version } = self;
        version.map(|version| KeyValue {
            key,
            value: version.value,
            create_revision: version.create_revision,
            mod_revision: at.main,
            version: version.version,
            lease: version.lease,
        })
    }

    /// The event that this record is to a watcher.
    pub fn event(&self, at: Revision) -> Event {
        match self.key_value(at) {
            Some(kv) => Event { kind: EventKind::Put, kv, revision: at },
            None => Event {
                kind: EventKind::Delete,
                kv: KeyValue { key: self.key.clone(), mod_revision: at.main, ..KeyValue::default() },
                revision: at,
            },
        }
    }

    /// The same in one allocation of its own: what came off the wire is a slice of all that was read with it, and a record
    /// that is kept would keep that.
    pub fn detached(self) -> Self {
        let value = self.version.as_ref().map_or(&[][..], |version| &version.value);
        let mut both = BytesMut::with_capacity(self.key.len() + value.len());
        both.put_slice(&self.key);
        both.put_slice(value);
        let (both, split) = (both.freeze(), self.key.len());
        let version = self.version.map(|version| VersionRecord { value: both.slice(split..), ..version });
        Self { key: both.slice(..split), version }
    }
}
