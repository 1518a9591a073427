//! `Snapshot`: one published state, held; and the reads that it shares with `StoreReader`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::pages::Pages;
use super::{Published, Shared, newest, past};
use crate::env::sync::point;
use crate::storage::each_value::each_value;
use crate::storage::index::Rows;
use crate::storage::mvcc::Records;
use crate::storage::values::ValueReader;
use crate::storage::{AppliedPosition, KeyMeta, RangeQuery, RangeResult, Record, Scoped, digest};
use crate::types::{KeyRange, KeyValue, RequestError, Revision, StorageError};

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

/// What members compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    /// The digest folded to the wire's 32 bits.
    pub hash: u32,
    /// The compact revision that it goes with; −1 if nothing was ever compacted, and the one before
    /// if the hash is of the compact revision itself (E78).
    pub compact_revision: i64,
    /// The revision that was hashed.
    pub hash_revision: i64,
}

/// A published state that doesn't change any more.
///
/// It keeps the memory of its index alive; values that a compaction removed meanwhile are gone,
/// and reading one gives `Compacted`.
#[derive(Debug)]
pub struct Snapshot {
    published: Arc<Published>,
    shared: Arc<Shared>,
    /// Where the gauge counts it.
    slot: usize,
    pinned: bool,
}

impl Snapshot {
    pub(super) fn new(shared: Arc<Shared>, pinned: bool) -> Self {
        let slot = shared.gauge.enter();
        if pinned {
            // Before the load: what is removed from now on isn't needed by the state that is loaded.
            shared.pins.fetch_add(1, Ordering::SeqCst);
            shared.values.hold();
        }
        point();
        Self { published: shared.published.load_full(), shared, slot, pinned }
    }

    /// The rows of the other tables as of this snapshot; for a snapshot file.
    pub fn rows(&self) -> &Rows {
        &self.published.rows
    }

    /// Calls `each` with every stored record up to [`Snapshot::revision`] in order; for a snapshot
    /// file, so the snapshot has to be a pinned one ([`super::StoreReader::snapshot_pinned`]).
    ///
    /// Records that a compaction has made unreadable may still be among them. May block on the engine.
    ///
    /// # Errors
    /// What `each` gives, and those of the disk.
    pub fn each_record<E: From<StorageError>>(
        &self,
        mut each: impl FnMut(Revision, &Record) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut pages = Pages::new(Revision::default(), self.published.revision);
        while let Some(page) = pages.next(&self.shared.values)? {
            page.iter().try_for_each(|(at, record)| each(*at, record))?;
        }
        Ok(())
    }

    /// The current revision in it.
    pub fn revision(&self) -> i64 {
        self.published.revision
    }

    /// The lowest readable revision; −1 if nothing was ever compacted.
    pub fn compact_revision(&self) -> i64 {
        self.published.compact.revision
    }

    /// Up to where the log is in it.
    pub fn position(&self) -> AppliedPosition {
        self.published.position
    }

    /// Bytes of all kept records, as of now and not as of this snapshot: it goes down when space is given back.
    pub fn logical_size(&self) -> u64 {
        self.shared.values.logical_size()
    }

    /// The digest of the living keys at [`Snapshot::revision`]; equal on every member at that revision.
    pub fn digest(&self) -> u64 {
        self.published.index.summary().digest
    }

    /// A digest of what else every member must have alike: leases, users and roles, and what is compacted.
    pub fn digest_beside_keys(&self) -> u64 {
        let compact = self.published.compact.revision.cast_unsigned();
        self.published.rows.digest().wrapping_add(compact.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// The digest of the living keys of `range`, in O(log n): two members that differ find where by halving.
    pub fn digest_of(&self, range: &KeyRange) -> u64 {
        self.published.index.summary_of(range).digest
    }

    /// Living keys in `range` now, in O(log n).
    pub fn count(&self, range: &KeyRange) -> i64 {
        self.published.index.count(range, None)
    }

    /// Keys of `range` that live or have a history, in O(log n): as many as a read of an older revision may walk.
    pub fn count_kept(&self, range: &KeyRange) -> i64 {
        let summary = self.published.index.summary_of(range);
        summary.live.wrapping_add(summary.garbage).cast_signed()
    }

    /// Keys that the index holds something of, those with only a tombstone included.
    pub fn index_len(&self) -> usize {
        self.published.index.len()
    }

    /// A range read (02 §3 of the rules).
    ///
    /// Errors: `Compacted`, `FutureRevision`; [`ReadError::NeedsDisk`] only with [`Disk::Never`].
    pub fn range(&self, query: &RangeQuery, disk: Disk) -> Result<Scoped<RangeResult>, ReadError> {
        range(&self.published, &self.shared.values, query, disk)
    }

    /// [`Snapshot::range`], where `gathered` is told the bytes of every pair and may end the read.
    pub fn range_gathered(
        &self,
        query: &RangeQuery,
        disk: Disk,
        gathered: impl FnMut(usize) -> Result<(), ReadError>,
    ) -> Result<Scoped<RangeResult>, ReadError> {
        let records = Kept { values: &self.shared.values, disk };
        Ok(scoped(&self.published, self.published.view().range(query, &records, gathered)?))
    }

    /// The first pairs of [`Snapshot::range`] in the keys' order, up to the one after which `goes_on`, which is told the
    /// bytes of each, says that it is enough; there is `more` then. Without the count unless it `counts`: an older
    /// revision has it only by walking the whole range.
    pub fn range_chunk(
        &self,
        query: &RangeQuery,
        counts: bool,
        disk: Disk,
        goes_on: impl FnMut(usize) -> Result<bool, ReadError>,
    ) -> Result<RangeResult, ReadError> {
        self.published.view().chunk(query, counts, &Kept { values: &self.shared.values, disk }, goes_on)
    }

    /// One key as of [`Snapshot::revision`].
    ///
    /// Errors: [`ReadError::NeedsDisk`] only with [`Disk::Never`].
    pub fn get(&self, key: &[u8], disk: Disk) -> Result<Scoped<Option<KeyValue>>, ReadError> {
        get(&self.published, &self.shared.values, key, disk)
    }

    /// What the index knows of one living key.
    pub fn meta_of(&self, key: &[u8]) -> Option<KeyMeta> {
        self.published.index.get(key, None)?.meta()
    }

    /// Calls `each` for every living key of `range` in order until it says to stop by `false`.
    pub fn visit(&self, range: &KeyRange, mut each: impl FnMut(&KeyMeta, &[u8]) -> bool) {
        for (key, version) in self.published.index.range(range, None) {
            if let Some(meta) = version.meta()
                && !each(&meta, key)
            {
                return;
            }
        }
    }

    /// Of the living keys' versions those that were written last, at most `max` of them, in ascending order.
    pub fn newest_living(&self, max: usize) -> Vec<Revision> {
        let mut newest = Vec::new();
        let cut = |newest: &mut Vec<Revision>| {
            if newest.len() > max {
                newest.select_nth_unstable_by(max, |a, b| b.cmp(a));
                newest.truncate(max);
            }
        };
        self.visit(&KeyRange::all(), |meta, _| {
            newest.push(meta.modified);
            if newest.len() >= max.saturating_mul(2) {
                cut(&mut newest);
            }
            true
        });
        cut(&mut newest);
        newest.sort_unstable();
        newest
    }

    /// Calls `each` with the value of every living key of `range`, in no particular order, until it
    /// says to stop by `false`. Those on disk are read in pages.
    ///
    /// Errors: [`ReadError::NeedsDisk`] only with [`Disk::Never`]; `Compacted` if a compaction passed this state.
    pub fn each_value(
        &self,
        range: &KeyRange,
        disk: Disk,
        each: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), ReadError> {
        let values = &self.shared.values;
        let read = |page: &[Revision]| match disk {
            Disk::Never => Err(ReadError::NeedsDisk),
            Disk::Allowed => {
                let found = values.many(page)?;
                if found.len() == page.len() { Ok(found) } else { Err(RequestError::Compacted.into()) }
            }
        };
        let versions = self.published.index.range(range, None).map(|(_, version)| version);
        each_value(versions, |at| values.cached(at), read, each)
    }

    /// Whether a transaction may read at `revision`: `Compacted` or `FutureRevision` if not; 0 is the latest.
    pub fn check_in_txn(&self, revision: i64) -> Result<(), RequestError> {
        self.published.view().check_in_txn(revision)
    }

    /// The digest of the keys living at `revision` (0 or less: now), equal on every member whatever
    /// it has compacted. O(1) now; for an older revision a walk of the index and the heads of what was
    /// superseded since, which may block on the engine.
    ///
    /// Errors: `Compacted`, also if a compaction passed this state meanwhile; `FutureRevision`; those of the disk.
    pub fn hash_kv(&self, revision: i64) -> Result<Scoped<HashKv>, ReadError> {
        let state = &*self.published;
        let digest = match state.view().resolve(revision)? {
            None => state.index.summary().digest,
            Some(at) => past::digest_at(state, &self.shared.values, at)?,
        };
        // A negative revision is hashed as 0 is, and named back as it came.
        let hash_revision = if revision == 0 { state.revision } else { revision };
        let compact = state.compact;
        // Only who names the compacted revision gets the hash that its compaction took, with the one before (E78).
        let compact_revision = if revision == compact.revision { compact.previous } else { compact.revision };
        Ok(scoped(state, HashKv { hash: digest::fold(digest), compact_revision, hash_revision }))
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.shared.gauge.leave(self.slot);
        if self.pinned {
            self.shared.pins.fetch_sub(1, Ordering::SeqCst);
            self.shared.values.release();
        }
    }
}

pub(super) fn range(
    state: &Published,
    values: &ValueReader,
    query: &RangeQuery,
    disk: Disk,
) -> Result<Scoped<RangeResult>, ReadError> {
    if let Some(answer) = newest::answer(state, values, query) {
        return Ok(scoped(state, answer));
    }
    Ok(scoped(state, state.view().range(query, &Kept { values, disk }, |_| Ok(()))?))
}

pub(super) fn get(
    state: &Published,
    values: &ValueReader,
    key: &[u8],
    disk: Disk,
) -> Result<Scoped<Option<KeyValue>>, ReadError> {
    if let Some(pair) = newest::pair(state, values, key) {
        return Ok(scoped(state, Some(pair)));
    }
    let found = match state.index.get(key, None) {
        None => None,
        Some(version) => {
            let at = version.modified();
            fetch(values, at, disk)?.into_key_value(at)
        }
    };
    Ok(scoped(state, found))
}

fn scoped<T>(state: &Published, value: T) -> Scoped<T> {
    Scoped { value, revision: state.revision, term: state.position.term }
}

/// The record that the index names. It is absent only if a compaction passed this state meanwhile.
fn fetch(values: &ValueReader, at: Revision, disk: Disk) -> Result<Record, ReadError> {
    if let Some(record) = values.cached(at) {
        return Ok(record);
    }
    match disk {
        Disk::Never => Err(ReadError::NeedsDisk),
        Disk::Allowed => Ok(values.record(at)?.ok_or(RequestError::Compacted)?),
    }
}

/// The records of the values, from the disk only if that is allowed.
struct Kept<'a> {
    values: &'a ValueReader,
    disk: Disk,
}

impl Records for Kept<'_> {
    fn cached_many(&self, revisions: &[Revision], found: &mut Vec<Option<Record>>) {
        self.values.cached_many(revisions, found);
    }

    fn fetch_many(&self, revisions: &[Revision], bytes_max: usize) -> Result<Vec<(Revision, Record)>, ReadError> {
        match self.disk {
            Disk::Never => Err(ReadError::NeedsDisk),
            Disk::Allowed => Ok(self.values.bring(revisions, bytes_max)?),
        }
    }

    fn fetch(&self, at: Revision) -> Result<Record, ReadError> {
        fetch(self.values, at, self.disk)
    }
}
