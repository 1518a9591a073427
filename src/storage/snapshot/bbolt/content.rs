//! What etcd keeps in which bucket, and in which bytes.

use std::collections::BTreeMap;

use super::super::SnapshotHeader;
use crate::storage::Record;
use crate::storage::backend::codec::put_varint;
use crate::types::{LeaseId, MemberId, Revision};

/// Rows by bucket.
type Buckets = BTreeMap<&'static str, BTreeMap<Vec<u8>, Vec<u8>>>;

/// Every bucket of etcd's besides `key`, which is made from the records.
const BUCKETS: [&str; 9] =
    ["alarm", "auth", "authRoles", "authUsers", "cluster", "lease", "members", "members_removed", "meta"];

/// What the rooms above know of the state, in etcd's terms. Position and compaction come from the
/// snapshot itself.
#[derive(Clone, Debug, Default)]
pub struct BboltContent {
    buckets: Buckets,
}

impl BboltContent {
    /// Nothing but the versions (such as "3.7.0") that etcd's tools look for.
    pub fn new(storage_version: &str, cluster_version: &str) -> Self {
        let mut content = Self::default();
        content.put("meta", b"storageVersion", storage_version.as_bytes());
        content.put("cluster", b"clusterVersion", cluster_version.as_bytes());
        content
    }

    fn put(&mut self, bucket: &'static str, key: &[u8], value: &[u8]) {
        self.buckets.entry(bucket).or_default().insert(key.to_vec(), value.to_vec());
    }

    /// A lease with its granted and its remaining seconds (0 if it was never checkpointed).
    pub fn lease(&mut self, id: LeaseId, ttl_secs: i64, remaining_secs: i64) {
        let mut value = Vec::new();
        put_field(&mut value, 1, id.get());
        put_field(&mut value, 2, ttl_secs);
        put_field(&mut value, 3, remaining_secs);
        self.put("lease", &id.get().to_be_bytes(), &value);
    }

    /// An alarm with its number on the wire.
    pub fn alarm(&mut self, member: MemberId, kind: i32) {
        let mut key = Vec::new();
        put_field(&mut key, 1, member.get().cast_signed());
        put_field(&mut key, 2, i64::from(kind));
        self.put("alarm", &key, &[]);
    }

    /// A member and the JSON that etcd describes it by.
    pub fn member(&mut self, id: MemberId, json: &[u8]) {
        self.put("members", id.to_string().as_bytes(), json);
    }

    /// Who votes and who learns, in the JSON of etcd's `ConfState`.
    pub fn conf_state(&mut self, json: &[u8]) {
        self.put("meta", b"confState", json);
    }

    /// Whether authentication is on, and the revision of its data.
    pub fn auth(&mut self, enabled: bool, revision: u64) {
        self.put("auth", b"authEnabled", &[u8::from(enabled)]);
        self.put("auth", b"authRevision", &revision.to_be_bytes());
    }

    /// A user in the bytes of `authpb.User`.
    pub fn auth_user(&mut self, name: &[u8], user: &[u8]) {
        self.put("authUsers", name, user);
    }

    /// A role in the bytes of `authpb.Role`.
    pub fn auth_role(&mut self, name: &[u8], role: &[u8]) {
        self.put("authRoles", name, role);
    }

    /// Every bucket but `key`.
    pub(super) fn buckets(&self, header: &SnapshotHeader) -> Buckets {
        let mut content = self.clone();
        for name in BUCKETS {
            content.buckets.entry(name).or_default();
        }
        content.put("meta", b"consistent_index", &header.position.index.get().to_be_bytes());
        content.put("meta", b"term", &header.position.term.get().to_be_bytes());
        if header.compact_revision > 0 {
            // Only begun: whoever opens it finishes, and drops the records that are left below.
            let at = revision_bytes(Revision::new(header.compact_revision, 0));
            content.put("meta", b"scheduledCompactRev", &at);
        }
        content.buckets
    }
}

/// The key of a record: `main _ sub`, and `t` for a tombstone.
pub(super) fn key_of(at: Revision, record: &Record) -> Vec<u8> {
    let mut key = revision_bytes(at);
    if record.version.is_none() {
        key.push(b't');
    }
    key
}

pub(super) fn revision_bytes(at: Revision) -> Vec<u8> {
    [&at.main.to_be_bytes()[..], b"_", &at.sub.to_be_bytes()].concat()
}

/// The bytes of `mvccpb.KeyValue`: key 1, create 2, modified 3, version 4, value 5, lease 6.
pub(super) fn value_of(at: Revision, record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(record.key.len() + 64);
    put_bytes(&mut out, 1, &record.key);
    if let Some(version) = &record.version {
        put_field(&mut out, 2, version.create_revision);
        put_field(&mut out, 3, at.main);
        put_field(&mut out, 4, version.version);
        put_bytes(&mut out, 5, &version.value);
        put_field(&mut out, 6, version.lease.get());
    }
    out
}

/// A number as protobuf has it: left out if 0.
fn put_field(out: &mut Vec<u8>, field: u8, value: i64) {
    if value != 0 {
        out.push(field << 3);
        put_varint(out, value.cast_unsigned());
    }
}

/// Bytes as protobuf has them: left out if empty.
fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.push(field << 3 | 2);
        put_varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::storage::VersionRecord;

    #[test]
    fn keys_and_values_are_etcds_bytes() {
        let version =
            VersionRecord { value: Bytes::from_static(b"v"), create_revision: 2, version: 300, lease: LeaseId(1) };
        let put = Record { key: Bytes::from_static(b"k"), version: Some(version) };
        let at = Revision::new(5, 1);
        assert_eq!(key_of(at, &put), b"\0\0\0\0\0\0\0\x05_\0\0\0\0\0\0\0\x01");
        assert_eq!(value_of(at, &put), b"\x0a\x01k\x10\x02\x18\x05\x20\xac\x02\x2a\x01v\x30\x01");
        let tombstone = Record { version: None, ..put };
        assert_eq!(key_of(at, &tombstone).last(), Some(&b't'));
        assert_eq!(value_of(at, &tombstone), b"\x0a\x01k");
    }
}
