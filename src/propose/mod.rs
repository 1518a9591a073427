//! From a command to a Raft entry and back.
//!
//! ```text
//! api ─► Proposer::propose ─► queue ─► batcher (one entry for all that wait) ─► consensus ─► reply
//!                                                └► forward: another member leads
//! api ─► Proposer::read_barrier ─► nothing to wait for (sole voter), or one barrier for all that wait
//! api ─► Leases ─► the leader's clock, here or elsewhere
//! ```
//!
//! Nothing lingers: the batcher takes what is queued and hands it on; while the log is busy, what
//! comes in becomes the next batch.

mod barrier;
mod batcher;
mod forward;
mod leases;
mod limit;
mod renewal;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use self::barrier::Confirms;
use self::batcher::Batcher;
use self::limit::Limit;
use crate::apply::{Command, codec};
use crate::consensus::{Applied, Node, Reply, Waiters};
use crate::env::{Clock, Env};
use crate::types::planted::{Bug, is_planted};
use crate::types::stages::{self, Stage};
use crate::types::{Budget, Held, Limits, Places, RequestError, Term};

pub use leases::LeaseKeeper;
pub use renewal::Leases;

/// How the proposer is bounded.
#[derive(Clone, Copy, Debug)]
pub struct ProposeLimits {
    /// The most commands that wait for their outcome; further ones are refused. What ends an overload, or must go on
    /// through it, may be half as many besides (revoking leases, compactions, alarms); what a leader does by itself as
    /// many again, which those can't take from it.
    pub pending_max: usize,
    /// Bytes of the commands in memory, until they are applied; one that would make them more is refused,
    /// unless there is no other.
    pub pending_bytes_max: usize,
    /// How long a command or a read may wait.
    pub timeout: Duration,
    /// The most commands of one entry.
    pub batch_commands_max: usize,
    /// The size, in bytes, from which an entry takes no further command.
    pub batch_bytes_max: usize,
    /// The most entries under way; the commands that come meanwhile share the next one.
    pub batches_in_flight_max: usize,
}

impl Default for ProposeLimits {
    fn default() -> Self {
        Self {
            pending_max: 5_000,
            pending_bytes_max: Limits::REQUESTS_BYTES_DEFAULT,
            timeout: Duration::from_secs(7),
            batch_commands_max: 1_024,
            batch_bytes_max: 1024 * 1024,
            batches_in_flight_max: 16,
        }
    }
}

/// The door to the log. Cheap to clone.
#[derive(Clone)]
pub struct Proposer {
    inner: Arc<Inner>,
}

/// What a command costs beside its bytes: itself, its waiter, its places in queues.
const COMMAND_OVERHEAD_BYTES: usize = 512;

/// What part of the bytes there is besides for commands that go first.
const RESERVE_PART: usize = 4;
/// What part of their own reserve clients leave to the leader.
const CLIENTS_PART: usize = 2;

/// A command on its way to the batcher.
struct Queued {
    command: Command,
    reply: Reply,
    /// Its encoded length.
    bytes: usize,
    /// Its part of the budget, which it takes along until it is applied: a caller that gives up makes no
    /// room for another while its command is in memory.
    held: Held,
    /// When it came in.
    came: std::time::Instant,
    /// Only the leader of this term may propose it.
    term: Option<Term>,
}

struct Inner {
    queue: mpsc::UnboundedSender<Queued>,
    barrier: barrier::Barrier,
    lead: barrier::Barrier,
    pending: Arc<Places>,
    pending_bytes: Budget,
    queued: Arc<AtomicUsize>,
    in_flight: Arc<Semaphore>,
    failed: AtomicU64,
    reads_failed: AtomicU64,
    reads_slow: AtomicU64,
    limits: ProposeLimits,
    /// `limits.timeout`
    limit: Limit,
    clock: Arc<dyn Clock>,
    node: Node,
}

impl Proposer {
    /// Starts the batcher and the barrier on the current runtime. `waiters` are those that the state machine answers.
    pub fn start(node: Node, limits: ProposeLimits, env: Env, waiters: Arc<Waiters>) -> Self {
        let (queue, commands) = mpsc::unbounded_channel();
        let clock = env.clock.clone();
        let forwarder = forward::Forwarder::start(node.clone(), env, waiters, limits.timeout);
        let queued = Arc::new(AtomicUsize::new(0));
        let in_flight = Arc::new(Semaphore::new(limits.batches_in_flight_max));
        let batcher = Batcher {
            node: node.clone(),
            forwarder,
            limits,
            in_flight: in_flight.clone(),
            queued: queued.clone(),
            clock: clock.clone(),
        };
        tokio::spawn(batcher.run(commands));
        let limit = Limit::start(limits.timeout);
        let barrier = barrier::Barrier::start(node.clone(), limits.timeout, limit.clone(), Confirms::State);
        let lead = barrier::Barrier::start(node.clone(), limits.timeout, limit.clone(), Confirms::Lead);
        Self {
            inner: Arc::new(Inner {
                queue,
                barrier,
                lead,
                pending: Places::new("max-pending-proposals", limits.pending_max),
                pending_bytes: Budget::new(limits.pending_bytes_max),
                queued,
                in_flight,
                failed: AtomicU64::new(0),
                reads_failed: AtomicU64::new(0),
                reads_slow: AtomicU64::new(0),
                limits,
                limit,
                clock,
                node,
            }),
        }
    }

    /// Commands that wait for their outcome.
    pub fn pending(&self) -> &Places {
        &self.inner.pending
    }

    /// Bytes of the commands in memory.
    pub fn pending_bytes(&self) -> &Budget {
        &self.inner.pending_bytes
    }

    /// Commands that have no place in an entry yet.
    pub fn queued(&self) -> usize {
        self.inner.queued.load(Ordering::Relaxed)
    }

    /// Entries of this member's commands under way.
    pub fn in_flight(&self) -> usize {
        self.inner.limits.batches_in_flight_max.saturating_sub(self.inner.in_flight.available_permits())
    }

    /// Commands whose outcome didn't come.
    pub fn failed(&self) -> u64 {
        self.inner.failed.load(Ordering::Relaxed)
    }

    /// Reads that could not be made linearizable.
    pub fn reads_failed(&self) -> u64 {
        self.inner.reads_failed.load(Ordering::Relaxed)
    }

    /// Reads that waited too long for that.
    pub fn reads_slow(&self) -> u64 {
        self.inner.reads_slow.load(Ordering::Relaxed)
    }

    /// Gets `command` through the log and returns what it answered, after it was published.
    ///
    /// # Errors
    /// `TooManyRequests` when too many wait, or too many bytes (later for what ends an overload), `Timeout` (or why) or
    /// `DeadlineExceeded` (no leader) when the outcome did not come in time: it may still be applied. `Stopped` when
    /// the server ends.
    pub async fn propose(&self, command: Command) -> Result<Applied, RequestError> {
        self.submit(command, None).await
    }

    /// The same for what this member decided as the leader of `term`: it is never forwarded, and refused
    /// (`NoLeader`) if another term has begun.
    ///
    /// # Errors
    /// As [`Proposer::propose`].
    pub async fn propose_as_leader(&self, command: Command, term: Term) -> Result<Applied, RequestError> {
        self.submit(command, Some(term)).await
    }

    async fn submit(&self, command: Command, term: Option<Term>) -> Result<Applied, RequestError> {
        let inner = &*self.inner;
        let limits = &inner.limits;
        let (more, more_bytes) = reserve(limits, goes_first(&command), term.is_some());
        let _pending = inner.pending.take_beyond(more).ok_or(RequestError::TooManyRequests)?;
        let bytes = codec::encoded_len(&command);
        let held = inner.pending_bytes.take_beyond(bytes + COMMAND_OVERHEAD_BYTES, more_bytes);
        let held = held.ok_or(RequestError::TooManyRequests)?;
        let failing = Failing(Some(&inner.failed));
        let (reply, outcome) = oneshot::channel();
        inner.queued.fetch_add(1, Ordering::Relaxed);
        let came = inner.clock.now();
        inner.queue.send(Queued { command, reply, bytes, held, came, term }).map_err(|_| RequestError::Stopped)?;
        let begun = Instant::now();
        // As in etcd, what was handed to a leader that is lost later timed out; what found none was never taken.
        let had_leader = inner.node.status().leader().is_some();
        let outcome = inner.limit.within(outcome).await;
        match &outcome {
            Ok(Ok(Ok(Applied { times: Some(times), .. }))) => times.note(came),
            Ok(Ok(Ok(_))) => {}
            // Where it is by now isn't known.
            _ if inner.node.status().leader().is_none() => stages::note(Stage::Queue, came, inner.clock.now()),
            _ => stages::note(Stage::Replicate, came, inner.clock.now()),
        }
        match outcome {
            Ok(Ok(result)) => result.inspect(|_| failing.succeed()),
            // The entry is gone without an outcome: it may or may not be committed later.
            Ok(Err(_)) if inner.node.status().is_stopped() => Err(RequestError::Stopped),
            Ok(Err(_)) => {
                inner.node.sees_other_leader().await;
                Err(inner.node.timed_out(begun))
            }
            Err(_) if !had_leader && inner.node.status().leader().is_none() => Err(RequestError::DeadlineExceeded),
            Err(_) => Err(inner.node.timed_out(begun)),
        }
    }

    /// Returns when a read of the published state is linearizable.
    ///
    /// A leader that is the only voter needs no round: nobody else can commit, and what was
    /// answered was published before. Otherwise all reads that wait share one confirmation.
    ///
    /// # Errors
    /// `Timeout` or `NoLeader` as etcd answers them. Where etcd answers `LeaderChanged` the new leader is asked.
    pub async fn read_barrier(&self) -> Result<(), RequestError> {
        let status = self.inner.node.status();
        if status.is_sole_leader() || (is_planted(Bug::StaleRead) && status.is_leader()) {
            return Ok(());
        }
        let begun = self.inner.clock.now();
        let result = self.inner.barrier.wait().await;
        stages::note(Stage::ReadIndex, begun, self.inner.clock.now());
        match &result {
            Ok(()) => {}
            Err(RequestError::Timeout) => drop(self.inner.reads_slow.fetch_add(1, Ordering::Relaxed)),
            Err(_) => drop(self.inner.reads_failed.fetch_add(1, Ordering::Relaxed)),
        }
        result
    }

    /// Returns when a quorum says that this member leads in `term`, asked after this call: what it did as the
    /// leader of that term before the call may be told.
    ///
    /// # Errors
    /// `NoLeader` if it doesn't, or another term has begun.
    pub async fn confirm_lead(&self, term: Term) -> Result<(), RequestError> {
        if self.inner.node.status().is_sole_leader() {
            return Ok(());
        }
        match self.inner.lead.wait().await {
            Err(RequestError::Timeout) if self.inner.node.status().leader().is_none() => {
                return Err(RequestError::NoLeader);
            }
            waited => waited?,
        }
        if self.inner.node.status().term() == term { Ok(()) } else { Err(RequestError::NoLeader) }
    }

    /// How long a command or a read may wait.
    pub fn limit(&self) -> Duration {
        self.inner.limits.timeout
    }

    /// The member that this proposer belongs to.
    pub fn node(&self) -> &Node {
        &self.inner.node
    }
}

/// How many more proposals there may be, and how many bytes, for a command that goes first or is a leader's own. What
/// clients ask for, whoever they are, leaves room for the leader's: without its expiries and checkpoints leases would go
/// wrong.
const fn reserve(limits: &ProposeLimits, goes_first: bool, is_leaders: bool) -> (usize, usize) {
    let (number, bytes) = (limits.pending_max, limits.pending_bytes_max / RESERVE_PART);
    match (is_leaders, goes_first) {
        (true, _) => (number, bytes),
        (false, true) => (number / CLIENTS_PART, bytes / CLIENTS_PART),
        (false, false) => (0, 0),
    }
}

/// A proposal that counts as failed unless it succeeds, also if its caller gives it up.
struct Failing<'a>(Option<&'a AtomicU64>);

impl Failing<'_> {
    fn succeed(mut self) {
        self.0 = None;
    }
}

impl Drop for Failing<'_> {
    fn drop(&mut self) {
        if let Some(failed) = self.0 {
            failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether a command is for what there is reserve: it makes the state smaller, or ends an alarm.
fn goes_first(command: &Command) -> bool {
    matches!(command.plain(), Command::LeaseRevoke { .. } | Command::Compact { .. } | Command::Alarm(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LeaseId;

    // Cause: one reserve for what clients send before others and for what a leader does by itself. Symptom: revokes of leases
    // that don't exist kept the leader from ending those that had run out.
    #[test]
    fn no_clients_command_takes_the_leaders_place() {
        let limits = ProposeLimits { pending_max: 10, pending_bytes_max: 4_000, ..ProposeLimits::default() };
        let revoke = Command::LeaseRevoke { id: LeaseId(7) };
        let put = Command::LeaseGrant { id: LeaseId(7), ttl_secs: 9 };
        let of = |command: &Command, is_leaders| reserve(&limits, goes_first(command), is_leaders);
        assert_eq!([of(&put, false), of(&revoke, false), of(&revoke, true)], [(0, 0), (5, 500), (10, 1_000)]);
        let (pending, bytes) = (Places::new("max-pending-proposals", 10), Budget::new(limits.pending_bytes_max));
        let held: Vec<_> = std::iter::from_fn(|| pending.take_beyond(of(&revoke, false).0)).collect();
        let all: Vec<_> = std::iter::from_fn(|| bytes.take_beyond(100, of(&revoke, false).1)).collect();
        assert_eq!((held.len(), all.len()), (15, 45));
        let (places, room) = of(&revoke, true);
        assert!(pending.take_beyond(places).is_some() && bytes.take_beyond(100, room).is_some());
    }

    #[test]
    fn what_a_caller_gives_up_has_failed() {
        let failed = AtomicU64::new(0);
        Failing(Some(&failed)).succeed();
        assert_eq!(failed.load(Ordering::Relaxed), 0);
        drop(Failing(Some(&failed)));
        assert_eq!(failed.load(Ordering::Relaxed), 1);
    }
}
