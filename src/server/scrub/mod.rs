//! Reading again, slowly, what lies on the disk: lost bytes are noticed while what they held is still elsewhere.
//!
//! ```text
//! log    finished segment ─► damaged: upkeep takes a snapshot and purges the log beyond it
//! store  snapshot files ─► damaged: upkeep writes a new one, and the file goes
//!        then records   ─► damaged: the store is given up, and the next start makes it anew of snapshot and log
//! ```
//! In this order, since a store is made anew of a snapshot and the log: records are looked at only if both are whole.

mod log;
mod store;
mod warm;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

pub(super) use log::Scrub;
pub(super) use store::StoreScrub;

use crate::types::RaftIndex;
use crate::wal::Wal;

/// What is known of the files.
#[derive(Debug, Default)]
pub(super) struct Care {
    /// Bytes of the log checked since the start.
    pub(super) checked_bytes: AtomicU64,
    /// Times that damage was met in the log.
    pub(super) damaged: AtomicU64,
    /// Bytes of snapshots and of records checked since the start.
    pub(super) store_checked_bytes: AtomicU64,
    /// Times that a damaged snapshot was met.
    pub(super) snapshots_damaged: AtomicU64,
    /// The last entry of damaged segments; 0 if there was none.
    damaged_until: AtomicU64,
    /// The newest snapshot is damaged.
    is_snapshot_bad: AtomicBool,
}

impl Care {
    /// Up to where the log must go since a part of it is damaged.
    pub(super) fn damaged_until(&self) -> RaftIndex {
        RaftIndex(self.damaged_until.load(Ordering::Relaxed))
    }

    /// Whether a damaged part of the log isn't purged yet: no start takes such a log.
    pub(super) fn is_log_damaged(&self, wal: &Wal) -> bool {
        self.damaged_until() > wal.purged().map_or(RaftIndex(0), |id| id.index)
    }

    /// Whether a snapshot is needed in place of one that is damaged.
    pub(super) fn is_snapshot_bad(&self) -> bool {
        self.is_snapshot_bad.load(Ordering::Relaxed)
    }

    /// A whole snapshot was written.
    pub(super) fn snapshot_written(&self) {
        self.is_snapshot_bad.store(false, Ordering::Relaxed);
    }
}
