//! The batcher: all commands that wait become one Raft entry.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::sync::{Semaphore, mpsc};

use super::ProposeLimits;
use crate::apply::{Command, codec};
use crate::consensus::{Node, Proposals, Reply};

/// Runs until the queue is closed or Raft has ended.
pub(super) async fn run(mut commands: mpsc::UnboundedReceiver<(Command, Reply)>, node: Node, limits: ProposeLimits) {
    let in_flight = Arc::new(Semaphore::new(limits.batches_in_flight_max));
    let mut waiting = Vec::with_capacity(limits.batch_commands_max);
    loop {
        if commands.recv_many(&mut waiting, limits.batch_commands_max).await == 0 {
            return;
        }
        // Whoever is ready to run now may join this entry; with nobody ready this costs nothing.
        tokio::task::yield_now().await;
        let Ok(permit) = in_flight.clone().acquire_owned().await else { return };
        while waiting.len() < limits.batch_commands_max
            && let Ok(next) = commands.try_recv()
        {
            waiting.push(next);
        }
        let mut permit = Some(permit);
        while !waiting.is_empty() {
            let count = take_count(&waiting, limits.batch_bytes_max);
            let mut batch = Proposals { permit: permit.take(), ..Proposals::default() };
            batch.commands.reserve(count);
            batch.replies.reserve(count);
            for (command, reply) in waiting.drain(..count) {
                batch.commands.push(command);
                batch.replies.push(reply);
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
fn take_count(waiting: &[(Command, Reply)], bytes_max: usize) -> usize {
    let mut bytes = 0;
    let mut count = 0;
    for (command, _) in waiting {
        bytes += codec::encoded_len(command);
        if count > 0 && bytes > bytes_max {
            break;
        }
        count += 1;
    }
    count
}
