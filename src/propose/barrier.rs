//! The read barrier: one confirmation of leadership for all reads that wait.
//!
//! A read that comes while a confirmation is under way waits for the next one, since the running
//! one may have taken its log position before the read began.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::limit::Limit;
use crate::consensus::Node;
use crate::types::RequestError;

type Waiter = oneshot::Sender<Result<(), RequestError>>;

/// What is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Confirms {
    /// That everything acknowledged anywhere before is published here.
    State,
    /// That this member leads.
    Lead,
}

/// The most reads that one confirmation answers at a time; more only means another round.
const WAITERS_MAX: usize = 4_096;

/// Between two tries, while no leader answers.
const RETRY: Duration = Duration::from_millis(20);

/// Reads wait here.
pub(super) struct Barrier {
    waiters: mpsc::UnboundedSender<Waiter>,
    limit: Limit,
}

impl Barrier {
    /// Starts the task that confirms, within `timeout` each time; a read waits no longer than `limit`.
    pub(super) fn start(node: Node, timeout: Duration, limit: Limit, confirms: Confirms) -> Self {
        let (waiters, queue) = mpsc::unbounded_channel();
        tokio::spawn(run(queue, node, timeout, confirms));
        Self { waiters, limit }
    }

    /// Waits for a confirmation that began after this call.
    pub(super) async fn wait(&self) -> Result<(), RequestError> {
        let (waiter, confirmed) = oneshot::channel();
        self.waiters.send(waiter).map_err(|_| RequestError::Stopped)?;
        match self.limit.within(confirmed).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(RequestError::Stopped),
            Err(_) => Err(RequestError::Timeout),
        }
    }
}

async fn run(mut queue: mpsc::UnboundedReceiver<Waiter>, node: Node, timeout: Duration, confirms: Confirms) {
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, WAITERS_MAX).await > 0 {
        let result = match confirms {
            Confirms::State => confirm(&node, timeout).await,
            Confirms::Lead => match tokio::time::timeout(timeout, node.confirm_lead()).await {
                Ok(result) => result,
                Err(_) => Err(RequestError::Timeout),
            },
        };
        for waiter in waiting.drain(..) {
            // A reader that has gone away needs no answer.
            let _ = waiter.send(result.clone());
        }
    }
}

/// Tries until there is a leader that can reach a quorum.
async fn confirm(node: &Node, timeout: Duration) -> Result<(), RequestError> {
    let deadline = tokio::time::Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        match node.confirm_read(left).await {
            Err(RequestError::NoLeader) if left > RETRY => tokio::time::sleep(RETRY).await,
            Err(RequestError::NoLeader) => return Err(RequestError::Timeout),
            result => return result,
        }
    }
}
