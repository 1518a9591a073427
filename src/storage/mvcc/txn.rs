//! `WriteTxn`: the changes of one command, all at one revision.

use bytes::Bytes;

use super::Store;
use super::range::View;
use crate::storage::digest::record_hash;
use crate::storage::index::Version;
use crate::storage::{KeyMeta, RangeQuery, RangeResult, ReadError, Record, VersionRecord};
use crate::types::{KeyRange, KeyValue, LeaseId, RequestError, Revision};

/// What a put found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutOutcome {
    /// The version that was there.
    pub prev: Option<KeyMeta>,
}

/// One change that isn't published yet.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) at: Revision,
    pub(super) record: Record,
    /// The record's; 0 for a tombstone.
    pub(super) digest: u64,
    /// Where the version before this revision lies.
    pub(super) prev: Option<Revision>,
    /// Digest of the key's newest version before this change, to take the change back.
    before: u64,
}

/// One command's changes. Dropped without [`WriteTxn::commit`], it takes all of them back.
#[derive(Debug)]
pub struct WriteTxn<'a> {
    pub(super) store: &'a mut Store,
    /// Changes of earlier commands that wait for the same publish.
    before: usize,
}

impl<'a> WriteTxn<'a> {
    pub(super) fn new(store: &'a mut Store) -> Self {
        let before = store.changes.len();
        Self { store, before }
    }

    /// The header's revision: the store's own until something is changed, then one more.
    pub fn revision(&self) -> i64 {
        self.store.revision + i64::from(self.changed())
    }

    /// Whether something was changed.
    pub fn changed(&self) -> bool {
        self.store.changes.len() > self.before
    }

    /// A range read that sees this command's changes.
    ///
    /// Errors: `Compacted` or `FutureRevision` for the revision asked for; `Storage` if the disk fails.
    pub fn range(&self, query: &RangeQuery) -> Result<RangeResult, RequestError> {
        self.view().range(query, &*self.store, |_| Ok(())).map_err(refused)
    }

    /// Whether a transaction may read at `revision`: `Compacted` or `FutureRevision` if not; 0 is the latest.
    pub fn check_revision(&self, revision: i64) -> Result<(), RequestError> {
        self.view().check_in_txn(revision)
    }

    /// What the index knows of one living key.
    pub fn meta_of(&self, key: &[u8]) -> Option<KeyMeta> {
        self.store.index.get(key, None)?.meta()
    }

    /// Living keys of `range`, in O(log n).
    pub fn count(&self, range: &KeyRange) -> i64 {
        self.store.index.count(range, None)
    }

    /// Calls `each` for every living key of `range` in order.
    pub fn visit(&self, range: &KeyRange, mut each: impl FnMut(&KeyMeta, &[u8])) {
        for (key, version) in self.store.index.range(range, None) {
            if let Some(meta) = version.meta() {
                each(&meta, key);
            }
        }
    }

    /// One pair, read from disk if need be.
    pub fn value_of(&self, key: &[u8]) -> Result<Option<KeyValue>, RequestError> {
        let Some(version) = self.store.index.get(key, None) else { return Ok(None) };
        let at = version.modified();
        Ok(self.store.fetch(at).map_err(refused)?.into_key_value(at))
    }

    /// Puts one pair.
    pub fn put(&mut self, key: Bytes, value: Bytes, lease: LeaseId) -> PutOutcome {
        let at = self.next();
        let (mut written, mut digest) = ((at.main, 1), 0);
        let before = self.store.index.put(&key, |prev| {
            if let Some(prev) = prev {
                written = (prev.create, prev.version + 1);
            }
            let meta = KeyMeta { create: written.0, modified: at, version: written.1, lease };
            digest = record_hash(&key, &value, &meta);
            Version::put(meta, digest)
        });
        let version = VersionRecord { value, create_revision: written.0, version: written.1, lease };
        self.push(at, Record { key, version: Some(version) }, digest, before);
        PutOutcome { prev: before.and_then(|before| before.meta()) }
    }

    /// Deletes every living key of `range`; what they were, in key order.
    pub fn delete(&mut self, range: &KeyRange) -> Vec<(Bytes, KeyMeta)> {
        let mut deleted = Vec::new();
        self.visit(range, |meta, key| deleted.push((Bytes::copy_from_slice(key), *meta)));
        for (key, _) in &deleted {
            let at = self.next();
            let before = self.store.index.tombstone(key, at);
            self.push(at, Record { key: key.clone(), version: None }, 0, before);
        }
        deleted
    }

    /// Keeps the changes. They are shown by the next [`Store::publish`].
    pub fn commit(mut self) {
        self.note_counts();
        self.store.revision = self.revision();
        self.before = self.store.changes.len();
    }

    fn note_counts(&self) {
        let (mut puts, mut bytes, mut deletes) = (0, 0, 0);
        for Change { record, .. } in &self.store.changes[self.before..] {
            match &record.version {
                Some(version) => {
                    puts += 1;
                    bytes += record.key.len() as u64 + version.value.len() as u64;
                }
                None => deletes += 1,
            }
        }
        if puts > 0 {
            self.store.shared.counts.add_puts(puts, bytes);
        }
        if deletes > 0 {
            self.store.shared.counts.add_deletes(deletes);
        }
    }

    /// Where the next change stands.
    fn next(&self) -> Revision {
        let sub = self.store.changes.len() - self.before;
        Revision::new(self.store.revision + 1, sub.cast_signed() as i64)
    }

    fn push(&mut self, at: Revision, record: Record, digest: u64, before: Option<Version>) {
        // A watcher is told the version before the revision, also if the command itself made one since.
        let prev = before.and_then(|before| match before.modified() {
            own if own.main == at.main => {
                usize::try_from(own.sub).ok().and_then(|sub| self.store.changes.get(self.before + sub)?.prev)
            }
            before => Some(before),
        });
        let before = before.map_or(0, |before| before.hash());
        self.store.changes.push(Change { at, record, digest, prev, before });
    }

    pub(super) fn view(&self) -> View<'_> {
        View { index: &self.store.index, revision: self.revision(), compact: self.store.compact.revision }
    }
}

impl Drop for WriteTxn<'_> {
    fn drop(&mut self) {
        for change in self.store.changes.drain(self.before..).rev() {
            self.store.index.undo(&change.record.key, change.before);
        }
    }
}

/// A transaction may wait for the disk, so it is never told that it would have to.
pub(super) fn refused(error: ReadError) -> RequestError {
    match error {
        ReadError::Request(error) => error,
        ReadError::NeedsDisk => RequestError::Storage(error.to_string()),
    }
}
