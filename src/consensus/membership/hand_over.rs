//! A leader that ends in order leaves the lead to the voter that is furthest.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;

use crate::consensus::Node;
use crate::types::MemberId;

impl Node {
    /// Hands the lead over before this member ends, so that nobody has to wait for an election: to the voter that
    /// holds most of the log, or to the next one if that doesn't take it. Voters that are out of touch are asked only if
    /// all are: each that is asked in vain takes its share of `limit`. Returns who leads, or `None` if nobody took over
    /// within `limit`, or this member doesn't lead or is the only voter.
    pub async fn hand_over(&self, limit: Duration) -> Option<MemberId> {
        self.hand_over_but(limit, &[]).await
    }

    /// The same, but to none of these.
    pub async fn hand_over_but(&self, limit: Duration, avoided: &[MemberId]) -> Option<MemberId> {
        let metrics = self.raft().metrics().borrow_watched().clone();
        if metrics.current_leader != Some(metrics.id) {
            return None;
        }
        let matched = metrics.replication.as_ref();
        let index = |id: u64| matched.and_then(|all| all.get(&id)?.as_ref().map(|log_id| log_id.index));
        let mut voters: Vec<u64> =
            metrics.membership_config.membership().voter_ids().filter(|id| *id != metrics.id).collect();
        voters.retain(|id| !avoided.contains(&MemberId(*id)));
        let near: Vec<u64> = voters.iter().copied().filter(|id| self.is_in_touch(MemberId(*id))).collect();
        if !near.is_empty() {
            voters = near;
        }
        voters.sort_by_key(|id| std::cmp::Reverse(index(*id)));
        let attempts = u32::try_from(voters.len()).unwrap_or(u32::MAX).max(1);
        for voter in voters {
            let to = MemberId(voter);
            match tokio::time::timeout(limit / attempts, self.transfer_leader(to)).await {
                Ok(Ok(())) => return Some(to),
                Ok(Err(error)) => tracing::debug!(%to, %error, "the lead was not taken over"),
                Err(_) => tracing::debug!(%to, "the lead was not taken over in time"),
            }
        }
        None
    }
}
