//! The published state: one `ArcSwap` between the one writer and all readers.
//!
//! ```text
//! Store ─ publish ─► ArcSwap<Published> ─ one load ─► Snapshot (frozen) ─► index ─► value
//! ```
//!
//! Nothing here writes: a [`StoreReader`] can be given to anyone. Readers take no lock and never
//! wait for the writer.

mod counts;
mod gauge;
mod newest;
mod pages;
mod past;
mod reader;
mod snapshot;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::watch;

pub use counts::StoreCounts;
pub use reader::StoreReader;
pub use snapshot::{Disk, HashKv, ReadError, Snapshot};

use super::mvcc::View;
use crate::env::Clock;
use crate::storage::AppliedPosition;
use crate::storage::index::{Index, Rows};
use crate::storage::values::ValueReader;
use gauge::SnapshotGauge;

/// Everything that belongs to one revision. It never changes once it is published.
#[derive(Clone, Debug)]
pub(super) struct Published {
    pub(super) index: Index,
    pub(super) rows: Rows,
    pub(super) revision: i64,
    pub(super) compact: Compaction,
    pub(super) position: AppliedPosition,
}

impl Published {
    fn view(&self) -> View<'_> {
        View { index: &self.index, revision: self.revision, compact: self.compact.revision }
    }
}

/// What was compacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Compaction {
    /// The lowest readable revision; −1 before the first compaction, as in etcd.
    pub(super) revision: i64,
    /// What it was before that.
    pub(super) previous: i64,
}

impl Compaction {
    pub(super) const NEVER: Self = Self { revision: -1, previous: -1 };
}

/// What the writer and all readers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) published: ArcSwap<Published>,
    pub(super) values: ValueReader,
    /// The published compact revision.
    pub(super) compacted: watch::Sender<i64>,
    /// The revision up to which removed versions are really gone.
    pub(super) reclaimed: watch::Sender<i64>,
    pub(super) counts: StoreCounts,
    gauge: SnapshotGauge,
    /// Snapshots whose records must stay: while there are some, nothing is removed.
    pins: AtomicUsize,
}

impl Shared {
    pub(super) fn new(published: Published, values: ValueReader, clock: Arc<dyn Clock>) -> Self {
        Self {
            compacted: watch::Sender::new(published.compact.revision),
            reclaimed: watch::Sender::new(Compaction::NEVER.revision),
            published: ArcSwap::from_pointee(published),
            values,
            counts: StoreCounts::default(),
            gauge: SnapshotGauge::new(clock),
            pins: AtomicUsize::new(0),
        }
    }

    /// Whether a snapshot needs all records to stay for now.
    pub(super) fn is_pinned(&self) -> bool {
        self.pins.load(Ordering::SeqCst) > 0
    }
}
