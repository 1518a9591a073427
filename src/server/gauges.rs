//! Where the figures of `/metrics` come from: rooms that know nothing of metrics are asked here.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::meters::{CompactionMeter, LogMeter};
use super::scrub::Care;
use crate::api::{Connections, RpcMetrics, kind_name};
use crate::apply::{AlarmKind, AlarmView};
use crate::auth::AuthView;
use crate::consensus::NodeStatus;
use crate::lease::Lessor;
use crate::ops::metrics::{Figure, Metrics};
use crate::propose::Proposer;
use crate::storage::StoreReader;
use crate::types::{KeyRange, Limits};
use crate::wal::Wal;
use crate::watch::WatchHub;

/// What the figures are asked of.
pub(super) struct Sources {
    pub(super) status: Arc<NodeStatus>,
    pub(super) proposer: Proposer,
    pub(super) reader: StoreReader,
    pub(super) hub: WatchHub,
    pub(super) lessor: Arc<Lessor>,
    pub(super) auth: AuthView,
    pub(super) alarms: AlarmView,
    pub(super) limits: Limits,
    pub(super) log: Arc<LogMeter>,
    pub(super) wal: Arc<Wal>,
    pub(super) compaction: Arc<CompactionMeter>,
    pub(super) care: Arc<Care>,
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

fn count(alarms: &AlarmView, is_meant: fn(AlarmKind) -> bool) -> f64 {
    alarms.load().list(None).iter().filter(|(_, kind)| is_meant(*kind)).count() as f64
}

/// Gives each figure its source.
pub(super) fn connect(metrics: &Metrics, sources: Sources) {
    let Sources { status, proposer, reader, hub, lessor, auth, alarms, limits, log, wal, compaction, care } = sources;
    let of = |figure, source: fn(&NodeStatus) -> f64| {
        let status = status.clone();
        metrics.sample(figure, move || source(&status));
    };
    of(Figure::HasLeader, |status| flag(status.leader().is_some()));
    of(Figure::IsLeader, |status| flag(status.is_leader()));
    of(Figure::IsLearner, |status| flag(status.is_learner()));
    of(Figure::ProposalsCommitted, |status| status.committed().get() as f64);
    of(Figure::ProposalsApplied, |status| status.applied().get() as f64);
    of(Figure::SnapshotApplying, |status| flag(status.is_installing()));
    of(Figure::LeaderChanges, |status| status.leader_changes() as f64);
    proposals(metrics, proposer);
    // As `Status` says it, and as etcd does: a size divided by it is never a part of a quota that there isn't.
    let quota = limits.quota_bytes.map_or(-1.0, |bytes| bytes as f64);
    metrics.sample(Figure::QuotaBytes, move || quota);
    metrics.sample(Figure::WalBytes, move || log.bytes.load(Ordering::Relaxed) as f64);
    metrics.sample(Figure::WalQueued, move || wal.queued_bytes() as f64);
    metrics.sample(Figure::LastCompaction, move || compaction.last_secs.load(Ordering::Relaxed) as f64);
    metrics.sample(Figure::AuthRevision, move || auth.look().revision() as f64);
    let raised = alarms.clone();
    metrics.sample_alarms(move || {
        let raised = raised.load().list(None).into_iter();
        raised.map(|(member, kind)| (member, kind_name(kind))).collect::<BTreeSet<_>>().into_iter().collect()
    });
    let raised = alarms.clone();
    metrics.sample(Figure::AlarmsNoSpace, move || count(&raised, |kind| kind == AlarmKind::NoSpace));
    metrics.sample(Figure::AlarmsCorrupt, move || count(&alarms, |kind| kind != AlarmKind::NoSpace));
    leases(metrics, lessor);
    let checked = care.clone();
    metrics.sample(Figure::WalChecked, move || checked.checked_bytes.load(Ordering::Relaxed) as f64);
    let damaged = care.clone();
    metrics.sample(Figure::WalDamage, move || damaged.damaged.load(Ordering::Relaxed) as f64);
    let checked = care.clone();
    metrics.sample(Figure::StoreChecked, move || checked.store_checked_bytes.load(Ordering::Relaxed) as f64);
    metrics.sample(Figure::SnapshotDamage, move || care.snapshots_damaged.load(Ordering::Relaxed) as f64);
    store(metrics, reader);
    watch(metrics, hub);
}

/// Gives the figures of the client port their sources.
pub(super) fn connect_port(metrics: &Arc<Metrics>, calls: Arc<RpcMetrics>, connections: Arc<Connections>) {
    let of = |figure, source: fn(&RpcMetrics) -> u64| {
        let calls = calls.clone();
        metrics.sample(figure, move || source(&calls) as f64);
    };
    let defragmenting = metrics.clone();
    let under_way = move || defragmenting.defragmenting.load(Ordering::Relaxed) as f64;
    metrics.sample(Figure::Defragmenting, under_way);
    // What goes through the log counts where it is applied, so on every member.
    let (applied, answered) = (metrics.clone(), calls.clone());
    metrics.sample(Figure::Txns, move || (answered.txns() + applied.applied.txns.load(Ordering::Relaxed)) as f64);
    let (applied, answered) = (metrics.clone(), calls.clone());
    metrics.sample(Figure::Ranges, move || (answered.ranges() + applied.applied.ranges.load(Ordering::Relaxed)) as f64);
    of(Figure::LearnerPromotions, RpcMetrics::promotions);
    metrics.sample(Figure::Connections, move || connections.open() as f64);
}

fn proposals(metrics: &Metrics, proposer: Proposer) {
    let of = |figure, source: fn(&Proposer) -> u64| {
        let proposer = proposer.clone();
        metrics.sample(figure, move || source(&proposer) as f64);
    };
    of(Figure::ProposalsPending, |proposer| proposer.pending().taken() as u64);
    of(Figure::ProposalBytes, |proposer| proposer.pending_bytes().used() as u64);
    of(Figure::QueueDepth, |proposer| proposer.queued() as u64);
    of(Figure::BatchesUnderWay, |proposer| proposer.in_flight() as u64);
    of(Figure::ProposalsFailed, Proposer::failed);
    of(Figure::ReadsFailed, Proposer::reads_failed);
    of(Figure::ReadsSlow, Proposer::reads_slow);
}

fn leases(metrics: &Metrics, lessor: Arc<Lessor>) {
    let of = |figure, source: fn(&Lessor) -> u64| {
        let lessor = lessor.clone();
        metrics.sample(figure, move || source(&lessor) as f64);
    };
    of(Figure::Leases, |lessor| lessor.len() as u64);
    of(Figure::LeasesGranted, |lessor| lessor.counts().granted());
    of(Figure::LeasesRevoked, |lessor| lessor.counts().revoked());
    of(Figure::LeasesRenewed, |lessor| lessor.counts().renewed());
    of(Figure::LeasesExpired, |lessor| lessor.counts().expired());
}

fn store(metrics: &Metrics, reader: StoreReader) {
    let of = |figure, source: fn(&StoreReader) -> f64| {
        let reader = reader.clone();
        metrics.sample(figure, move || source(&reader));
    };
    of(Figure::DbSize, |reader| reader.logical_size() as f64);
    of(Figure::DbSizeInUse, |reader| reader.logical_size() as f64);
    of(Figure::OpenReads, |reader| reader.snapshots_live() as f64);
    of(Figure::SnapshotsLive, |reader| reader.snapshots_live() as f64);
    of(Figure::SnapshotAge, |reader| reader.snapshot_age_max().as_secs_f64());
    of(Figure::CurrentRevision, |reader| reader.revision() as f64);
    of(Figure::CompactRevision, |reader| reader.compact_revision() as f64);
    of(Figure::Keys, |reader| reader.snapshot().count(&KeyRange::all()) as f64);
    of(Figure::Puts, |reader| reader.counts().puts() as f64);
    of(Figure::PutBytes, |reader| reader.counts().put_bytes() as f64);
    of(Figure::Deletes, |reader| reader.counts().deletes() as f64);
    of(Figure::CompactedKeys, |reader| reader.counts().reclaimed() as f64);
    of(Figure::DiskBytes, |reader| reader.values().disk_size().unwrap_or(0) as f64);
    of(Figure::DurableIndex, |reader| reader.values().durable().borrow().index.get() as f64);
    of(Figure::EngineRecycled, |reader| reader.values().recycled().0 as f64);
    of(Figure::EngineRecycling, |reader| reader.values().recycled().1.as_secs_f64());
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
    metrics.sample(Figure::WatchLag, move || hub.lag() as f64);
}
