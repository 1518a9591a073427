//! What a transaction looks at in whole ranges: for its conditions, until the first key that doesn't hold, and for
//! its answer, until that would hold too much.

use super::WriteTxn;
use super::txn::refused;
use crate::env::may_block;
use crate::storage::each_value::each_value;
use crate::storage::{KeyMeta, RangeQuery, RangeResult, ReadError, Record};
use crate::types::{KeyRange, RequestError, Revision, StorageError};

/// Keys from which a read may keep its thread for long.
const BLOCKING_KEYS: i64 = 1_000;

impl WriteTxn<'_> {
    /// Calls `each` for every living key of `range` in order until it says to stop by `false`.
    pub fn visit_while(&self, range: &KeyRange, each: &mut dyn FnMut(&KeyMeta) -> bool) {
        let metas = self.store.index.range(range, None).filter_map(|(_, version)| version.meta());
        for meta in metas {
            if !each(&meta) {
                return;
            }
        }
    }

    /// Calls `each` with the value of every living key of `range`, in no particular order, until it
    /// says to stop by `false`. Those on disk are read in pages, which may block.
    ///
    /// # Errors
    /// The disk's.
    pub fn each_value(&self, range: &KeyRange, each: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), RequestError> {
        let store = &*self.store;
        let versions = store.index.range(range, None).map(|(_, version)| version);
        let read = |page: &[Revision]| -> Result<Vec<Record>, ReadError> {
            let found = may_block(|| store.shared.values.many(page))?;
            if found.len() == page.len() {
                return Ok(found);
            }
            Err(StorageError::Closed("a record that the index names is missing".into()).into())
        };
        each_value(versions, |at| store.cached(at), read, each).map_err(refused)
    }

    /// [`WriteTxn::range`] for an answer of at most `max` bytes, of which `gathered` are there and become more.
    ///
    /// # Errors
    /// As [`WriteTxn::range`], and `AnswerTooLarge`.
    pub fn range_within(
        &self,
        query: &RangeQuery,
        gathered: &mut usize,
        max: usize,
    ) -> Result<RangeResult, RequestError> {
        let gathered = |bytes| {
            *gathered += bytes;
            match *gathered {
                bytes if bytes > max => Err(RequestError::AnswerTooLarge { bytes, max }.into()),
                _ => Ok(()),
            }
        };
        let read = || self.view().range(query, &*self.store, gathered).map_err(refused);
        let is_large = !query.range.is_single() && self.count(&query.range) > BLOCKING_KEYS;
        if is_large { may_block(read) } else { read() }
    }
}
