//! Entries on their way from the log to the state machine, as they were proposed.
//!
//! ```text
//! append ─► push ─► range (apply, replication) ─► trim after they were applied
//! ```
//!
//! An entry from here still has its commands and waiters (`LogData::local`); one read back from
//! disk has only its payload. So an entry with waiters stays until it was applied; the others
//! leave when the cache holds more than its bound.

use std::collections::VecDeque;
use std::ops::Range;

use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use parking_lot::Mutex;

use super::types::Entry;

/// The most payload bytes kept of entries that nobody here waits for.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// What an entry takes besides its payload, with the shell of the batch that came with it.
const ENTRY_BYTES: usize = size_of::<Entry>() + 128;

/// The newest entries of the log, without gaps.
#[derive(Debug, Default)]
pub struct LogCache {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl LogCache {
    /// Adds an entry at the end. One that doesn't follow the last replaces what is there.
    pub fn push(&self, entry: Entry) {
        let mut inner = self.inner.lock();
        let expected = inner.entries.back().map(|last| last.index() + 1);
        if expected.is_some_and(|index| index != entry.index()) {
            inner.entries.clear();
            inner.bytes = 0;
        }
        inner.bytes += size(&entry);
        inner.entries.push_back(entry);
        while inner.bytes > BYTES_MAX && inner.entries.front().is_some_and(|first| !is_local(first)) {
            inner.pop_front();
        }
    }

    /// The entries of `range`, if the cache holds its beginning; perhaps fewer than asked for.
    pub fn range(&self, range: Range<u64>, bytes_max: usize) -> Option<Vec<Entry>> {
        let inner = self.inner.lock();
        let first = inner.entries.front()?.index();
        let skip = usize::try_from(range.start.checked_sub(first)?).ok()?;
        let mut bytes = 0;
        let found: Vec<_> = inner
            .entries
            .iter()
            .skip(skip)
            .take_while(|entry| entry.index() < range.end)
            .take_while(|entry| {
                let fits = bytes == 0 || bytes + size(entry) <= bytes_max;
                bytes += size(entry);
                fits
            })
            .cloned()
            .collect();
        (!found.is_empty()).then_some(found)
    }

    /// Drops what was applied, up to and with `index`; of it stay `keep_bytes` for members that are a little behind.
    pub fn trim(&self, index: u64, keep_bytes: usize) {
        let mut inner = self.inner.lock();
        while (keep_bytes == 0 || inner.bytes > keep_bytes)
            && inner.entries.front().is_some_and(|first| first.index() <= index)
        {
            inner.pop_front();
        }
    }

    /// Drops everything after `index` (all of it for `None`).
    pub fn truncate_after(&self, index: Option<u64>) {
        let mut inner = self.inner.lock();
        while inner.entries.back().is_some_and(|last| index.is_none_or(|keep| last.index() > keep)) {
            if let Some(entry) = inner.entries.pop_back() {
                inner.bytes -= size(&entry);
            }
        }
    }
}

impl Inner {
    fn pop_front(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= size(&entry);
        }
    }
}

fn size(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(data) => data.payload.len() + ENTRY_BYTES,
        EntryPayload::Blank | EntryPayload::Membership(_) => ENTRY_BYTES,
    }
}

/// Whether somebody of this process waits for it. Of a forwarded one, the member that proposed it does.
fn is_local(entry: &Entry) -> bool {
    matches!(&entry.payload, EntryPayload::Normal(data) if data.local.is_some() && !data.forwarded)
}

#[cfg(test)]
mod tests {
    use super::super::types::log_id;
    use super::*;

    fn blank(index: u64) -> Entry {
        Entry { log_id: log_id(1, index), payload: EntryPayload::Blank }
    }

    fn indexes(found: Option<Vec<Entry>>) -> Vec<u64> {
        found.unwrap_or_default().iter().map(RaftEntry::index).collect()
    }

    #[test]
    fn it_serves_ranges_that_it_holds_the_beginning_of() {
        let cache = LogCache::default();
        (3..8).for_each(|index| cache.push(blank(index)));
        assert_eq!(indexes(cache.range(4..6, usize::MAX)), [4, 5]);
        assert_eq!(indexes(cache.range(6..99, usize::MAX)), [6, 7]);
        assert!(cache.range(2..5, usize::MAX).is_none());
        assert!(cache.range(8..9, usize::MAX).is_none());
        assert_eq!(indexes(cache.range(3..8, 2 * ENTRY_BYTES + 1)), [3, 4], "two entries fit");
    }

    #[test]
    fn what_is_a_little_behind_stays_for_others() {
        let cache = LogCache::default();
        (1..6).for_each(|index| cache.push(blank(index)));
        cache.trim(4, 3 * ENTRY_BYTES);
        assert_eq!(indexes(cache.range(3..9, usize::MAX)), [3, 4, 5]);
        assert!(cache.range(2..9, usize::MAX).is_none());
    }

    #[test]
    fn trimming_and_truncating_leave_the_rest() {
        let cache = LogCache::default();
        (1..6).for_each(|index| cache.push(blank(index)));
        cache.trim(2, 0);
        cache.truncate_after(Some(4));
        assert_eq!(indexes(cache.range(3..9, usize::MAX)), [3, 4]);
        cache.push(blank(9));
        assert_eq!(indexes(cache.range(9..10, usize::MAX)), [9], "a jump starts afresh");
        cache.truncate_after(None);
        assert!(cache.range(9..10, usize::MAX).is_none());
    }
}
