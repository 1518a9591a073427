//! `HistorySource`: what the hub needs of the store, so that it can be tried with a model in its place.

use crate::storage::{Disk, History, HistoryError, RangeQuery, ReadError, Record, StoreReader};
use crate::types::{KeyRange, KeyValue, Revision, StorageError};

/// The store's read side as the watch room uses it.
pub trait HistorySource: Send + Sync + 'static {
    /// The published revision, without waiting.
    fn revision(&self) -> i64;

    /// Whole revisions from `from_main` on; may block on the disk.
    fn events(&self, from_main: i64, revisions_max: usize, bytes_max: usize) -> Result<History, HistoryError>;

    /// The record written at `at` if it is in memory; never blocks.
    fn cached(&self, at: Revision) -> Option<Record>;

    /// The record written at `at`, `None` if it was compacted away; may block on the disk.
    fn record(&self, at: Revision) -> Result<Option<Record>, StorageError>;

    /// `key` as it was just before `mod_revision`; `None` if it wasn't there or that revision is compacted
    /// (etcd then leaves `prev_kv` out). May block on the disk.
    fn previous(&self, key: &[u8], mod_revision: i64) -> Result<Option<KeyValue>, StorageError>;
}

impl HistorySource for StoreReader {
    fn revision(&self) -> i64 {
        StoreReader::revision(self)
    }

    fn events(&self, from_main: i64, revisions_max: usize, bytes_max: usize) -> Result<History, HistoryError> {
        StoreReader::events(self, from_main, revisions_max, bytes_max)
    }

    fn cached(&self, at: Revision) -> Option<Record> {
        StoreReader::cached(self, at)
    }

    fn record(&self, at: Revision) -> Result<Option<Record>, StorageError> {
        StoreReader::record(self, at)
    }

    fn previous(&self, key: &[u8], mod_revision: i64) -> Result<Option<KeyValue>, StorageError> {
        if mod_revision <= 1 {
            return Ok(None);
        }
        let range = KeyRange::single(bytes::Bytes::copy_from_slice(key));
        let query = RangeQuery { revision: mod_revision - 1, ..RangeQuery::latest(range) };
        match self.range(&query, Disk::Allowed) {
            Ok(found) => Ok(found.value.kvs.into_iter().next()),
            Err(ReadError::Request(crate::types::RequestError::Storage(text))) => Err(StorageError::Closed(text)),
            Err(_) => Ok(None),
        }
    }
}
