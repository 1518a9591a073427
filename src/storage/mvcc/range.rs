//! The range read: one function for snapshots and for transactions (02 §3 of the rules).
//!
//! ```text
//! revision check ─► keys from the index ─► revision filters ─► sort ─► limit ─► values
//! ```
//!
//! Everything but a sort by value is decided by the index, so that values are fetched only for the
//! pairs that are returned.

use bytes::Bytes;

use crate::storage::index::{Index, Version};
use crate::storage::values::ValueReader;
use crate::storage::{RangeQuery, RangeResult, ReadError, Record, SortOrder, SortTarget};
use crate::types::{KeyValue, RequestError, Revision};

/// Room for the keys of a short range, made at once.
const PICKED_ROOM: usize = 128;
/// The most records that are brought from the disk at a time, and about the most bytes of them: they may be more than are
/// wanted, and what is behind that is brought one by one.
const BRING_MAX: usize = 512;
const BRING_BYTES: usize = 1 << 20;

/// A state to read from: the index with the bounds of what may be read.
#[derive(Clone, Copy, Debug)]
pub(in crate::storage) struct View<'a> {
    pub(in crate::storage) index: &'a Index,
    /// The newest readable revision.
    pub(in crate::storage) revision: i64,
    /// The oldest readable revision.
    pub(in crate::storage) compact: i64,
}

impl View<'_> {
    /// Where in the index a read at `revision` looks: `None` is the newest state.
    pub(in crate::storage) fn resolve(&self, revision: i64) -> Result<Option<i64>, RequestError> {
        match revision {
            ..=0 => Ok(None),
            _ if revision > self.revision => Err(RequestError::FutureRevision),
            _ if revision < self.compact => Err(RequestError::Compacted),
            _ if revision == self.revision => Ok(None),
            _ => Ok(Some(revision)),
        }
    }

    /// Whether a transaction may read at `revision`.
    ///
    /// Unlike a read on its own, its read at a negative revision is held against the compacted one,
    /// which is −1 at first (golden `txn_revisions`).
    pub(in crate::storage) fn check_in_txn(&self, revision: i64) -> Result<(), RequestError> {
        if revision < 0 && revision < self.compact {
            return Err(RequestError::Compacted);
        }
        self.resolve(revision).map(|_| ())
    }

    /// Answers `query` from `records`; `gathered` is told the bytes of every pair and may end it.
    pub(in crate::storage) fn range(
        &self,
        query: &RangeQuery,
        records: &impl Records,
        mut gathered: impl FnMut(usize) -> Result<(), ReadError>,
    ) -> Result<RangeResult, ReadError> {
        let at = self.resolve(query.revision)?;
        if query.count_only {
            return Ok(RangeResult { kvs: Vec::new(), more: false, count: self.index.count(&query.range, at) });
        }
        self.pairs(query, at, true, records, |bytes| gathered(bytes).map(|()| true))
    }

    /// The first pairs of [`View::range`], up to the one after which `goes_on`, which is told the bytes of each, says that
    /// it is enough; `more` then. Without a count unless it `counts`, and only in the keys' order.
    pub(in crate::storage) fn chunk(
        &self,
        query: &RangeQuery,
        counts: bool,
        records: &impl Records,
        goes_on: impl FnMut(usize) -> Result<bool, ReadError>,
    ) -> Result<RangeResult, ReadError> {
        if query.count_only {
            return self.range(query, records, |_| Ok(()));
        }
        let at = self.resolve(query.revision)?;
        self.pairs(query, at, counts, records, goes_on)
    }

    fn pairs(
        &self,
        query: &RangeQuery,
        at: Option<i64>,
        counts: bool,
        records: &impl Records,
        mut goes_on: impl FnMut(usize) -> Result<bool, ReadError>,
    ) -> Result<RangeResult, ReadError> {
        let (mut picked, count) = self.select(query, at, counts);
        if query.target == SortTarget::Value {
            return by_value(query, &picked, count, records, goes_on);
        }
        sort_by_meta(query, &mut picked);
        let more = cut(query, &mut picked);
        let kvs = pairs(&picked, query.keys_only, records, &mut goes_on)?;
        let more = more || kvs.len() < picked.len();
        Ok(RangeResult { kvs, more, count })
    }

    /// The keys that the filters let through, in key order, and how many there are in the range.
    fn select<'a>(&'a self, query: &'a RangeQuery, at: Option<i64>, counts: bool) -> (Vec<Found<'a>>, i64) {
        let limit = scan_limit(query);
        let mut found = self.index.range(&query.range, at);
        let room = if query.range.is_single() { 1 } else { PICKED_ROOM };
        let mut picked = Vec::with_capacity(limit.min(room));
        let mut scanned = 0;
        for (key, version) in found.by_ref() {
            scanned += 1;
            if passes(query, &version) {
                picked.push(Found { key, version });
            }
            if picked.len() >= limit {
                break;
            }
        }
        let count = match at {
            _ if !counts => 0,
            None if scanned < 2 && query.range.is_single() => scanned,
            None => self.index.count(&query.range, None),
            Some(_) => scanned + found.count() as i64,
        };
        (picked, count)
    }
}

/// A key of the range with its version at the revision that is read.
#[derive(Clone, Copy)]
struct Found<'a> {
    key: &'a [u8],
    version: Version,
}

impl Found<'_> {
    fn key_only(&self) -> KeyValue {
        KeyValue {
            key: Bytes::copy_from_slice(self.key),
            create_revision: self.version.create(),
            mod_revision: self.version.main(),
            version: self.version.version(),
            // etcd 3.7 leaves the lease out of keys-only answers.
            ..KeyValue::default()
        }
    }

    fn pair(&self, brought: Option<Record>, records: &impl Records) -> Result<KeyValue, ReadError> {
        let at = self.version.modified();
        let record = match brought {
            Some(record) => record,
            None => records.fetch(at)?,
        };
        let pair = record.into_key_value(at);
        Ok(pair.ok_or_else(|| RequestError::Storage(format!("the record of revision {at} should be a put")))?)
    }
}

/// Where the records are that the index names.
pub(in crate::storage) trait Records {
    /// Adds the record of each of some revisions, or `None` if that isn't in memory.
    fn cached_many(&self, revisions: &[Revision], found: &mut Vec<Option<Record>>);
    /// The records of those of some ascending revisions that are there, in order, of about `bytes_max` bytes at most.
    fn fetch_many(&self, revisions: &[Revision], bytes_max: usize) -> Result<Vec<(Revision, Record)>, ReadError>;
    /// The record of one, wherever it is.
    fn fetch(&self, at: Revision) -> Result<Record, ReadError>;
}

/// The pairs of what was found, up to the one after which `goes_on` says that it is enough. They are looked for some at
/// a time, and those that aren't in memory in the order in which they lie on the disk: more of them the more were not.
fn pairs(
    picked: &[Found<'_>],
    keys_only: bool,
    records: &impl Records,
    goes_on: &mut impl FnMut(usize) -> Result<bool, ReadError>,
) -> Result<Vec<KeyValue>, ReadError> {
    let mut kvs: Vec<KeyValue> = Vec::with_capacity(picked.len());
    let (mut revisions, mut brought) = (Vec::new(), Vec::new());
    let (mut rest, mut at_a_time) = (picked, ValueReader::MANY);
    while !rest.is_empty() {
        let (some, later) = rest.split_at(at_a_time.min(rest.len()));
        rest = later;
        revisions.clear();
        brought.clear();
        if !keys_only {
            revisions.extend(some.iter().map(|found| found.version.modified()));
            records.cached_many(&revisions, &mut brought);
            let is_cold = bring(&revisions, &mut brought, records)?;
            at_a_time = if is_cold { (at_a_time * 2).min(BRING_MAX) } else { ValueReader::MANY };
        }
        let mut brought = brought.drain(..);
        for found in some {
            let pair = if keys_only { found.key_only() } else { found.pair(brought.next().flatten(), records)? };
            let bytes = pair.key.len() + pair.value.len();
            kvs.push(pair);
            if !goes_on(bytes)? {
                return Ok(kvs);
            }
        }
    }
    Ok(kvs)
}

/// Fills in what `found` lacks of `revisions`, as far as [`BRING_BYTES`] go; whether it lacked several.
fn bring(revisions: &[Revision], found: &mut [Option<Record>], records: &impl Records) -> Result<bool, ReadError> {
    let mut lacking: Vec<_> =
        revisions.iter().zip(&*found).filter(|(_, found)| found.is_none()).map(|(at, _)| *at).collect();
    if lacking.len() < 2 {
        return Ok(false);
    }
    lacking.sort_unstable();
    let read = records.fetch_many(&lacking, BRING_BYTES)?;
    for (at, found) in revisions.iter().zip(found).filter(|(_, found)| found.is_none()) {
        // Records share their bytes.
        *found = read.binary_search_by_key(at, |(at, _)| *at).ok().map(|place| read[place].1.clone());
    }
    Ok(true)
}

/// How many pairs are enough. With an order other than the key's, all have to be looked at; with
/// `None`, etcd cuts the scan first and sorts what is left (E17).
fn scan_limit(query: &RangeQuery) -> usize {
    let scan_order =
        query.order == SortOrder::None || (query.order == SortOrder::Ascend && query.target == SortTarget::Key);
    // Filters don't matter when the scan's order is the answer's: the limit then counts what passed.
    let cut_first = if query.target == SortTarget::Key { scan_order } else { scan_order && !is_filtered(query) };
    match usize::try_from(query.limit) {
        Ok(limit @ 1..) if cut_first => limit.saturating_add(1),
        _ => usize::MAX,
    }
}

fn is_filtered(query: &RangeQuery) -> bool {
    [query.min_mod_revision, query.max_mod_revision, query.min_create_revision, query.max_create_revision]
        .iter()
        .any(|bound| *bound != 0)
}

fn passes(query: &RangeQuery, version: &Version) -> bool {
    let within = |revision: i64, min: i64, max: i64| (min == 0 || revision >= min) && (max == 0 || revision <= max);
    within(version.main(), query.min_mod_revision, query.max_mod_revision)
        && within(version.create(), query.min_create_revision, query.max_create_revision)
}

/// Sorts as asked; equal ones stay in key order, so that every member gives the same answer.
fn sort_by_meta(query: &RangeQuery, picked: &mut [Found<'_>]) {
    let number = |found: &Found<'_>| match query.target {
        SortTarget::Version => found.version.version(),
        SortTarget::Create => found.version.create(),
        SortTarget::Mod => found.version.main(),
        SortTarget::Key | SortTarget::Value => 0,
    };
    match (query.target, query.order) {
        (SortTarget::Key, SortOrder::Descend) => picked.reverse(),
        (SortTarget::Key, _) => {}
        (_, SortOrder::Descend) => picked.sort_by_key(|found| std::cmp::Reverse(number(found))),
        (_, _) => picked.sort_by_key(number),
    }
}

/// Cuts at the limit; whether there was more.
fn cut<T>(query: &RangeQuery, picked: &mut Vec<T>) -> bool {
    match usize::try_from(query.limit) {
        Ok(limit @ 1..) if picked.len() > limit => {
            picked.truncate(limit);
            true
        }
        _ => false,
    }
}

/// The only order that needs all values before the limit. Keys-only answers keep their lease here (E21).
fn by_value(
    query: &RangeQuery,
    picked: &[Found<'_>],
    count: i64,
    records: &impl Records,
    mut goes_on: impl FnMut(usize) -> Result<bool, ReadError>,
) -> Result<RangeResult, ReadError> {
    // The order is known only when all are there: none of them is enough before.
    let mut kvs = pairs(picked, false, records, &mut |bytes| goes_on(bytes).map(|_| true))?;
    match query.order {
        SortOrder::Descend => kvs.sort_by(|a, b| b.value.cmp(&a.value)),
        SortOrder::None | SortOrder::Ascend => kvs.sort_by(|a, b| a.value.cmp(&b.value)),
    }
    let more = cut(query, &mut kvs);
    if query.keys_only {
        for kv in &mut kvs {
            kv.value = Bytes::new();
        }
    }
    Ok(RangeResult { kvs, more, count })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::storage::index::{Builder, Index};
    use crate::storage::{KeyMeta, VersionRecord};
    use crate::types::{KeyRange, LeaseId};

    const KEYS: i64 = 2_000;

    /// Records of which some are in memory. What is asked for is noted.
    struct Cold {
        is_cached: fn(i64) -> bool,
        len: usize,
        pages: RefCell<Vec<Vec<i64>>>,
        singles: RefCell<Vec<i64>>,
    }

    impl Cold {
        fn new(len: usize, is_cached: fn(i64) -> bool) -> Self {
            Self { is_cached, len, pages: RefCell::default(), singles: RefCell::default() }
        }

        fn record(&self, at: Revision) -> Record {
            let value = vec![at.main as u8; self.len].into();
            let version = VersionRecord { value, create_revision: at.main, version: 1, lease: LeaseId::NONE };
            Record { key: key_of(at.main).into(), version: Some(version) }
        }
    }

    impl Records for Cold {
        fn cached_many(&self, revisions: &[Revision], found: &mut Vec<Option<Record>>) {
            found.extend(revisions.iter().map(|at| (self.is_cached)(at.main).then(|| self.record(*at))));
        }

        fn fetch_many(&self, revisions: &[Revision], bytes_max: usize) -> Result<Vec<(Revision, Record)>, ReadError> {
            assert!(revisions.is_sorted(), "they lie on the disk in this order");
            let page = revisions.iter().take(bytes_max.div_ceil(self.len));
            self.pages.borrow_mut().push(page.clone().map(|at| at.main).collect());
            Ok(page.map(|at| (*at, self.record(*at))).collect())
        }

        fn fetch(&self, at: Revision) -> Result<Record, ReadError> {
            self.singles.borrow_mut().push(at.main);
            Ok(self.record(at))
        }
    }

    /// Keys that were written in another order than their own.
    fn key_of(main: i64) -> String {
        format!("{:04}", main * 7 % KEYS)
    }

    fn index() -> Index {
        let mut mains: Vec<_> = (0..KEYS).collect();
        mains.sort_by_key(|main| key_of(*main));
        let mut builder = Builder::default();
        for main in mains {
            let meta = KeyMeta { create: main, modified: Revision::new(main, 0), version: 1, lease: LeaseId::NONE };
            builder.push(key_of(main).as_bytes(), &[Version::put(meta, 0)]);
        }
        builder.finish()
    }

    fn read(records: &Cold, limit: i64) -> Vec<KeyValue> {
        let index = index();
        let view = View { index: &index, revision: KEYS, compact: -1 };
        let query = RangeQuery { limit, ..RangeQuery::latest(KeyRange::all()) };
        let kvs = view.range(&query, records, |_| Ok(())).unwrap().kvs;
        for (at, pair) in kvs.iter().enumerate() {
            assert_eq!(pair.key, format!("{at:04}"));
            assert_eq!((&pair.key, pair.value.len()), (&key_of(pair.mod_revision).into(), records.len));
            assert!(pair.value.iter().all(|byte| *byte == pair.mod_revision as u8));
        }
        kvs
    }

    /// Cause: values on disk were read one by one in the order of their keys. Symptom: a leaf of the engine was read and
    /// unpacked for each of them, where those that lie together need it once.
    #[test]
    fn what_is_not_in_memory_is_brought_in_the_disks_order_many_at_a_time() {
        let cold = Cold::new(100, |_| false);
        assert_eq!(read(&cold, 0).len(), KEYS as usize);
        let pages = cold.pages.into_inner();
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [48, 96, 192, 384, 512, 512, 256]);
        assert!(cold.singles.borrow().is_empty());
        let some = Cold::new(100, |main| main % 2 == 0);
        assert_eq!(read(&some, 500).len(), 500);
        let pages = some.pages.into_inner();
        assert!(pages.iter().flatten().all(|main| main % 2 == 1) && pages.len() <= 4, "{pages:?}");
        let hot = Cold::new(100, |main| main != 7);
        assert_eq!(read(&hot, 0).len(), KEYS as usize);
        assert_eq!((hot.pages.into_inner().len(), hot.singles.into_inner()), (0, vec![7]));
    }

    /// Cause: as many records were brought as were to be looked at next, whatever their size. Symptom: of values of a MiB a
    /// page took half a GiB.
    #[test]
    fn large_values_are_brought_as_far_as_the_bytes_go_and_then_one_by_one() {
        let large = Cold::new(BRING_BYTES / 4, |_| false);
        assert_eq!(read(&large, 100).len(), 100);
        assert!(large.pages.into_inner().iter().all(|page| page.len() <= 4));
        let singles = large.singles.into_inner();
        assert!(singles.len() > 80 && singles.len() < 100, "{}", singles.len());
    }
}
