//! Reading a stretch of the past in pages of bounded size.

use crate::storage::Record;
use crate::storage::values::{PageLimits, ValueReader};
use crate::types::{Revision, StorageError};

/// About what a page may hold, in bytes of keys and values; records are as large as a request may be.
const PAGE_BYTES: usize = 2 << 20;
/// Records of the first page, as many readers want only a few.
const FIRST_RECORDS: usize = 32;
/// Records of any page.
const RECORDS_MAX: usize = 1024;

/// All records from a revision on up to a main revision, in order.
#[derive(Debug)]
pub(super) struct Pages {
    /// `None` after the last page.
    next: Option<Revision>,
    end: Revision,
    records_max: usize,
}

impl Pages {
    /// `last_main` is the last main revision that is read.
    pub(super) fn new(from: Revision, last_main: i64) -> Self {
        Self { next: Some(from), end: Revision::new(last_main.saturating_add(1), 0), records_max: FIRST_RECORDS }
    }

    /// The next page; `None` after the last. May block on the engine.
    pub(super) fn next(&mut self, values: &ValueReader) -> Result<Option<Vec<(Revision, Record)>>, StorageError> {
        let Some(from) = self.next.filter(|from| *from < self.end) else { return Ok(None) };
        let page = values.page(from, self.end, PageLimits { records: self.records_max, bytes: PAGE_BYTES })?;
        (self.next, self.records_max) = (page.next, (self.records_max * 4).min(RECORDS_MAX));
        Ok(Some(page.records))
    }
}
