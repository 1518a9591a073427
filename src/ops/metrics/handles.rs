//! Handles that rooms bump: a clone of one is a reference count, using one is an atomic addition.

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramOpts, IntCounter, Registry, exponential_buckets};

pub(super) fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

macro_rules! counters {
    ($($field:ident $name:literal $help:literal;)*) => {
        /// Counters that only grow.
        #[derive(Clone, Debug)]
        pub struct Counters {
            $(#[doc = concat!("`", $name, "`: ", $help)] pub $field: IntCounter,)*
        }

        impl Counters {
            pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
                Ok(Self { $($field: add(registry, IntCounter::new($name, $help)?)?,)* })
            }
        }
    };
}

macro_rules! histograms {
    ($($field:ident $name:literal ($first:literal, $factor:literal, $count:literal) $help:literal;)*) => {
        /// Durations in seconds, unless the name says another unit.
        #[derive(Clone, Debug)]
        pub struct Histograms {
            $(#[doc = concat!("`", $name, "`: ", $help)] pub $field: Histogram,)*
        }

        impl Histograms {
            pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
                Ok(Self {
                    $($field: add(registry, Histogram::with_opts(
                        HistogramOpts::new($name, $help)
                            .buckets(exponential_buckets($first, $factor, $count)?),
                    )?)?,)*
                })
            }
        }
    };
}

counters! {
    slow_apply "etcd_server_slow_apply_total" "Applies that took too long.";
    heartbeat_send_failures "etcd_server_heartbeat_send_failures_total" "Heartbeats sent too late.";
}

histograms! {
    wal_fsync "etcd_disk_wal_fsync_duration_seconds" (0.001, 2.0, 14) "Time of a write to the Raft log and its fsync.";
    wal_write "etcd_disk_wal_write_duration_seconds" (0.001, 2.0, 14) "Time of a write to the Raft log.";
    backend_commit "etcd_disk_backend_commit_duration_seconds" (0.001, 2.0, 14) "Time of a flush of the store.";
    backend_snapshot "etcd_disk_backend_snapshot_duration_seconds" (0.01, 2.0, 17) "Time to send a snapshot.";
    backend_defrag "etcd_disk_backend_defrag_duration_seconds" (0.1, 2.0, 13) "Time to rewrite the store.";
    commit_rebalance "etcd_debugging_disk_backend_commit_rebalance_duration_seconds" (0.001, 2.0, 14) "Of bbolt; never observed.";
    commit_spill "etcd_debugging_disk_backend_commit_spill_duration_seconds" (0.001, 2.0, 14) "Of bbolt; never observed.";
    commit_write "etcd_debugging_disk_backend_commit_write_duration_seconds" (0.001, 2.0, 14) "Time of the engine's write in a flush.";
    snapshot_fsync "etcd_snap_fsync_duration_seconds" (0.001, 2.0, 14) "Time of the fsyncs of a snapshot that this member saved.";
    snapshot_db_fsync "etcd_snap_db_fsync_duration_seconds" (0.001, 2.0, 14) "Time of the fsyncs of a snapshot that came from another member.";
    snapshot_db_save "etcd_snap_db_save_total_duration_seconds" (0.1, 2.0, 10) "Time to save a received snapshot.";
    snapshot_marshal "etcd_debugging_snap_save_marshalling_duration_seconds" (0.001, 2.0, 14) "Time to read and encode a snapshot, without what the disk took to write it.";
    snapshot_save "etcd_debugging_snap_save_total_duration_seconds" (0.001, 2.0, 14) "Time to save a snapshot.";
    hash "etcd_mvcc_hash_duration_seconds" (0.01, 2.0, 15) "Time to hash the store.";
    lease_ttl "etcd_debugging_lease_ttl_total" (1.0, 2.0, 24) "TTLs of granted leases, in seconds.";
    compaction_pause_ms "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds" (1.0, 2.0, 13) "Time of one step of a compaction, in milliseconds.";
    compaction_total_ms "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds" (100.0, 2.0, 14) "Time of a compaction, in milliseconds.";
    index_compaction_pause_ms "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds" (0.5, 2.0, 14) "Time of a compaction of the index, in milliseconds; never observed.";
    watch_send_control "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds" (0.001, 2.0, 14) "Time to send a control answer of a watch; never observed.";
    watch_send_progress "etcd_debugging_server_watch_send_loop_progress_duration_seconds" (0.001, 2.0, 14) "Time to send a progress answer of a watch; never observed.";
    watch_send_events "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds" (0.001, 2.0, 14) "Time to send events of a watch; never observed.";
    watch_send_event "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds" (0.001, 2.0, 14) "The same for each event; never observed.";
}
