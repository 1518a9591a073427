//! The batcher: all commands that wait become one Raft entry.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::sync::{Semaphore, mpsc};

use super::{ProposeLimits, Queued};
use crate::apply::codec;
use crate::consensus::{Node, Proposals};

/// Runs until the queue is closed or Raft has ended.
pub(super) async fn run(mut commands: mpsc::UnboundedReceiver<Queued>, node: Node, limits: ProposeLimits) {
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
            while waiting.len() < limits.batch_commands_max
                && let Ok(next) = commands.try_recv()
            {
                waiting.push(next);
            }
            let count = take_count(&waiting, limits.batch_bytes_max);
            let mut batch = Proposals { permit: Some(permit), ..Proposals::default() };
            batch.commands.reserve(count);
            batch.replies.reserve(count);
            for Queued { command, reply, held, .. } in waiting.drain(..count) {
                batch.commands.push(command);
                batch.replies.push(reply);
                match &mut batch.held {
                    Some(all) => all.merge(held),
                    None => batch.held = Some(held),
                }
            }
            let mut payload = BytesMut::new();
            codec::encode_batch(&batch.commands, &mut payload);
            if node.append(payload.freeze(), batch).await.is_err() {
                // Raft has ended: dropping the batch and the queue tells every waiter.
                return;
            }
        }
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
