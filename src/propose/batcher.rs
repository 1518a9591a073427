//! The batcher: all commands that wait become one Raft entry.
//!
//! ```text
//! queue ─► a leader is known? ─┬► this member: its log
//!          (else they wait)    └► another one: `forward`
//! ```

use std::sync::Arc;

use bytes::BytesMut;
use tokio::sync::{Semaphore, mpsc};

use super::forward::Forwarder;
use super::{ProposeLimits, Queued};
use crate::apply::codec;
use crate::consensus::{Node, Proposals};
use crate::types::RequestError;

/// Runs until the queue is closed or Raft has ended.
pub(super) async fn run(
    mut commands: mpsc::UnboundedReceiver<Queued>,
    node: Node,
    forwarder: Forwarder,
    limits: ProposeLimits,
) {
    let in_flight = Arc::new(Semaphore::new(limits.batches_in_flight_max));
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
            let leader = match node.status().leader() {
                Some(leader) => leader,
                None => {
                    let Some(leader) = forwarder.leader_to_come().await else { return };
                    // Who gave up meanwhile was told that it isn't known; it is still better not to do it.
                    waiting.retain(|queued| !queued.reply.is_closed());
                    leader
                }
            };
            while waiting.len() < limits.batch_commands_max
                && let Ok(next) = commands.try_recv()
            {
                waiting.push(next);
            }
            let is_own = leader == node.status().member();
            if !is_own {
                refuse_bound(&mut waiting);
            }
            if waiting.is_empty() {
                break;
            }
            let count = take_count(&waiting, limits.batch_bytes_max);
            let mut batch = Proposals { permit: Some(permit), ..Proposals::default() };
            batch.commands.reserve(count);
            batch.replies.reserve(count);
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
                tokio::spawn(forwarder.clone().run(leader, payload.freeze(), batch));
            } else if node.append(payload.freeze(), batch, bound_to).await.is_err() {
                // Raft has ended: dropping the batch and the queue tells every waiter.
                return;
            }
        }
    }
}

/// What only the leader of a term may propose isn't for another one.
fn refuse_bound(waiting: &mut Vec<Queued>) {
    for refused in waiting.extract_if(.., |queued| queued.term.is_some()) {
        // A waiter that has gone away needs no answer.
        let _ = refused.reply.send(Err(RequestError::NoLeader));
    }
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
