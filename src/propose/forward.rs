//! Batches of a member that doesn't lead: handed to the leader's log, answered when they are applied here.
//!
//! ```text
//! batch ─► Waiters ─► the leader: accepted ─► its log ─► applied here ─► outcomes
//!                                 refused  ─► the next leader, or this member
//!                                 lost     ─► an entry of a later term is applied: the next leader
//! ```
//! So a write that was answered at this member is also seen at this member. A batch is handed over
//! again only if it surely isn't, and never will be, in what is committed: its leader didn't take it, or another term has
//! begun, as none but the leader of one term may take it. A leader of an older build doesn't know of that; what is lost
//! with such a one is waited for until the waiters' time runs out.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::apply::codec;
use crate::consensus::peer::Forwarded;
use crate::consensus::{Node, Proposals, Waiters};
use crate::env::Env;
use crate::types::{MemberId, Term};

/// Between two tries, while the leader says that it is none.
const RETRY: Duration = Duration::from_millis(20);

/// Between two looks for batches that nobody waits for any more.
const FORGET_EVERY: Duration = Duration::from_secs(1);
/// Batches that come back and are looked at together.
const RETURNED_MAX: usize = 64;

/// Hands over batches. Cheap to clone.
#[derive(Clone)]
pub(super) struct Forwarder {
    node: Node,
    env: Env,
    waiters: Arc<Waiters>,
    tags: Arc<AtomicU64>,
    /// The term of a leader that can't bind, as it is of an older build.
    unbound: Arc<AtomicU64>,
    limit: Duration,
    returns: mpsc::UnboundedSender<Proposals>,
}

impl Forwarder {
    /// `limit` is how long a command may wait. Runs what comes back until Raft has ended.
    pub(super) fn start(node: Node, env: Env, waiters: Arc<Waiters>, limit: Duration) -> Self {
        // Batches of an earlier life of this member may still come back: no tag of theirs may be met again.
        let first = env.rng.next_u64() >> 1;
        let (returns, returned) = mpsc::unbounded_channel();
        let forwarder =
            Self { node, env, waiters, tags: Arc::new(AtomicU64::new(first)), unbound: Arc::default(), limit, returns };
        tokio::spawn(forwarder.clone().again(returned));
        tokio::spawn(forwarder.clone().forget());
        forwarder
    }

    /// Lets go of batches that never came back, until Raft has ended.
    async fn forget(self) {
        let mut tick = tokio::time::interval(FORGET_EVERY);
        while !self.node.status().is_stopped() {
            tick.tick().await;
            self.waiters.expire(self.env.clock.now());
        }
    }

    /// Where a batch goes that this member's log didn't take.
    pub(super) fn returns(&self) -> mpsc::UnboundedSender<Proposals> {
        self.returns.clone()
    }

    /// Tries again what came back, as long as somebody waits for it.
    async fn again(self, mut returned: mpsc::UnboundedReceiver<Proposals>) {
        let mut batches = Vec::new();
        while returned.recv_many(&mut batches, RETURNED_MAX).await > 0 {
            tokio::time::sleep(RETRY).await;
            let Some(lead) = self.leader_to_come().await else { return };
            for batch in batches.drain(..) {
                let mut batch = without_the_gone(batch);
                if batch.commands.is_empty() {
                    continue;
                }
                batch.returns = Some(self.returns());
                let mut payload = BytesMut::new();
                codec::encode_batch(&batch.commands, &mut payload);
                tokio::spawn(self.clone().run(lead, payload.freeze(), batch));
            }
        }
    }

    /// Waits for a leader, and says in which term it leads; `None` once Raft has ended.
    pub(super) async fn leader_to_come(&self) -> Option<(MemberId, Term)> {
        let mut leaders = self.node.status().leaders();
        loop {
            if self.node.status().is_stopped() {
                return None;
            }
            leaders.mark_unchanged();
            if let Some(lead) = self.node.status().lead() {
                return Some(lead);
            }
            leaders.changed().await.ok()?;
        }
    }

    /// Gets one batch into the log of whoever leads, as far as the time allows.
    pub(super) async fn run(self, mut lead: (MemberId, Term), payload: Bytes, mut batch: Proposals) {
        // It bounds what is on its way to the leader, not what waits to be committed.
        let mut permit = batch.permit.take();
        let deadline = tokio::time::Instant::now() + self.limit;
        // Who gave up was told that it isn't known: better not to do it.
        while batch.replies.iter().any(|reply| !reply.is_closed()) {
            let (leader, term) = lead;
            if leader == self.node.status().member() {
                // Raft's end tells every waiter.
                let _ = self.node.append(payload, batch, Some(term)).await;
                return;
            }
            let bound = (self.unbound.load(Ordering::Relaxed) != term.get()).then_some(term);
            let tag = self.tags.fetch_add(1, Ordering::Relaxed);
            match self.waiters.put(tag, self.env.clock.now(), bound, batch) {
                Ok(()) => {
                    let left = deadline.saturating_duration_since(tokio::time::Instant::now());
                    let answer = self.node.peers().forward(leader, payload.clone(), tag, bound, left);
                    let answer = self.answered(answer, leader, tag, &mut permit).await;
                    if matches!(answer, Forwarded::Accepted | Forwarded::Unknown) {
                        return;
                    }
                    let Some(refused) = self.waiters.take(tag) else { return };
                    batch = refused;
                    if answer == Forwarded::NotBound && bound.is_some() {
                        self.unbound.store(term.get(), Ordering::Relaxed);
                        continue;
                    }
                }
                Err(refused) => batch = refused,
            }
            tokio::time::sleep(RETRY).await;
            // Once there is no time left it is dropped: the waiters' is up as well.
            let next =
                async { if tokio::time::Instant::now() < deadline { self.leader_to_come().await } else { None } };
            let Ok(Some(next)) = tokio::time::timeout_at(deadline, next).await else { return };
            lead = next;
        }
    }

    /// What the leader answers. One that is gone may never do so, and must not keep others from its successor; nor is an
    /// answer waited for that is of no use, as the batch was given back.
    async fn answered(
        &self,
        answer: impl Future<Output = Forwarded>,
        leader: MemberId,
        tag: u64,
        permit: &mut Option<OwnedSemaphorePermit>,
    ) -> Forwarded {
        let mut answer = pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => return answer,
            () = self.node.status().leader_is_not(leader) => *permit = None,
        }
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                () = tokio::time::sleep(RETRY) => if !self.waiters.has(tag) { return Forwarded::Unknown },
            }
        }
    }
}

/// Who gave up was told that the outcome isn't known; it is still better not to do it.
fn without_the_gone(mut batch: Proposals) -> Proposals {
    let pairs = batch.commands.drain(..).zip(batch.replies.drain(..)).filter(|(_, reply)| !reply.is_closed());
    let (commands, replies) = pairs.unzip();
    Proposals { commands, replies, ..batch }
}
