//! The values of many keys, for conditions over a range: those in memory at once, the others in pages.
//!
//! ```text
//! index ─► in memory? ─► each
//!             └ no ─► page (bounded in records and bytes) ─► one read for all of it ─► each
//! ```

use crate::storage::index::Version;
use crate::storage::{ReadError, Record};
use crate::types::Revision;

/// Records of the first page, before their size is known: they may be as large as a request.
const FIRST_RECORDS: usize = 32;
/// Records of any page.
const RECORDS_MAX: usize = 1024;
/// About what a page may hold, in bytes of values.
const PAGE_BYTES: usize = 2 << 20;

/// Calls `each` with the value of each of the living `versions`, in no particular order, until it
/// says to stop by `false`.
///
/// `cached` gives what is in memory; `read` gets the records of one page of the others.
///
/// # Errors
/// What `read` gives.
pub(in crate::storage) fn each_value(
    versions: impl Iterator<Item = Version>,
    cached: impl Fn(Revision) -> Option<Record>,
    read: impl Fn(&[Revision]) -> Result<Vec<Record>, ReadError>,
    each: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<(), ReadError> {
    let mut versions = versions.map(|version| version.modified());
    let mut records_max = FIRST_RECORDS;
    loop {
        let mut page = Vec::new();
        while page.len() < records_max
            && let Some(at) = versions.next()
        {
            match cached(at) {
                Some(record) if !each(value(&record)) => return Ok(()),
                Some(_) => {}
                None => page.push(at),
            }
        }
        if page.is_empty() {
            return Ok(());
        }
        // The engine's order, which is that of revisions.
        page.sort_unstable();
        let mut bytes = 0;
        for record in read(&page)? {
            bytes += value(&record).len();
            if !each(value(&record)) {
                return Ok(());
            }
        }
        records_max = (PAGE_BYTES / (bytes / page.len()).max(1)).clamp(1, RECORDS_MAX);
    }
}

/// The index names living versions only, whose records have values.
fn value(record: &Record) -> &[u8] {
    record.version.as_ref().map_or(&[], |version| &version.value)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::storage::{KeyMeta, VersionRecord};
    use crate::types::LeaseId;

    fn version(main: i64) -> Version {
        let meta = KeyMeta { create: main, modified: Revision::new(main, 0), version: 1, lease: LeaseId::NONE };
        Version::put(meta, 0)
    }

    fn record(at: Revision, len: usize) -> Record {
        let value = vec![at.main as u8; len].into();
        let version = VersionRecord { value, create_revision: at.main, version: 1, lease: LeaseId::NONE };
        Record { key: "k".into(), version: Some(version) }
    }

    /// How many values are seen until `stop` of them, and how large the pages were.
    fn seen(count: i64, len: usize, is_cached: fn(i64) -> bool, stop: usize) -> (usize, Vec<usize>) {
        let versions: Vec<_> = (1..=count).rev().map(version).collect();
        let pages = RefCell::default();
        let mut seen = 0;
        let read = |page: &[Revision]| {
            assert!(page.is_sorted());
            RefCell::<Vec<usize>>::borrow_mut(&pages).push(page.len());
            Ok(page.iter().map(|at| record(*at, len)).collect())
        };
        let cached = |at: Revision| is_cached(at.main).then(|| record(at, len));
        let mut each = |value: &[u8]| {
            assert_eq!(value.len(), len);
            seen += 1;
            seen < stop
        };
        each_value(versions.iter().copied(), cached, read, &mut each).unwrap();
        (seen, pages.into_inner())
    }

    #[test]
    fn every_value_is_seen_once_and_cold_ones_come_in_pages() {
        assert_eq!(seen(10_000, 10, |_| true, usize::MAX), (10_000, vec![]));
        assert_eq!(seen(2_100, 10, |_| false, usize::MAX), (2_100, vec![32, 1024, 1024, 20]));
        assert_eq!(seen(100, 10, |at| at % 2 == 0, usize::MAX), (100, vec![32, 18]));
        assert_eq!(seen(0, 10, |_| false, usize::MAX), (0, vec![]));
    }

    #[test]
    fn a_page_of_large_values_is_short() {
        assert_eq!(seen(40, 1 << 20, |_| false, usize::MAX).1, [32, 2, 2, 2, 2]);
        assert_eq!(seen(36, 4 << 20, |_| false, usize::MAX).1, [32, 1, 1, 1, 1]);
    }

    #[test]
    fn the_first_no_ends_it() {
        assert_eq!(seen(1_000_000, 10, |_| false, 40), (40, vec![32, 1024]));
        assert_eq!(seen(1_000_000, 10, |_| true, 1), (1, vec![]));
    }
}
