//! Times and counts that the rooms below report while they work, under etcd's names.
//!
//! ```text
//! wal writer ─► LogMeter ┐
//! store thread ─► EngineMeter ┼─► histograms (atomics)
//! apply ─► on_apply ─────┤
//! reclaimer ─► CompactionMeter ┘
//! ```
//! A report is made once a group, a flush, an entry or a step, never once a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::disk::Pace;

use crate::apply::{Command, OpResult, Response, TxnResult};
use crate::auth::AuthOp;
use crate::consensus::peer::{MeterOf, PeerMeter, Way};
use crate::consensus::{OnApply, OnPublished};
use crate::env::Clock;
use crate::ops::logging::{SLOW_APPLY, Sparingly};
use crate::ops::metrics::{AppliedTxns, Metrics, Operation, PeerHandles};
use crate::storage::CompactStep;
use crate::storage::backend::EngineObserver;
use crate::wal::{GroupStats, WalObserver};

/// Bytes of a key that are shown.
const KEY_MAX: usize = 128;

/// Times and bytes of the log's groups.
#[derive(Debug)]
pub(super) struct LogMeter {
    metrics: Arc<Metrics>,
    /// Bytes written since the start.
    pub(super) bytes: AtomicU64,
    pub(super) pace: Arc<Pace>,
}

impl LogMeter {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, bytes: AtomicU64::new(0), pace: Arc::default() }
    }
}

impl WalObserver for LogMeter {
    fn group_synced(&self, stats: GroupStats) {
        self.bytes.fetch_add(stats.bytes as u64, Ordering::Relaxed);
        // Past the page cache it is the write that waits for the disk, and the sync may have nothing left to do.
        let on_disk = stats.write + stats.sync;
        self.pace.note(on_disk);
        self.metrics.stages.fsync().observe(on_disk, 1);
        self.metrics.histograms.wal_fsync.observe(on_disk.as_secs_f64());
        self.metrics.histograms.wal_write.observe(stats.write.as_secs_f64());
    }
}

/// Times of the engine.
#[derive(Debug)]
pub(super) struct EngineMeter(pub(super) Arc<Metrics>);

impl EngineObserver for EngineMeter {
    fn written(&self, took: Duration) {
        self.0.histograms.commit_write.observe(took.as_secs_f64());
    }

    fn flushed(&self, took: Duration) {
        self.0.histograms.backend_commit.observe(took.as_secs_f64());
    }
}

/// Notes applied commands. The commands of one entry share its time: a clock is looked at twice an
/// entry, not twice a command.
pub(super) fn on_apply(metrics: Arc<Metrics>, slow: Duration, clock: Arc<dyn Clock>) -> OnApply {
    let mut lines = Sparingly::default();
    Box::new(move |commands, outcomes, took| {
        let Some(each) = u32::try_from(commands.len()).ok().and_then(|count| took.checked_div(count)) else { return };
        let mut tally = [[0; 2]; Operation::ALL.len()];
        for (command, outcome) in commands.iter().zip(outcomes) {
            tally[operation(command) as usize][usize::from(outcome.result.is_ok())] += 1;
            match &outcome.result {
                Ok(Response::LeaseGrant { ttl_secs, .. }) => metrics.histograms.lease_ttl.observe(*ttl_secs as f64),
                Ok(Response::Txn(result)) => note_txn(&metrics.applied, result),
                _ => {}
            }
        }
        for (operation, counts) in Operation::ALL.iter().zip(tally) {
            for (count, success) in counts.into_iter().zip([false, true]).filter(|(count, _)| *count > 0) {
                metrics.apply.observe(*operation, success, each, count);
            }
        }
        if each > slow {
            metrics.counters.slow_apply.inc_by(commands.len() as u64);
            if let Some(unsaid) = lines.say(clock.now()) {
                tracing::warn!(
                    took = ?took,
                    "expected-duration" = ?slow,
                    commands = commands.len(),
                    request = commands.first().map(shown),
                    "not-logged-before" = unsaid,
                    "{SLOW_APPLY}"
                );
            }
        }
    })
}

/// Notes how long the stages of entries took.
pub(super) fn on_published(metrics: Arc<Metrics>) -> OnPublished {
    Box::new(move |entries, took| {
        let stages = &metrics.stages;
        for times in entries {
            stages.queue().observe(times.made.saturating_duration_since(times.came), 1);
            stages.commit().observe(times.begun.saturating_duration_since(times.made), 1);
            stages.apply().observe(times.applied.saturating_duration_since(times.begun), 1);
        }
        stages.publish().observe(took, 1);
    })
}

fn note_txn(applied: &AppliedTxns, result: &TxnResult) {
    let ranges = result.responses.iter().filter(|op| matches!(op, OpResult::Range { .. })).count();
    applied.ranges.fetch_add(ranges as u64, Ordering::Relaxed);
    applied.txns.fetch_add(u64::from(result.responses.len() > 1), Ordering::Relaxed);
}

/// Counts what passes between this member and each of the others.
pub(super) fn peers(metrics: Arc<Metrics>) -> MeterOf {
    Box::new(move |member| {
        let handles = metrics.peers.of(member);
        Arc::new(OtherMember { handles, metrics: metrics.clone() })
    })
}

/// [`PeerMeter`] over the metrics of one other member.
#[derive(Debug)]
struct OtherMember {
    handles: PeerHandles,
    metrics: Arc<Metrics>,
}

impl PeerMeter for OtherMember {
    fn sent(&self, bytes: usize) {
        self.handles.sent.inc_by(bytes as u64);
    }

    fn received(&self, bytes: usize) {
        self.handles.received.inc_by(bytes as u64);
    }

    fn send_failed(&self) {
        self.handles.send_failed();
    }

    fn receive_failed(&self) {
        self.handles.receive_failed();
    }

    fn heartbeat_answered(&self, after: Duration) {
        self.handles.round_trip(after);
    }

    fn heartbeat_missed(&self) {
        self.metrics.counters.heartbeat_send_failures.inc();
    }

    fn connected(&self) {
        self.handles.connected();
    }

    fn disconnected(&self) {
        self.handles.disconnected();
    }

    fn snapshot_synced(&self, took: Duration) {
        self.metrics.histograms.snapshot_db_fsync.observe(took.as_secs_f64());
    }

    fn snapshot_saved(&self, took: Duration) {
        self.metrics.histograms.snapshot_db_save.observe(took.as_secs_f64());
    }

    fn snapshot_begun(&self, way: Way) {
        self.handles.snapshot_begun(way == Way::Send);
    }

    fn snapshot_ended(&self, way: Way, whole_after: Option<Duration>) {
        self.handles.snapshot_ended(way == Way::Send, whole_after);
    }
}

/// The first command of an entry in words, without values.
fn shown(command: &Command) -> String {
    let key = |key: &[u8]| key[..key.len().min(KEY_MAX)].escape_ascii().to_string();
    match command.plain() {
        Command::Put(put) => format!("Put key:\"{}\" value_size:{}", key(&put.key), put.value.len()),
        Command::DeleteRange(delete) => format!("DeleteRange key:\"{}\"", key(&delete.range.start)),
        Command::Txn(txn) => {
            format!("Txn compare:{} success:{} failure:{}", txn.compares.len(), txn.success.len(), txn.failure.len())
        }
        Command::LeaseExpire { ids } => format!("LeaseExpire leases:{}", ids.len()),
        plain => format!("{:?}", operation(plain)),
    }
}

fn operation(command: &Command) -> Operation {
    match command.plain() {
        Command::Put(_) => Operation::Put,
        Command::DeleteRange(_) => Operation::DeleteRange,
        Command::Txn(_) => Operation::Txn,
        Command::Compact { .. } => Operation::Compaction,
        Command::LeaseGrant { .. } => Operation::LeaseGrant,
        Command::LeaseRevoke { .. } | Command::LeaseExpire { .. } => Operation::LeaseRevoke,
        Command::LeaseCheckpoint { .. } => Operation::LeaseCheckpoint,
        Command::Alarm(_) => Operation::Alarm,
        Command::Auth(op) => auth(op),
        Command::As(on_behalf) => operation(&on_behalf.command),
    }
}

fn auth(op: &AuthOp) -> Operation {
    match op {
        AuthOp::Enable => Operation::AuthEnable,
        AuthOp::Disable => Operation::AuthDisable,
        AuthOp::Issue { .. } => Operation::Authenticate,
        AuthOp::UserAdd { .. } => Operation::AuthUserAdd,
        AuthOp::UserDelete { .. } => Operation::AuthUserDelete,
        AuthOp::UserChangePassword { .. } => Operation::AuthUserChangePassword,
        AuthOp::UserGrantRole { .. } => Operation::AuthUserGrantRole,
        AuthOp::UserRevokeRole { .. } => Operation::AuthUserRevokeRole,
        AuthOp::RoleAdd { .. } => Operation::AuthRoleAdd,
        AuthOp::RoleDelete { .. } => Operation::AuthRoleDelete,
        AuthOp::RoleGrant { .. } => Operation::AuthRoleGrantPermission,
        AuthOp::RoleRevoke { .. } => Operation::AuthRoleRevokePermission,
    }
}

/// Times of compactions: each step, and a whole pass with its pauses.
#[derive(Debug)]
pub(super) struct CompactionMeter {
    metrics: Arc<Metrics>,
    /// When the pass under way began.
    begun: Mutex<Option<Instant>>,
    /// Unix time at which the last pass ended, in seconds; 0 if none did.
    pub(super) last_secs: AtomicU64,
}

impl CompactionMeter {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, begun: Mutex::new(None), last_secs: AtomicU64::new(0) }
    }

    /// Notes a step that took from `begun` to `ended`.
    pub(super) fn step(&self, step: CompactStep, begun: Instant, ended: Instant, wall: SystemTime) {
        let millis = |since: Instant| ended.saturating_duration_since(since).as_secs_f64() * 1e3;
        self.metrics.histograms.compaction_pause_ms.observe(millis(begun));
        let mut pass = self.begun.lock();
        let pass_begun = *pass.get_or_insert(begun);
        if step.done {
            *pass = None;
            self.metrics.histograms.compaction_total_ms.observe(millis(pass_begun));
            let secs = wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
            self.last_secs.store(secs, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::metrics::MetricsOptions;
    use crate::types::MemberId;

    /// Cause: past the page cache a group's write waits for the disk, and its sync may find nothing left to do.
    /// Symptom: a disk that takes long looked fast, and no leader gave the lead away for it.
    /// Holds: both count.
    #[test]
    fn a_write_that_waits_for_the_disk_counts_as_one() {
        let options = MetricsOptions {
            member: MemberId(1),
            server_version: "3.7.1",
            cluster_version: "3.7",
            rusd_version: "0.1.0",
        };
        let meter = LogMeter::new(Arc::new(Metrics::new(&options).expect("no name stands twice")));
        for _ in 0..4 {
            meter.group_synced(GroupStats {
                records: 1,
                bytes: 512,
                write: Duration::from_millis(80),
                sync: Duration::ZERO,
            });
        }
        assert_eq!(meter.pace.now(false), Some(Duration::from_millis(80)));
    }
}
