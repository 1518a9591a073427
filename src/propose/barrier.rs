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
type Answer = oneshot::Receiver<Result<(), RequestError>>;

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
        let confirmed = move || {
            let node = node.clone();
            async move {
                match confirms {
                    Confirms::State => confirm(&node, timeout).await,
                    Confirms::Lead => match tokio::time::timeout(timeout, node.confirm_lead()).await {
                        Ok(result) => result,
                        Err(_) => Err(RequestError::Timeout),
                    },
                }
            }
        };
        tokio::spawn(run(queue, confirmed));
        Self { waiters, limit }
    }

    /// Waits for a confirmation that began after this call.
    pub(super) async fn wait(&self) -> Result<(), RequestError> {
        match self.limit.within(enter(&self.waiters)?).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(RequestError::Stopped),
            Err(_) => Err(RequestError::Timeout),
        }
    }
}

/// Where the answer to a read comes out that begins now.
fn enter(waiters: &mpsc::UnboundedSender<Waiter>) -> Result<Answer, RequestError> {
    let (waiter, confirmed) = oneshot::channel();
    waiters.send(waiter).map_err(|_| RequestError::Stopped)?;
    Ok(confirmed)
}

/// Answers all that wait by one confirmation, which begins after they came, until nobody can come any more.
async fn run<F>(mut queue: mpsc::UnboundedReceiver<Waiter>, confirmed: impl Fn() -> F)
where
    F: Future<Output = Result<(), RequestError>>,
{
    let mut waiting = Vec::new();
    while queue.recv_many(&mut waiting, WAITERS_MAX).await > 0 {
        let result = confirmed().await;
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::env::schedules::{block_on, check, spawn, spawn_task, turn};

    /// Cause: a read joins a confirmation that is under way, which took its place in the log before the read began.
    /// Symptom: what was acknowledged between the two is not seen.
    #[test]
    fn schedules_a_read_sees_what_was_acknowledged_before_it() {
        check(&[], || {
            let (waiters, queue) = mpsc::unbounded_channel();
            let (acknowledged, published) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
            let (log, applied) = (acknowledged.clone(), published.clone());
            spawn_task(run(queue, move || {
                let (log, applied) = (log.clone(), applied.clone());
                async move {
                    // A quorum is asked, which takes a while; then what was there at first is applied.
                    let index = log.load(Ordering::SeqCst);
                    turn();
                    applied.fetch_max(index, Ordering::SeqCst);
                    Ok(())
                }
            }));
            let writer = spawn({
                let acknowledged = acknowledged.clone();
                move || {
                    for _ in 0..4 {
                        turn();
                        acknowledged.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
            let readers = [0; 3].map(|_| {
                let (waiters, acknowledged, published) = (waiters.clone(), acknowledged.clone(), published.clone());
                spawn(move || {
                    let read = |_| {
                        turn();
                        let before = acknowledged.load(Ordering::SeqCst);
                        let result = block_on(enter(&waiters).expect("it runs")).expect("an answer");
                        (before, result, published.load(Ordering::SeqCst))
                    };
                    (0..3).map(read).collect::<Vec<_>>()
                })
            });
            writer.join().expect("the writer");
            for (before, result, seen) in readers.into_iter().flat_map(|reader| reader.join().expect("a reader")) {
                assert_eq!(result, Ok(()));
                assert!(seen >= before, "{before} were acknowledged, and {seen} are seen");
            }
        });
    }
}
