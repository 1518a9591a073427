//! `WriteTxn`: the changes of one command, all at one revision.

use bytes::Bytes;

use super::Store;
use crate::storage::{KeyMeta, RangeQuery, RangeResult};
use crate::types::{KeyRange, KeyValue, LeaseId, RequestError};

/// What a put found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PutOutcome {
    /// The version that was there.
    pub prev: Option<KeyMeta>,
}

/// One command's changes. Dropped without [`WriteTxn::commit`], it takes all of them back.
#[derive(Debug)]
pub struct WriteTxn<'a> {
    store: &'a mut Store,
}

impl<'a> WriteTxn<'a> {
    pub(super) fn new(store: &'a mut Store) -> Self {
        Self { store }
    }

    /// The header's revision: the store's own until something is changed, then one more.
    pub fn revision(&self) -> i64 {
        self.store.revision()
    }

    /// Whether something was changed.
    pub fn changed(&self) -> bool {
        false
    }

    /// A range read that sees this command's changes.
    pub fn range(&self, query: &RangeQuery) -> Result<RangeResult, RequestError> {
        let _ = query;
        Ok(RangeResult::default())
    }

    /// Whether a read at `revision` is possible now: `Compacted` or `FutureRevision` if not; 0 or less is the latest.
    pub fn check_revision(&self, revision: i64) -> Result<(), RequestError> {
        let _ = revision;
        Ok(())
    }

    /// What the index knows of one key.
    pub fn meta_of(&self, key: &[u8]) -> Option<KeyMeta> {
        let _ = key;
        None
    }

    /// Calls `each` for every living key of `range` in order.
    pub fn visit(&self, range: &KeyRange, each: impl FnMut(&KeyMeta, &[u8])) {
        let _ = (range, each);
    }

    /// One pair, read from disk if need be.
    pub fn value_of(&self, key: &[u8]) -> Result<Option<KeyValue>, RequestError> {
        let _ = key;
        Ok(None)
    }

    /// Puts one pair.
    pub fn put(&mut self, key: Bytes, value: Bytes, lease: LeaseId) -> PutOutcome {
        let _ = (key, value, lease);
        PutOutcome::default()
    }

    /// Deletes every living key of `range`; what they were, in key order.
    pub fn delete(&mut self, range: &KeyRange) -> Vec<(Bytes, KeyMeta)> {
        let _ = range;
        Vec::new()
    }

    /// Keeps the changes. They are shown by the next [`Store::publish`].
    pub fn commit(self) {}
}
