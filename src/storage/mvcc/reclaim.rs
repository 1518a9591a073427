//! Giving space back after a compaction, some records at a time.
//!
//! ```text
//! compact row published ─► trim the index from key to key ─► queue ─► ValueWriter::remove ─► gone ─► reclaimed
//! ```
//!
//! A pass begins only when its compact revision is published, so that a reader that misses a record
//! can see why. Versions of a key go oldest first: were a crash to keep a put whose tombstone is
//! gone, the key would come back to life. Nothing has to be remembered for a restart, which finds
//! again whatever is left.

use std::collections::VecDeque;

use super::Store;
use crate::storage::index::Trim;
use crate::types::Revision;

/// Records that the disk may have to remove before no more are handed to it.
const REMOVALS_MAX: usize = 100_000;

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactStep {
    /// Records handed to the disk for removal.
    pub removed: usize,
    /// Whether there is nothing more to hand over for now; [`StoreReader::reclaimed`] tells when it is gone.
    ///
    /// [`StoreReader::reclaimed`]: crate::storage::StoreReader::reclaimed
    pub done: bool,
}

/// How far the removal of compacted versions is.
#[derive(Debug)]
pub(super) struct Reclaim {
    /// The newest published compact revision.
    allowed: i64,
    /// The pass under way.
    pass: Option<Trim>,
    /// Out of the index already, not yet handed to the disk.
    queue: VecDeque<Revision>,
    /// The revision of the last pass whose records are all handed over.
    pub(super) finished: i64,
}

impl Reclaim {
    /// Nothing done at compact revision `allowed`; −1 is before the first compaction.
    pub(super) fn new(allowed: i64) -> Self {
        Self { allowed, pass: None, queue: VecDeque::new(), finished: -1 }
    }

    /// A compact revision is published; whether it is a new one.
    pub(super) fn allow(&mut self, revision: i64) -> bool {
        std::mem::replace(&mut self.allowed, revision) != revision
    }

    fn is_done(&self) -> bool {
        self.pass.is_none() && self.finished >= self.allowed
    }
}

impl Store {
    /// Removes at most `records_max` compacted records and looks at about four times as many keys.
    ///
    /// Does nothing for now while a pinned snapshot is held, or while the disk has much to remove.
    ///
    /// Called by the writer's owner now and then until [`CompactStep::done`]; between commands only.
    pub fn compact_step(&mut self, records_max: usize) -> CompactStep {
        let records_max = records_max.max(1);
        if self.reclaim.is_done() {
            return CompactStep { removed: 0, done: true };
        }
        if self.shared.is_pinned() || self.values.removals() > REMOVALS_MAX {
            return CompactStep { removed: 0, done: false };
        }
        let allowed = self.reclaim.allowed;
        let mut pass = self.reclaim.pass.take().unwrap_or_else(|| Trim::new(allowed));
        if self.reclaim.queue.len() < records_max {
            let mut found = Vec::new();
            self.index.trim_step(&mut pass, records_max.saturating_mul(4), &mut found);
            self.reclaim.queue.extend(found);
            self.show_trimmed();
        }
        let count = self.reclaim.queue.len().min(records_max);
        let mut batch: Vec<_> = self.reclaim.queue.drain(..count).collect();
        batch.sort_unstable();
        let is_last = pass.is_done() && self.reclaim.queue.is_empty();
        if !batch.is_empty() {
            self.shared.counts.add_reclaimed(count as u64);
        }
        if is_last || !batch.is_empty() {
            let done = is_last.then(|| (self.shared.reclaimed.clone(), pass.at()));
            self.values.remove(batch, done);
        }
        if is_last {
            self.reclaim.finished = pass.at();
        } else {
            self.reclaim.pass = Some(pass);
        }
        CompactStep { removed: count, done: self.reclaim.is_done() }
    }

    /// Whether [`Store::compact_step`] has something to do.
    pub fn is_compacting(&self) -> bool {
        !self.reclaim.is_done()
    }

    /// Lets readers have the smaller index, unless there are changes that they must not see yet.
    fn show_trimmed(&mut self) {
        if self.changes.is_empty() && self.row_changes.is_empty() {
            let position = self.shared.published.load().position;
            self.show(position);
        }
    }
}
