//! Giving space back after a compaction, some records at a time.
//!
//! ```text
//! compact row published ─► trim the index from key to key ─► all found ─► ValueWriter::remove ─► gone ─► reclaimed
//! ```
//!
//! A pass begins only when its compact revision is published, so that a reader that misses a record
//! can see why. What it finds is handed to the disk at its end, so that each place on the disk is
//! changed once and not for each key. Records go by ascending revision, a key's versions oldest first:
//! were a crash to keep a put whose tombstone is gone, the key would come back to life. Nothing has
//! to be remembered for a restart, which finds again whatever is left.

use super::Store;
use crate::failpoint::{Point, hit};
use crate::storage::index::Trim;
use crate::storage::values::Doomed;

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactStep {
    /// Records found that are to go.
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
    /// What the pass has found: out of the index already, not yet handed to the disk.
    found: Doomed,
    /// The revision of the last pass whose records are all handed over.
    pub(super) finished: i64,
}

impl Reclaim {
    /// Nothing done at compact revision `allowed`; −1 is before the first compaction.
    pub(super) fn new(allowed: i64) -> Self {
        Self { allowed, pass: None, found: Doomed::default(), finished: -1 }
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
    /// Looks for records to remove among about `keys_max` keys; at the end of the pass it hands all that
    /// were found to the disk.
    ///
    /// Does nothing for now while a pinned snapshot is held.
    ///
    /// Called by the writer's owner now and then until [`CompactStep::done`]; between commands only.
    pub fn compact_step(&mut self, keys_max: usize) -> CompactStep {
        if self.reclaim.is_done() {
            return CompactStep { removed: 0, done: true };
        }
        if self.shared.is_pinned() {
            return CompactStep { removed: 0, done: false };
        }
        let allowed = self.reclaim.allowed;
        let mut pass = self.reclaim.pass.take().unwrap_or_else(|| Trim::new(allowed));
        let mut found = Vec::new();
        hit(Point::CompactBeforeCommitBatch);
        self.index.trim_step(&mut pass, keys_max, &mut found);
        self.show_trimmed();
        let removed = found.len();
        found.into_iter().for_each(|at| self.reclaim.found.insert(at));
        self.shared.counts.add_reclaimed(removed as u64);
        hit(Point::CompactAfterCommitBatch);
        if pass.is_done() {
            hit(Point::CompactBeforeSetFinishedCompact);
            let done = (self.shared.reclaimed.clone(), pass.at());
            self.values.remove(std::mem::take(&mut self.reclaim.found), Some(done));
            self.reclaim.finished = pass.at();
            hit(Point::CompactAfterSetFinishedCompact);
        } else {
            self.reclaim.pass = Some(pass);
        }
        CompactStep { removed, done: self.reclaim.is_done() }
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
