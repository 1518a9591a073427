//! The batcher: all commands that wait become one Raft entry.
//!
//! ```text
//! queue ─► a leader is known? ─┬► this member: its log
//!          (else they wait)    └► another one: `forward`
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;
use tokio::sync::{Semaphore, mpsc};

use super::forward::Forwarder;
use super::{ProposeLimits, Queued};
use crate::apply::codec;
use crate::consensus::{Node, Proposals};
use crate::env::Clock;
use crate::types::RequestError;

/// What the batcher works with.
pub(super) struct Batcher {
    pub(super) node: Node,
    pub(super) forwarder: Forwarder,
    pub(super) limits: ProposeLimits,
    /// One permit for each entry under way.
    pub(super) in_flight: Arc<Semaphore>,
    /// Commands that came in and have no place in an entry yet.
    pub(super) queued: Arc<AtomicUsize>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Batcher {
    /// Runs until the queue is closed or Raft has ended.
    pub(super) async fn run(self, commands: mpsc::UnboundedReceiver<Queued>) {
        let queued = self.queued.clone();
        self.batch(commands).await;
        queued.store(0, Ordering::Relaxed);
    }

    async fn batch(self, mut commands: mpsc::UnboundedReceiver<Queued>) {
        let Self { node, forwarder, limits, in_flight, queued, clock } = self;
        let mut waiting = Vec::with_capacity(limits.batch_commands_max);
        loop {
            if commands.recv_many(&mut waiting, limits.batch_commands_max).await == 0 {
                return;
            }
            // Whoever is ready to run now may join this entry; with nobody ready this costs nothing.
            tokio::task::yield_now().await;
            while !waiting.is_empty() {
                // One for each entry, or large commands would fill the log's queue without bound.
                let Ok(permit) = in_flight.clone().acquire_owned().await else { return };
                let (leader, leads_in) = match node.status().lead() {
                    Some(lead) => lead,
                    None => {
                        let Some(lead) = forwarder.leader_to_come().await else { return };
                        // Who gave up meanwhile was told that it isn't known; it is still better not to do it.
                        let before = waiting.len();
                        waiting.retain(|queued| !queued.reply.is_closed());
                        queued.fetch_sub(before - waiting.len(), Ordering::Relaxed);
                        lead
                    }
                };
                while waiting.len() < limits.batch_commands_max
                    && let Ok(next) = commands.try_recv()
                {
                    waiting.push(next);
                }
                let is_own = leader == node.status().member();
                if !is_own {
                    let refused = refuse_bound(&mut waiting);
                    queued.fetch_sub(refused, Ordering::Relaxed);
                }
                if waiting.is_empty() {
                    break;
                }
                let count = take_count(&waiting, limits.batch_bytes_max);
                queued.fetch_sub(count, Ordering::Relaxed);
                let mut batch = Proposals { permit: Some(permit), ..Proposals::default() };
                batch.commands.reserve(count);
                batch.replies.reserve(count);
                let made = clock.now();
                // They are in the order in which they came.
                batch.since = waiting.first().map(|first| (first.came, made));
                let mut bound_to = None;
                for Queued { command, reply, held, term, .. } in waiting.drain(..count) {
                    bound_to = bound_to.or(term);
                    batch.commands.push(command);
                    batch.replies.push(reply);
                    match &mut batch.held {
                        Some(all) => all.merge(held),
                        None => batch.held = Some(held),
                    }
                }
                if bound_to.is_none() {
                    batch.returns = Some(forwarder.returns());
                }
                let mut payload = BytesMut::new();
                codec::encode_batch(&batch.commands, &mut payload);
                if !is_own {
                    tokio::spawn(forwarder.clone().run((leader, leads_in), payload.freeze(), batch));
                // All of a term are bound alike, so that Raft takes own ones and others' together.
                } else if node.append(payload.freeze(), batch, bound_to.or(Some(leads_in))).await.is_err() {
                    // Raft has ended: dropping the batch and the queue tells every waiter.
                    return;
                }
            }
        }
    }
}

/// What only the leader of a term may propose isn't for another one; how many those were.
fn refuse_bound(waiting: &mut Vec<Queued>) -> usize {
    let before = waiting.len();
    for refused in waiting.extract_if(.., |queued| queued.term.is_some()) {
        // A waiter that has gone away needs no answer.
        let _ = refused.reply.send(Err(RequestError::NoLeader));
    }
    before - waiting.len()
}

/// How many of the waiting commands fit in one entry; at least one.
fn take_count(waiting: &[Queued], bytes_max: usize) -> usize {
    let mut bytes = 0;
    let mut count = 0;
    for queued in waiting {
        bytes += queued.bytes;
        if count > 0 && bytes > bytes_max {
            break;
        }
        count += 1;
    }
    count
}
