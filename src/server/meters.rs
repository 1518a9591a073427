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

use crate::apply::{Command, Response};
use crate::auth::AuthOp;
use crate::consensus::OnApply;
use crate::ops::metrics::{Metrics, Operation};
use crate::storage::CompactStep;
use crate::storage::backend::EngineObserver;
use crate::wal::{GroupStats, WalObserver};

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
        self.pace.note(stats.sync);
        self.metrics.histograms.wal_fsync.observe(stats.sync.as_secs_f64());
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
pub(super) fn on_apply(metrics: Arc<Metrics>, slow: Duration) -> OnApply {
    Box::new(move |commands, outcomes, took| {
        let Some(each) = u32::try_from(commands.len()).ok().and_then(|count| took.checked_div(count)) else { return };
        let mut tally = [[0; 2]; Operation::ALL.len()];
        for (command, outcome) in commands.iter().zip(outcomes) {
            tally[operation(command) as usize][usize::from(outcome.result.is_ok())] += 1;
            if let Ok(Response::LeaseGrant { ttl_secs, .. }) = outcome.result {
                metrics.histograms.lease_ttl.observe(ttl_secs as f64);
            }
        }
        for (operation, counts) in Operation::ALL.iter().zip(tally) {
            for (count, success) in counts.into_iter().zip([false, true]).filter(|(count, _)| *count > 0) {
                metrics.apply.observe(*operation, success, each, count);
            }
        }
        if each > slow {
            metrics.counters.slow_apply.inc_by(commands.len() as u64);
            tracing::warn!(took = ?took, commands = commands.len(), "apply request took too long");
        }
    })
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
