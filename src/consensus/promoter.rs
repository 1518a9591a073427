//! The task that gives members their vote once their logs are in step, and keeps an eye on who is in touch.
//!
//! ```text
//! every heartbeat ─► contacts (on every member) ─► leading? ─► someone due? ─► a membership entry
//! ```
//! Members that were added to vote are always due; learners only with `--auto-promote-learners`.

use std::time::Duration;

use super::node::Node;

/// A member that lacks at most so many of the leader's entries gets its vote.
const BEHIND_MAX: u64 = 256;
/// Pause after a promotion that didn't come about.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// Runs until Raft ends.
pub(super) async fn run(node: Node, every: Duration) {
    let mut ticks = tokio::time::interval(every.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !node.status().is_stopped() {
        ticks.tick().await;
        if let Err(error) = node.promote_due(BEHIND_MAX).await {
            tracing::warn!(%error, "a member that is in step did not get its vote yet");
            tokio::time::sleep(AFTER_FAILURE).await;
        }
    }
}
