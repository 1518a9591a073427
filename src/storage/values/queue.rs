//! What the writer leaves for the store thread: one heap of work, taken as a whole.
//!
//! A put only adds to the heap; the thread is woken for the first piece and when the work becomes
//! urgent, so that nearly no put costs a system call.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use parking_lot::Condvar;
use tokio::sync::{oneshot, watch};

use super::RowChange;
use super::doomed::Doomed;
use super::freeze::Frozen;
use crate::env::WorkerHandle;
use crate::env::sync::Mutex;
use crate::storage::AppliedPosition;
use crate::types::{Revision, StorageError};

/// Appends are joined to parts of about this size.
const PART_BYTES: u64 = 1 << 20;

/// Rows of small tables from which a part is begun to be written at once, and bytes of them: neither counts as pending, and
/// all of it waits in memory.
const ROWS_MAX: usize = 1 << 16;
const ROW_BYTES_MAX: usize = 4 << 20;

/// Where the small tables are sent.
pub(super) type FreezeReply = oneshot::Sender<Result<Frozen, StorageError>>;

/// Consecutive appends: what leads from one position to another, and is written in one batch.
#[derive(Debug)]
pub(super) struct Part {
    /// Main revisions of the records, which are in the pending map: first and last.
    pub(super) mains: Option<(i64, i64)>,
    /// Bytes that the records hold in the pending map.
    pub(super) bytes: u64,
    /// Of the records, in order.
    pub(super) digests: Vec<u64>,
    /// Changes of small tables, in order.
    pub(super) rows: Vec<RowChange>,
    /// Bytes of their keys and values.
    pub(super) row_bytes: usize,
    /// Older versions that the records take the place of.
    pub(super) superseded: Vec<Revision>,
    /// The position that all of this leads to.
    pub(super) position: AppliedPosition,
    /// Someone wants to see the content at exactly this position: nothing is joined to it.
    pub(super) closed: bool,
}

/// Records to remove for good.
#[derive(Debug)]
pub(super) struct Removal {
    /// What makes them unreadable is durable with this position.
    pub(super) after: AppliedPosition,
    pub(super) revisions: Doomed,
    /// Raised once these and all before are gone.
    pub(super) done: Option<(watch::Sender<i64>, i64)>,
}

/// Work that has come in since the last time it was taken.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// In order.
    pub(super) parts: VecDeque<Part>,
    /// Revisions to remove for good once the position is durable.
    pub(super) remove: VecDeque<Removal>,
    /// Who waits for which position to be durable; it is filled in when the work is taken.
    pub(super) waiters: Vec<(AppliedPosition, oneshot::Sender<AppliedPosition>)>,
    /// Who wants the small tables as of which position; it is filled in when the work is taken.
    pub(super) freezes: VecDeque<(AppliedPosition, FreezeReply)>,
    /// No more will come.
    pub(super) last: bool,
    /// Don't wait for the interval.
    pub(super) urgent: bool,
}

impl Work {
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
            && self.remove.is_empty()
            && self.waiters.is_empty()
            && self.freezes.is_empty()
            && !self.last
    }

    /// Adds an append.
    pub(super) fn append(&mut self, mut part: Part) {
        match self.parts.back_mut().filter(|back| !back.closed && back.bytes + part.bytes <= PART_BYTES) {
            Some(back) => {
                back.mains = match (back.mains, part.mains) {
                    (Some((first, _)), Some((_, last))) => Some((first, last)),
                    (mine, theirs) => mine.or(theirs),
                };
                back.bytes += part.bytes;
                back.digests.append(&mut part.digests);
                back.rows.append(&mut part.rows);
                back.row_bytes += part.row_bytes;
                back.superseded.append(&mut part.superseded);
                back.position = part.position;
            }
            None => self.parts.push_back(part),
        }
        let is_long = |part: &Part| part.rows.len() >= ROWS_MAX || part.row_bytes >= ROW_BYTES_MAX;
        self.urgent |= self.parts.back().is_some_and(is_long);
    }

    /// Asks for the small tables as of the last append before this.
    pub(super) fn freeze(&mut self, freeze: FreezeReply) {
        let target = self.parts.back_mut().map(|part| {
            part.closed = true;
            part.position
        });
        self.freezes.push_back((target.unwrap_or_default(), freeze));
    }

    /// Adds what came later.
    pub(super) fn merge(&mut self, later: Self) {
        let before = self.parts.back().map_or_else(AppliedPosition::default, |part| part.position);
        self.freezes.extend(later.freezes.into_iter().map(|(known, freeze)| (known.max(before), freeze)));
        self.parts.extend(later.parts);
        self.remove.extend(later.remove);
        let target = self.parts.back().map_or_else(AppliedPosition::default, |part| part.position);
        self.waiters.extend(later.waiters.into_iter().map(|(_, waiter)| (target, waiter)));
        self.last |= later.last;
        self.urgent |= later.urgent;
    }
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    work: Mutex<Work>,
    /// The store thread, once it runs.
    thread: OnceLock<Arc<dyn WorkerHandle>>,
    /// The writer waits here for room in the pending map.
    room: Condvar,
}

impl Queue {
    /// From now on this thread is woken.
    pub(super) fn serve(&self, thread: Arc<dyn WorkerHandle>) {
        let _ = self.thread.set(thread);
        self.wake();
    }

    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.wake();
        }
    }

    /// Adds work.
    pub(super) fn add(&self, add: impl FnOnce(&mut Work)) {
        let mut work = self.work.lock();
        let (was_empty, was_urgent) = (work.is_empty(), work.urgent);
        add(&mut work);
        let wake = was_empty || work.urgent != was_urgent;
        drop(work);
        if wake {
            self.wake();
        }
    }

    /// Whether something is there, and whether it is urgent.
    pub(super) fn look(&self) -> (bool, bool) {
        let work = self.work.lock();
        (!work.is_empty(), work.urgent)
    }

    /// Takes what is there.
    pub(super) fn take(&self) -> Work {
        std::mem::take(&mut *self.work.lock())
    }

    /// Lets those who wait see their senders go, where nobody will serve them any more. Appends stay,
    /// so that what the thread may still be about to take has no hole.
    pub(super) fn forsake(&self) {
        let mut work = self.work.lock();
        work.waiters.clear();
        work.freezes.clear();
    }

    /// Wakes a writer that waits in [`Queue::wait_for_room`].
    pub(super) fn signal_room(&self) {
        // Under the lock, so that a writer can't look, miss this, and then sleep.
        let _work = self.work.lock();
        self.room.notify_all();
    }

    /// Waits until `full` no longer holds, hurrying the store thread.
    pub(super) fn wait_for_room(&self, mut full: impl FnMut() -> bool) {
        let mut work = self.work.lock();
        while full() {
            work.urgent = true;
            self.wake();
            self.room.wait(&mut work);
        }
    }

    /// Waits until the store thread has ended.
    pub(super) fn join(&self) {
        if let Some(thread) = self.thread.get() {
            thread.join();
        }
    }
}
