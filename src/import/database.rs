//! etcd's buckets as rows and records.
//!
//! ```text
//! meta       consistent_index, term (8 bytes, big-endian) · finishedCompactRev, scheduledCompactRev (a revision)
//! key        main (8 bytes, big-endian) _ sub [t] ─► mvccpb.KeyValue; of a tombstone only its key
//! lease      id ─► ID 1, TTL 2, RemainingTTL 3          alarm   memberID 1, alarm 2 ─► nothing
//! auth       authEnabled, authRevision                   authUsers, authRoles   name ─► authpb.User, authpb.Role
//! ```
//! Members and the cluster's version aren't taken over: who the members are, the flags say.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;
use rusd_proto::{authpb, mvccpb};

use super::ImportError;
use super::error::Stop;
use crate::apply::{AlarmKind, Alarms};
use crate::auth::{self, PasswordHash, Permission, PermissionKind, Role, User};
use crate::env::Disk;
use crate::lease::LeaseRecord;
use crate::storage::snapshot::bbolt::{BboltError, BboltFile, Checked};
use crate::storage::{AppliedPosition, Record, Table, VersionRecord, compact_row};
use crate::types::{LeaseId, MemberId, RaftIndex, Revision, Term};

/// Rows of the small tables.
pub type Rows = Vec<(Table, Bytes, Bytes)>;

/// An index beyond this is none that a log can have come to.
const INDEX_MAX: u64 = 1 << 62;
/// A revision beyond this is none that a store can have come to, and there must be room for more.
pub const REVISION_MAX: i64 = 1 << 62;
/// Each restore of a snapshot leaves one mark at most.
const MARKS_MAX: usize = 10_000;
/// A key of the bucket `key`, without the mark of a tombstone.
const REVISION_BYTES: usize = 17;

/// etcd's state at one entry of its log, in a file.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    pub(super) file: BboltFile,
}

/// A lease as etcd stores it.
#[derive(Clone, PartialEq, Message)]
struct StoredLease {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    ttl_secs: i64,
    #[prost(int64, tag = "3")]
    remaining_secs: i64,
}

/// An alarm as etcd stores it.
#[derive(Clone, PartialEq, Message)]
struct StoredAlarm {
    #[prost(uint64, tag = "1")]
    member: u64,
    #[prost(int32, tag = "2")]
    kind: i32,
}

/// What etcd has compacted, at most; −1 is never.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Compacted {
    revision: i64,
    previous: i64,
}

impl Database {
    /// Opens a snapshot file, or the database of a data directory.
    ///
    /// # Errors
    /// Those of the disk, and what is no such file.
    pub fn open(disk: &dyn Disk, path: &Path) -> Result<Self, ImportError> {
        match BboltFile::open(disk, path) {
            Ok(file) => Ok(Self { path: path.to_owned(), file }),
            Err(BboltError::Io(source)) => Err(ImportError::io("read", path)(source)),
            Err(error) => Err(Stop::File(error).at(path)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn at(&self) -> impl FnOnce(Stop) -> ImportError + use<> {
        let path = self.path.clone();
        move |stop| stop.at(path)
    }

    fn pair(&self, bucket: &'static str, what: impl Into<String>) -> ImportError {
        ImportError::Pair { path: self.path.clone(), bucket, what: what.into() }
    }

    /// Looks at every page.
    ///
    /// # Errors
    /// The first damage.
    pub fn check(&self, progress: &mut dyn FnMut(u64)) -> Result<Checked, ImportError> {
        self.file.check(progress).map_err(|error| Stop::File(error).at(&self.path))
    }

    /// Bytes of its pages.
    pub fn size(&self) -> u64 {
        self.file.size()
    }

    /// The last entry of etcd's log that is in it. Where none is noted, as in a file that was only ever restored,
    /// it is the first.
    ///
    /// # Errors
    /// Damage.
    pub fn position(&self) -> Result<AppliedPosition, ImportError> {
        let index = self.number("meta", b"consistent_index")?.unwrap_or(0);
        let term = self.number("meta", b"term")?.unwrap_or(0);
        if index > INDEX_MAX || term > INDEX_MAX {
            return Err(self.pair("meta", "a position in the log that can't be"));
        }
        Ok(AppliedPosition { index: RaftIndex(index.max(1)), term: Term(term.max(1)) })
    }

    fn number(&self, bucket: &'static str, key: &'static [u8]) -> Result<Option<u64>, ImportError> {
        let Some(value) = self.get(bucket, key)? else { return Ok(None) };
        let bytes = value.try_into().map_err(|_| self.pair(bucket, "a number that isn't 8 bytes long"))?;
        Ok(Some(u64::from_be_bytes(bytes)))
    }

    pub(super) fn get(&self, bucket: &'static str, key: &[u8]) -> Result<Option<Vec<u8>>, ImportError> {
        self.file.get(bucket.as_bytes(), key).map_err(|error| Stop::File(error).at(&self.path))
    }

    /// The pairs of a bucket, none if it isn't there.
    fn each(
        &self,
        bucket: &'static str,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        let walked = self.file.each(bucket.as_bytes(), |key, value| each(key, value).map_err(Stop::Other));
        walked.map(drop).map_err(self.at())
    }

    /// The store's revision: that of the last record, or the compacted one if that is higher.
    ///
    /// # Errors
    /// Damage.
    pub fn revision(&self) -> Result<i64, ImportError> {
        let last = self.file.last_key(b"key").map_err(|error| Stop::File(error).at(&self.path))?;
        let last = match last {
            Some(key) => self.revision_of(&key)?.0.main,
            None => 1,
        };
        Ok(last.max(self.compacted()?.revision).max(1))
    }

    /// The lowest readable revision; −1 if nothing was ever compacted.
    ///
    /// # Errors
    /// Damage.
    pub fn compact_revision(&self) -> Result<i64, ImportError> {
        Ok(self.compacted()?.revision)
    }

    fn compacted(&self) -> Result<Compacted, ImportError> {
        let at = |key: &'static [u8]| -> Result<i64, ImportError> {
            let Some(value) = self.get("meta", key)? else { return Ok(-1) };
            let bytes = value.first_chunk::<8>().filter(|_| value.len() >= REVISION_BYTES);
            let main = bytes.map(|bytes| i64::from_be_bytes(*bytes)).filter(|main| (0..=REVISION_MAX).contains(main));
            // Nothing is lost below the first revision there can be.
            main.map(|main| if main == 0 { -1 } else { main })
                .ok_or_else(|| self.pair("meta", "a revision that is none"))
        };
        let (finished, scheduled) = (at(b"finishedCompactRev")?, at(b"scheduledCompactRev")?);
        // Whoever opens it finishes what was begun.
        Ok(match scheduled > finished {
            true => Compacted { revision: scheduled, previous: finished },
            false => Compacted { revision: finished, previous: -1 },
        })
    }

    /// The rows of all small tables, with the alarm of an import's fence, if it is there.
    ///
    /// # Errors
    /// Damage.
    pub fn rows(&self) -> Result<Rows, ImportError> {
        let mut rows = Rows::new();
        let compacted = self.compacted()?;
        if compacted.revision > 0 {
            let (key, value) = compact_row(compacted.revision, compacted.previous);
            rows.push((Table::Meta, key, value));
        }
        self.each("lease", |_, value| {
            let lease = StoredLease::decode(value).map_err(|error| self.pair("lease", error.to_string()))?;
            if lease.id == 0 || lease.ttl_secs <= 0 {
                return Err(self.pair("lease", "a lease without an id or a time to live"));
            }
            let record = LeaseRecord { ttl_secs: lease.ttl_secs, remaining_secs: lease.remaining_secs.max(0) };
            rows.push((Table::Lease, LeaseRecord::key(LeaseId(lease.id)), record.encode()));
            Ok(())
        })?;
        self.each("alarm", |key, _| {
            let alarm = StoredAlarm::decode(key).map_err(|error| self.pair("alarm", error.to_string()))?;
            let kind = match alarm.kind {
                1 => AlarmKind::NoSpace,
                2 => AlarmKind::Corrupt,
                other => return Err(self.pair("alarm", format!("an alarm of kind {other}, which isn't known"))),
            };
            rows.push((Table::Meta, Alarms::meta_key(MemberId(alarm.member), kind), Bytes::new()));
            Ok(())
        })?;
        rows.extend(self.auth()?.into_iter().map(|(key, value)| (Table::Auth, key, value)));
        Ok(rows)
    }

    /// The rows of users and roles; none if there were never any.
    ///
    /// # Errors
    /// Damage.
    pub fn auth(&self) -> Result<Vec<(Bytes, Bytes)>, ImportError> {
        let mut users = Vec::new();
        self.each("authUsers", |key, value| {
            let user = authpb::User::decode(value).map_err(|error| self.pair("authUsers", error.to_string()))?;
            users.push((self.name("authUsers", key)?, self.user(user)?));
            Ok(())
        })?;
        let mut roles = Vec::new();
        self.each("authRoles", |key, value| {
            let role = authpb::Role::decode(value).map_err(|error| self.pair("authRoles", error.to_string()))?;
            roles.push((self.name("authRoles", key)?, self.role(role)?));
            Ok(())
        })?;
        let enabled = self.get("auth", b"authEnabled")?.is_some_and(|value| value == [1]);
        let revision = self.auth_revision()?;
        if users.is_empty() && roles.is_empty() && !enabled && revision <= 1 {
            return Ok(Vec::new());
        }
        let users = users.iter().map(|(name, user)| (name.as_str(), user));
        Ok(auth::rows(enabled, revision, users, roles.iter().map(|(name, role)| (name.as_str(), role))))
    }

    /// Counts changes of users and roles.
    ///
    /// # Errors
    /// Damage.
    pub fn auth_revision(&self) -> Result<u64, ImportError> {
        let revision = self.number("auth", b"authRevision")?.unwrap_or(1);
        if revision > REVISION_MAX as u64 {
            return Err(self.pair("auth", "a count of changes that can't be"));
        }
        Ok(revision)
    }

    fn name(&self, bucket: &'static str, name: &[u8]) -> Result<String, ImportError> {
        String::from_utf8(name.to_vec()).map_err(|_| self.pair(bucket, "a name that is not UTF-8"))
    }

    fn user(&self, user: authpb::User) -> Result<User, ImportError> {
        let password = match &user.password[..] {
            [] => None,
            hash => Some(PasswordHash::new(
                std::str::from_utf8(hash).map_err(|_| self.pair("authUsers", "a password's hash that is none"))?,
            )),
        };
        Ok(User { password, roles: user.roles.into_iter().collect() })
    }

    fn role(&self, role: authpb::Role) -> Result<Role, ImportError> {
        let permission = |granted: authpb::Permission| {
            let kind = match granted.perm_type {
                0 => PermissionKind::Read,
                1 => PermissionKind::Write,
                2 => PermissionKind::ReadWrite,
                other => return Err(self.pair("authRoles", format!("a permission of kind {other}"))),
            };
            Ok(Permission { kind, key: granted.key, range_end: granted.range_end })
        };
        Ok(Role { permissions: role.key_permission.into_iter().map(permission).collect::<Result<_, _>>()? })
    }

    /// Calls `each` with every record, in the order of revisions. Gives the marks between them, which are no records.
    ///
    /// # Errors
    /// Damage, and what `each` says.
    pub fn records(
        &self,
        mut each: impl FnMut(Revision, Record) -> Result<(), ImportError>,
    ) -> Result<Vec<Revision>, ImportError> {
        let (mut last, mut marks) = (None, Vec::new());
        self.each("key", |key, value| {
            let Some((at, record)) = self.record(key, value)? else {
                marks.push(self.revision_of(key)?.0);
                return if marks.len() <= MARKS_MAX { Ok(()) } else { Err(self.pair("key", "too many empty values")) };
            };
            // One may be there as a value and as a deletion.
            if last.replace(at).is_some_and(|last| at <= last) {
                return Err(self.pair("key", format!("two changes at revision {at:?}")));
            }
            each(at, record)
        })?;
        Ok(marks)
    }

    /// The record that a pair of the bucket `key` is; `None` for a mark without anything in it, as
    /// `etcdutl snapshot restore --bump-revision` leaves one.
    pub(super) fn record(&self, key: &[u8], value: &[u8]) -> Result<Option<(Revision, Record)>, ImportError> {
        let (at, is_tombstone) = self.revision_of(key)?;
        if value.is_empty() && !is_tombstone {
            return Ok(None);
        }
        let kv = mvccpb::KeyValue::decode(Bytes::copy_from_slice(value));
        let kv = kv.map_err(|error| self.pair("key", format!("a value at revision {at:?}: {error}")))?;
        if kv.key.is_empty() {
            return Err(self.pair("key", format!("an empty key at revision {at:?}")));
        }
        if is_tombstone {
            return Ok(Some((at, Record { key: kv.key, version: None })));
        }
        if kv.mod_revision != at.main || !(1..=at.main).contains(&kv.create_revision) || kv.version <= 0 {
            return Err(self.pair("key", format!("a value of another revision at {at:?}")));
        }
        let version = VersionRecord {
            value: kv.value,
            create_revision: kv.create_revision,
            version: kv.version,
            lease: LeaseId(kv.lease),
        };
        Ok(Some((at, Record { key: kv.key, version: Some(version) })))
    }

    /// The revision that a key of the bucket `key` is, and whether it is a tombstone's.
    fn revision_of(&self, key: &[u8]) -> Result<(Revision, bool), ImportError> {
        let read = || {
            let (main, rest) = key.split_first_chunk::<8>()?;
            let (sub, rest) = rest.strip_prefix(b"_")?.split_first_chunk::<8>()?;
            let is_tombstone = match rest {
                [] => false,
                b"t" => true,
                _ => return None,
            };
            let at = Revision::new(i64::from_be_bytes(*main), i64::from_be_bytes(*sub));
            let is_one = (1..=REVISION_MAX).contains(&at.main) && (0..=REVISION_MAX).contains(&at.sub);
            is_one.then_some((at, is_tombstone))
        };
        read().ok_or_else(|| self.pair("key", "a key that is no revision"))
    }
}
