//! Where the figures of `/metrics` come from: rooms that know nothing of metrics are asked here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::scrub::LogCare;
use crate::consensus::NodeStatus;
use crate::lease::Lessor;
use crate::ops::metrics::{Figure, Metrics};
use crate::propose::Proposer;
use crate::storage::StoreReader;
use crate::types::{KeyRange, Limits};
use crate::wal::{GroupStats, WalObserver};
use crate::watch::WatchHub;

/// Times and bytes of the log's groups, under etcd's names.
#[derive(Debug)]
pub(super) struct LogCounters {
    metrics: Arc<Metrics>,
    /// Bytes written since the start.
    pub(super) bytes: AtomicU64,
}

impl LogCounters {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, bytes: AtomicU64::new(0) }
    }
}

impl WalObserver for LogCounters {
    fn group_synced(&self, stats: GroupStats) {
        self.bytes.fetch_add(stats.bytes as u64, Ordering::Relaxed);
        self.metrics.histograms.wal_fsync.observe(stats.sync.as_secs_f64());
        self.metrics.histograms.wal_write.observe(stats.write.as_secs_f64());
    }
}

/// What the figures are asked of.
pub(super) struct Sources {
    pub(super) status: Arc<NodeStatus>,
    pub(super) proposer: Proposer,
    pub(super) reader: StoreReader,
    pub(super) hub: WatchHub,
    pub(super) lessor: Arc<Lessor>,
    pub(super) limits: Limits,
    pub(super) counters: Arc<LogCounters>,
    pub(super) care: Arc<LogCare>,
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

/// Gives each figure its source.
pub(super) fn connect(metrics: &Metrics, sources: Sources) {
    let Sources { status, proposer, reader, hub, lessor, limits, counters, care } = sources;
    let of = |figure, source: fn(&NodeStatus) -> f64| {
        let status = status.clone();
        metrics.sample(figure, move || source(&status));
    };
    of(Figure::HasLeader, |status| flag(status.leader().is_some()));
    of(Figure::IsLeader, |status| flag(status.is_leader()));
    of(Figure::IsLearner, |status| flag(status.is_learner()));
    of(Figure::ProposalsCommitted, |status| status.committed().get() as f64);
    of(Figure::ProposalsApplied, |status| status.applied().get() as f64);
    metrics.sample(Figure::ProposalsPending, move || proposer.pending() as f64);
    let quota = limits.quota_bytes.unwrap_or(0) as f64;
    metrics.sample(Figure::QuotaBytes, move || quota);
    metrics.sample(Figure::Leases, move || lessor.len() as f64);
    metrics.sample(Figure::WalBytes, move || counters.bytes.load(Ordering::Relaxed) as f64);
    let checked = care.clone();
    metrics.sample(Figure::WalChecked, move || checked.checked_bytes.load(Ordering::Relaxed) as f64);
    metrics.sample(Figure::WalDamage, move || care.damaged.load(Ordering::Relaxed) as f64);
    store(metrics, reader);
    watch(metrics, hub);
}

fn store(metrics: &Metrics, reader: StoreReader) {
    let of = |figure, source: fn(&StoreReader) -> f64| {
        let reader = reader.clone();
        metrics.sample(figure, move || source(&reader));
    };
    of(Figure::DbSize, |reader| reader.logical_size() as f64);
    of(Figure::DbSizeInUse, |reader| reader.logical_size() as f64);
    of(Figure::OpenReads, |reader| reader.snapshots_live() as f64);
    of(Figure::CurrentRevision, |reader| reader.revision() as f64);
    of(Figure::CompactRevision, |reader| reader.compact_revision() as f64);
    of(Figure::Keys, |reader| reader.snapshot().count(&KeyRange::all()) as f64);
    of(Figure::DurableIndex, |reader| reader.values().durable().borrow().index.get() as f64);
    of(Figure::PendingBytes, |reader| reader.values().memory().0 as f64);
}

fn watch(metrics: &Metrics, hub: WatchHub) {
    let of = |figure, source: fn(&crate::watch::WatchFigures) -> f64| {
        let hub = hub.clone();
        metrics.sample(figure, move || source(&hub.metrics().snapshot()));
    };
    of(Figure::WatchStreams, |figures| figures.streams as f64);
    of(Figure::Watchers, |figures| figures.watchers as f64);
    of(Figure::SlowWatchers, |figures| figures.slow_watchers as f64);
    of(Figure::PendingEvents, |figures| figures.pending_events as f64);
    of(Figure::Events, |figures| figures.events_total as f64);
    of(Figure::WatchOverflows, |figures| figures.overflows_total as f64);
    of(Figure::WatchReplays, |figures| figures.replays_total as f64);
}
