//! Reading a stretch of the past in pages of bounded size.

use crate::storage::Record;
use crate::storage::values::ValueReader;
use crate::types::{Revision, StorageError};

/// About what a page may hold, in bytes of keys and values; records are as large as a request may be.
const PAGE_BYTES: usize = 2 << 20;
/// Records of the first page, before their size is known.
const FIRST_RECORDS: usize = 32;
/// Records of any page.
const RECORDS_MAX: usize = 1024;

/// All records from a revision on up to a main revision, in order.
#[derive(Debug)]
pub(super) struct Pages {
    next: Revision,
    end: Revision,
    records_max: usize,
}

impl Pages {
    /// `last_main` is the last main revision that is read.
    pub(super) fn new(from: Revision, last_main: i64) -> Self {
        Self { next: from, end: Revision::new(last_main.saturating_add(1), 0), records_max: FIRST_RECORDS }
    }

    /// The next page; `None` after the last. May block on the engine.
    pub(super) fn next(&mut self, values: &ValueReader) -> Result<Option<Vec<(Revision, Record)>>, StorageError> {
        if self.next >= self.end {
            return Ok(None);
        }
        let page = values.scan(self.next, self.end, self.records_max)?;
        let Some((last, _)) = page.last().filter(|_| page.len() >= self.records_max) else {
            self.next = self.end;
            return Ok(Some(page));
        };
        self.next = Revision::new(last.main, last.sub.saturating_add(1));
        let average = page.iter().map(|(_, record)| record.size()).sum::<usize>() / page.len();
        self.records_max = (PAGE_BYTES / average.max(1)).clamp(1, RECORDS_MAX).min(page.len() * 4);
        Ok(Some(page))
    }
}
