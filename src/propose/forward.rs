//! Batches of a member that doesn't lead: handed to the leader's log, answered when they are applied here.
//!
//! ```text
//! batch ─► Waiters ─► the leader: accepted ─► its log ─► applied here ─► outcomes
//!                                 refused  ─► the next leader, or this member
//!                                 unknown  ─► applied here after all, or never: the waiters' time runs out
//! ```
//! So a write that was answered at this member is also seen at this member. A batch is handed over
//! again only if it surely isn't in a log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use crate::consensus::peer::Forwarded;
use crate::consensus::{Node, Proposals, Waiters};
use crate::env::Env;
use crate::types::MemberId;

/// Between two tries, while the leader says that it is none.
const RETRY: Duration = Duration::from_millis(20);

/// Hands over batches. Cheap to clone.
#[derive(Clone)]
pub(super) struct Forwarder {
    node: Node,
    env: Env,
    waiters: Arc<Waiters>,
    tags: Arc<AtomicU64>,
    limit: Duration,
}

impl Forwarder {
    /// `limit` is how long a command may wait.
    pub(super) fn new(node: Node, env: Env, waiters: Arc<Waiters>, limit: Duration) -> Self {
        // Batches of an earlier life of this member may still come back: no tag of theirs may be met again.
        let first = env.rng.next_u64() >> 1;
        Self { node, env, waiters, tags: Arc::new(AtomicU64::new(first)), limit }
    }

    /// Gets one batch into somebody's log, as far as the time allows.
    pub(super) async fn run(self, mut leader: MemberId, payload: Bytes, mut batch: Proposals) {
        // It bounds what is on its way to the leader, not what waits to be committed.
        let _permit = batch.permit.take();
        let deadline = tokio::time::Instant::now() + self.limit;
        loop {
            if leader == self.node.status().member() {
                // Raft's end tells every waiter.
                let _ = self.node.append(payload, batch, None).await;
                return;
            }
            let tag = self.tags.fetch_add(1, Ordering::Relaxed);
            self.waiters.put(tag, self.env.clock.now(), batch);
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            match self.node.peers().forward(leader, payload.clone(), tag, left).await {
                Forwarded::Accepted | Forwarded::Unknown => return,
                Forwarded::Refused => {}
            }
            let Some(refused) = self.waiters.take(tag) else { return };
            batch = refused;
            tokio::time::sleep(RETRY).await;
            let mut leaders = self.node.status().leaders();
            let next = async {
                loop {
                    if let Some(leader) = *leaders.borrow_and_update() {
                        return Some(leader);
                    }
                    leaders.changed().await.ok()?;
                }
            };
            match tokio::time::timeout_at(deadline, next).await {
                Ok(Some(next)) if !self.node.status().is_stopped() => leader = next,
                // Dropped: the waiters' time is up as well.
                _ => return,
            }
        }
    }
}
