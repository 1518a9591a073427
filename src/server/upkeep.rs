//! What runs beside the requests: snapshots and the purge of the log they allow, and what clients
//! ask of the store's upkeep.
//!
//! ```text
//! log grew by more than the state is large ─► snapshot ─► durable? ─► purge the log, but for a tail
//! a part of the log is damaged ─────────────┤                         and not beyond what is damaged
//! the newest snapshot is ───────────────────┘
//! ```
//! The log stays for a member to which a snapshot goes, until it is in step, but not without bound: else it would need another
//! one by the time it has taken that in. Nothing of it while a state is on its way that takes this one's place, as that has to
//! meet the log; but a damaged part of the log goes all the same, since the next start would refuse it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::scrub::Care;
use crate::consensus::{Node, NodeStatus, Snapshots};
use crate::storage::StoreReader;
use crate::types::RaftIndex;
use crate::wal::Wal;

/// How often is looked whether a snapshot is due.
const LOOK: Duration = Duration::from_millis(250);
/// Looks that are let pass after a snapshot could not be written, as on a full disk: 10 s.
const LOOKS_AFTER_FAILURE: u32 = 40;
/// How much of the log is kept for members to which a snapshot goes: so many times what lies between two snapshots, which is
/// taken for this at least.
const WAITS_FACTOR: u64 = 2;
const WAITS_BYTES_MIN: u64 = 64 << 20;
/// How long a snapshot for a damaged log is waited for before another is tried.
const AGAIN: Duration = Duration::from_secs(30);

/// When a snapshot is due and what of the log stays.
#[derive(Clone, Copy, Debug)]
pub(super) struct SnapshotPolicy {
    /// `--snapshot-count`: the fewest entries between two snapshots.
    pub(super) entries_min: u64,
    /// The fewest bytes of log between two snapshots; a larger state raises it to its own size, so
    /// that snapshots never cost more disk writes than the log does. With 0 only entries count.
    pub(super) bytes_min: u64,
    /// Entries that stay in the log behind a snapshot, for members that are a little behind.
    pub(super) keep_entries: u64,
}

/// Takes snapshots and purges the log.
pub(super) struct Upkeep {
    pub(super) node: Node,
    pub(super) snapshots: Arc<Snapshots>,
    pub(super) reader: StoreReader,
    pub(super) policy: SnapshotPolicy,
    /// Bytes of log behind the newest snapshot at the start. Were they not counted, a member that is
    /// started again and again would never be due, and its log never purged.
    pub(super) behind_bytes: u64,
    pub(super) care: Arc<Care>,
    pub(super) wal: Arc<Wal>,
}

impl SnapshotPolicy {
    /// Up to where the log may go, if `held` is the last entry that isn't needed for a start and
    /// everything up to `damaged` should go.
    fn purge_target(&self, held: RaftIndex, damaged: RaftIndex) -> RaftIndex {
        RaftIndex(held.get().saturating_sub(self.keep_entries)).max(damaged.min(held))
    }

    /// How many bytes of log are kept at most for members that have been sent a snapshot.
    fn waits_bytes(&self, state_bytes: u64) -> u64 {
        WAITS_BYTES_MIN.max(self.bytes_min).max(state_bytes).saturating_mul(WAITS_FACTOR)
    }
}

impl Upkeep {
    /// Runs until the task is aborted or Raft has ended.
    pub(super) fn spawn(self, log_bytes: impl Fn() -> u64 + Send + 'static) -> JoinHandle<()> {
        tokio::spawn(async move { self.run(log_bytes).await })
    }

    fn is_held(&self) -> bool {
        is_held(self.node.status(), self.care.is_log_damaged(&self.wal))
    }

    async fn run(self, log_bytes: impl Fn() -> u64) {
        let (mut bytes_at_last, mut behind_bytes) = (0, self.behind_bytes);
        let mut pause = 0u32;
        let (mut purged, mut waits_since) = (RaftIndex(0), None);
        let mut forced: Option<Instant> = None;
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if self.is_held() {
                continue;
            }
            let done = self.node.snapshot_index().unwrap_or(RaftIndex(0));
            let entries = self.node.status().applied().get().saturating_sub(done.get());
            let bytes = log_bytes().saturating_sub(bytes_at_last).saturating_add(behind_bytes);
            let grown = self.policy.bytes_min == 0 || bytes >= self.policy.bytes_min.max(self.reader.logical_size());
            let damaged = self.care.damaged_until();
            let force = (self.care.is_snapshot_bad() || (damaged > done && self.node.status().applied() >= damaged))
                && forced.is_none_or(|forced| forced.elapsed() >= AGAIN);
            pause = pause.saturating_sub(1);
            if pause == 0 && (force || (grown && entries >= self.policy.entries_min)) {
                let bytes_now = log_bytes();
                if force {
                    forced = Some(Instant::now());
                }
                match self.snapshots.save_now().await {
                    Ok(()) => {
                        (bytes_at_last, behind_bytes) = (bytes_now, 0);
                        self.care.snapshot_written();
                        tracing::info!("saved snapshot");
                        if self.node.trigger_snapshot().await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "no snapshot could be written; will try again");
                        pause = LOOKS_AFTER_FAILURE;
                    }
                }
            }
            // The snapshot was made of the published state, which may be ahead of the engine; a start
            // needs the log from the engine's position on.
            let held = done.min(self.reader.values().durable().borrow().index);
            let mut target = self.policy.purge_target(held, damaged);
            match self.node.not_needed(self.policy.keep_entries) {
                Some(free) if target > free && !self.node.status().disk().is_full => {
                    let since = *waits_since.get_or_insert_with(&log_bytes);
                    if log_bytes().saturating_sub(since) < self.policy.waits_bytes(self.reader.logical_size()) {
                        target = free.max(damaged.min(held));
                    }
                }
                Some(_) => {}
                None => waits_since = None,
            }
            if target > purged {
                if self.node.purge(target).await.is_err() {
                    return;
                }
                purged = target;
            }
        }
    }
}

/// Whether a state is on its way; but not longer than there is room for the log, nor with a log that no start would take.
fn is_held(status: &NodeStatus, is_log_damaged: bool) -> bool {
    status.awaits_state() && !status.disk().is_full && !is_log_damaged
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::DiskState;
    use crate::types::MemberId;

    /// Cause: a member that differs went on purging its log. Symptom: each state that came for it was older than the log's
    /// beginning by the time of the start, and cost a try. Then it kept all of it for as long as it differed, though nobody
    /// could say who is right: its disk filled up until no snapshot fitted any more, and with it the cluster's writes stood.
    #[test]
    fn a_member_keeps_its_log_while_another_state_is_on_its_way() {
        let status = NodeStatus::new(MemberId(1));
        assert!(!is_held(&status, false));
        status.set_diverged(RaftIndex(7));
        assert!(!is_held(&status, false), "nobody has sent anything");
        status.set_awaits_state(true);
        assert!(is_held(&status, false));
        status.set_disk(DiskState { pace: None, is_full: true });
        assert!(!is_held(&status, false), "no room");
        status.set_disk(DiskState::default());
        assert!(!is_held(&status, true), "a start would refuse the log");
        status.clear_diverged();
        assert!(!is_held(&status, false), "it is healed");
    }

    #[test]
    fn damaged_entries_go_as_soon_as_nobody_needs_them() {
        let policy = SnapshotPolicy { entries_min: 1, bytes_min: 0, keep_entries: 100 };
        let target = |held, damaged| policy.purge_target(RaftIndex(held), RaftIndex(damaged)).get();
        assert_eq!((target(50, 0), target(150, 0)), (0, 50));
        assert_eq!(target(150, 120), 120, "the tail doesn't matter");
        assert_eq!(target(150, 20), 50);
        assert_eq!(target(150, 400), 150, "what a start needs stays, damaged or not");
    }
}
