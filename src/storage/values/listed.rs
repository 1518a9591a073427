//! The revisions that a large segment lists, kept between two pages of one walk.
//!
//! A command that changes a million keys makes a segment of 40 MB, which would otherwise be read,
//! checked and taken apart for each page of a thousand. One list is kept, for the walk that asked last.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::env::sync::Mutex;
use crate::types::Revision;

/// A segment's base and the revisions that it lists, ascending.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) base: u64,
    pub(super) revisions: Arc<[Revision]>,
}

/// The list that is kept.
///
/// Invariant: it is used only while no step of the store thread has ended since it was read, so that
/// it lists all that isn't pending.
#[derive(Debug, Default)]
pub(super) struct ListedSlot {
    kept: Mutex<Option<(u64, Listed)>>,
    steps: AtomicU64,
}

impl ListedSlot {
    /// What to note before a list is read, to keep it by.
    pub(super) fn epoch(&self) -> u64 {
        self.steps.load(Ordering::Acquire)
    }

    /// The list of the first segment from `base` on, if it is kept.
    pub(super) fn get(&self, base: u64) -> Option<Listed> {
        let kept = self.kept.lock();
        let (epoch, listed) = kept.as_ref()?;
        (listed.base == base && *epoch == self.epoch()).then(|| listed.clone())
    }

    /// Keeps a list that was read after `epoch` was.
    pub(super) fn keep(&self, epoch: u64, listed: Listed) {
        *self.kept.lock() = Some((epoch, listed));
    }

    /// Lets go of the list of this segment: the walk is through with it.
    pub(super) fn forget(&self, base: u64) {
        self.kept.lock().take_if(|(_, listed)| listed.base == base);
    }

    /// The segments have changed. Called before anything leaves the pending map for them.
    pub(super) fn outdate(&self) {
        self.steps.fetch_add(1, Ordering::AcqRel);
        *self.kept.lock() = None;
    }
}
