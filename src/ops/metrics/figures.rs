//! Figures: values that a room has anyway and that are asked for at a scrape.

use std::fmt;
use std::sync::{Arc, OnceLock};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, Metric, MetricFamily, MetricType};

/// Where a figure comes from.
type Source = Box<dyn Fn() -> f64 + Send + Sync>;

macro_rules! figures {
    ($($variant:ident $kind:ident $name:literal $help:literal;)*) => {
        /// A value asked for at each scrape; 0 until its source is set.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Figure {
            $(#[doc = concat!("`", $name, "`: ", $help)] $variant,)*
        }

        /// Name, type and help, in the order of the enum.
        const TABLE: &[(&str, MetricType, &str)] = &[
            $(($name, MetricType::$kind, $help),)*
        ];
    };
}

figures! {
    HasLeader GAUGE "etcd_server_has_leader" "1 while a leader is known.";
    IsLeader GAUGE "etcd_server_is_leader" "1 while this member leads.";
    IsLearner GAUGE "etcd_server_is_learner" "1 while this member has no vote.";
    ProposalsCommitted GAUGE "etcd_server_proposals_committed_total" "Index of the last committed entry.";
    ProposalsApplied GAUGE "etcd_server_proposals_applied_total" "Index of the last applied entry.";
    ProposalsFailed COUNTER "etcd_server_proposals_failed_total" "Proposals that failed.";
    LeaderChanges COUNTER "etcd_server_leader_changes_seen_total" "Changes of the leader.";
    ReadsFailed COUNTER "etcd_server_read_indexes_failed_total" "Read barriers that failed.";
    ReadsSlow COUNTER "etcd_server_slow_read_indexes_total" "Read barriers that took too long.";
    ProposalsPending GAUGE "etcd_server_proposals_pending" "Proposals under way.";
    QuotaBytes GAUGE "etcd_server_quota_backend_bytes" "Size from which writes are refused.";
    SnapshotApplying GAUGE "etcd_server_snapshot_apply_in_progress_total" "1 while a snapshot is installed.";
    DbSize GAUGE "etcd_mvcc_db_total_size_in_bytes" "Size of the store.";
    DbSizeInUse GAUGE "etcd_mvcc_db_total_size_in_use_in_bytes" "Size of what lives in the store.";
    OpenReads GAUGE "etcd_mvcc_db_open_read_transactions" "Snapshots held by readers.";
    CurrentRevision GAUGE "etcd_debugging_mvcc_current_revision" "Revision of the store.";
    CompactRevision GAUGE "etcd_debugging_mvcc_compact_revision" "Revision of the last compaction.";
    LastCompaction GAUGE "etcd_debugging_mvcc_db_compaction_last" "Unix time of the last compaction; 0 if none.";
    Keys GAUGE "etcd_debugging_mvcc_keys_total" "Keys.";
    WatchStreams GAUGE "etcd_debugging_mvcc_watch_stream_total" "Open watch streams.";
    Watchers GAUGE "etcd_debugging_mvcc_watcher_total" "Watchers.";
    SlowWatchers GAUGE "etcd_debugging_mvcc_slow_watcher_total" "Watchers that read from history.";
    PendingEvents GAUGE "etcd_debugging_mvcc_pending_events_total" "Events that wait to be sent.";
    Events COUNTER "etcd_debugging_mvcc_events_total" "Events sent.";
    PutBytes GAUGE "etcd_debugging_mvcc_total_put_size_in_bytes" "Bytes of keys and values put.";
    Puts COUNTER "etcd_mvcc_put_total" "Puts.";
    Deletes COUNTER "etcd_mvcc_delete_total" "Deletes.";
    Ranges COUNTER "etcd_mvcc_range_total" "Ranges.";
    Txns COUNTER "etcd_mvcc_txn_total" "Transactions of several operations.";
    ProposalBytes GAUGE "rusd_proposals_pending_bytes" "Bytes of commands that wait for their outcome.";
    CompactedKeys COUNTER "etcd_debugging_mvcc_db_compaction_keys_total" "Revisions removed by compaction.";
    LeasesGranted COUNTER "etcd_debugging_lease_granted_total" "Leases granted.";
    LeasesRenewed COUNTER "etcd_debugging_lease_renewed_total" "Renewals of leases.";
    LeasesRevoked COUNTER "etcd_debugging_lease_revoked_total" "Leases revoked.";
    LeasesExpired COUNTER "etcd_debugging_server_lease_expired_total" "Leases that ran out.";
    AuthRevision GAUGE "etcd_debugging_auth_revision" "Revision of users and roles.";
    WalBytes GAUGE "etcd_disk_wal_write_bytes_total" "Bytes written to the Raft log.";
    Defragmenting GAUGE "etcd_disk_defrag_inflight" "1 while the store is rewritten.";
    StoreExpires COUNTER "etcd_debugging_store_expires_total" "Of etcd 2; always 0.";
    StoreWatchRequests COUNTER "etcd_debugging_store_watch_requests_total" "Of etcd 2; always 0.";
    StoreWatchers GAUGE "etcd_debugging_store_watchers" "Of etcd 2; always 0.";
    ProxyCacheHits GAUGE "etcd_grpc_proxy_cache_hits_total" "Of etcd's proxy; always 0.";
    ProxyCacheKeys GAUGE "etcd_grpc_proxy_cache_keys_total" "Of etcd's proxy; always 0.";
    ProxyCacheMisses GAUGE "etcd_grpc_proxy_cache_misses_total" "Of etcd's proxy; always 0.";
    ProxyEvents COUNTER "etcd_grpc_proxy_events_coalescing_total" "Of etcd's proxy; always 0.";
    ProxyWatchers GAUGE "etcd_grpc_proxy_watchers_coalescing_total" "Of etcd's proxy; always 0.";
    PendingBytes GAUGE "rusd_store_pending_bytes" "Bytes of records that wait for the engine.";
    DiskBytes GAUGE "rusd_store_disk_bytes" "Bytes that the engine takes on disk.";
    DiskShort GAUGE "rusd_disk_short" "1 while the disk is so full that this member refuses writes that grow.";
    DurableIndex GAUGE "rusd_store_durable_index" "Index of the last entry that the engine has flushed.";
    WalQueued GAUGE "rusd_wal_queued_bytes" "Bytes of entries that wait for the log thread.";
    WalChecked COUNTER "rusd_wal_checked_bytes_total" "Bytes of finished log files that were read again and are whole.";
    WalDamage COUNTER "rusd_wal_damage_total" "Times that a finished log file was found changed on disk.";
    StoreChecked COUNTER "rusd_store_checked_bytes_total" "Bytes of snapshots and records that were read again and are whole.";
    SnapshotDamage COUNTER "rusd_snapshot_damage_total" "Times that a snapshot was found changed on disk.";
    AlarmsNoSpace GAUGE "rusd_alarms_nospace" "Members whose alarm NOSPACE is raised: all refuse writes that grow.";
    AlarmsCorrupt GAUGE "rusd_alarms_corrupt" "Members whose alarm CORRUPT is raised.";
    Leases GAUGE "rusd_lease_count" "Leases that live.";
    WatchOverflows COUNTER "rusd_watch_overflows_total" "Times that a stream was too slow for its mailbox.";
    WatchReplays COUNTER "rusd_watch_replays_total" "Rounds of reading history for watchers.";
    LearnerPromotions COUNTER "etcd_server_learner_promote_successes" "Learners given a vote.";
    SnapshotsLive GAUGE "rusd_snapshots_live" "States that readers hold.";
    SnapshotAge GAUGE "rusd_snapshot_age_max_seconds" "How long the one that is held longest has been held.";
    WatchLag GAUGE "rusd_watch_lag_revisions" "How many revisions the stream that is behind the most has before it.";
    EngineRecycled COUNTER "rusd_store_recycled_total" "Times that the engine's handle was closed and opened again.";
    EngineRecycling COUNTER "rusd_store_recycling_seconds_total" "Time that took; reads that need the engine wait.";
    QueueDepth GAUGE "rusd_queue_commands" "Commands that wait for their place in a Raft entry.";
    BatchesUnderWay GAUGE "rusd_batches_in_flight" "Raft entries of this member's commands under way.";
    Connections GAUGE "rusd_client_connections" "Open connections of clients.";
}

/// The sources, by figure.
pub(super) struct Figures {
    sources: Vec<OnceLock<Source>>,
}

impl Default for Figures {
    fn default() -> Self {
        Self { sources: TABLE.iter().map(|_| OnceLock::new()).collect() }
    }
}

impl Figures {
    pub(super) fn set(&self, figure: Figure, source: Source) {
        // A second source is a mistake of the wiring and harmless: the first one stays.
        let _ = self.sources[figure as usize].set(source);
    }
}

impl fmt::Debug for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.sources.iter().filter(|source| source.get().is_some()).count();
        f.debug_struct("Figures").field("known", &self.sources.len()).field("set", &set).finish()
    }
}

/// Shows them to the registry.
pub(super) struct FigureCollector {
    figures: Arc<Figures>,
    descriptions: Vec<Desc>,
}

impl FigureCollector {
    pub(super) fn new(figures: Arc<Figures>) -> prometheus::Result<Self> {
        let descriptions = TABLE
            .iter()
            .map(|(name, _, help)| Desc::new((*name).into(), (*help).into(), Vec::new(), Default::default()))
            .collect::<prometheus::Result<_>>()?;
        Ok(Self { figures, descriptions })
    }
}

impl Collector for FigureCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let asked = self.figures.sources.iter().map(|source| source.get().map_or(0.0, |ask| ask()));
        TABLE.iter().zip(asked).map(|((name, kind, help), value)| single(name, *kind, help, value)).collect()
    }
}

/// A family of one value without labels.
pub(super) fn single(name: &str, kind: MetricType, help: &str, value: f64) -> MetricFamily {
    let mut metric = Metric::default();
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(vec![metric]);
    family
}
