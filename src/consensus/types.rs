//! The type configuration that openraft runs with, and what one log entry of ours carries.
//!
//! ```text
//! propose ─► LogData { payload, local } ─► log store (payload to disk) ─► state machine (local, or payload decoded)
//! ```
//!
//! `leader_id_std` is used so that one term has one leader, as clients of `raft_term` expect.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::apply::{Command, Outcome};
use crate::types::stages::{self, Stage};
use crate::types::{Held, MemberId, RequestError, Term};

/// What openraft's tasks run on.
#[cfg(not(rusd_sim))]
type Runtime = openraft_rt_tokio::TokioRuntime;
/// The same with election times that a seed decides (see [`super::seeded`]).
#[cfg(rusd_sim)]
pub(super) type Runtime = openraft::rt::deterministic_rng::DeterministicRng<openraft_rt_tokio::TokioRuntime>;

openraft::declare_raft_types!(
    /// openraft with our payload, our member description and standard Raft terms.
    pub TypeConfig:
        D = LogData,
        R = (),
        NodeId = u64,
        Node = PeerNode,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = Runtime,
);

/// The Raft handle, with the state machine that drives our `Machine`.
pub(super) type Raft = openraft::Raft<TypeConfig, super::state_machine::StateMachine>;
/// A log id of ours: term and index.
pub(super) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
/// A log entry of ours.
pub(super) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
/// A vote of ours.
pub(super) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
/// A membership with the log id that made it.
pub(super) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
/// A membership of ours.
pub(super) type Membership = openraft::Membership<u64, PeerNode>;

/// What the cluster knows of a member besides its id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerNode {
    /// Its name; empty until it has started once.
    pub name: String,
    /// Where other members reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
    /// Added to vote, but not a voter before its log is in step (see `promoter`).
    pub wants_vote: bool,
}

/// A command's outcome with the term of the entry that held it.
#[derive(Debug)]
pub struct Applied {
    /// What it answers.
    pub outcome: Outcome,
    /// For the response's header.
    pub term: Term,
    /// When its entry was where; `None` where nobody keeps time.
    pub times: Option<EntryTimes>,
    /// What its pairs hold of the budget of answers, until they are held with the answer; `None` if they are few.
    pub held: Option<Held>,
}

/// When an entry of this member's own commands was where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryTimes {
    /// The command that waited longest came in.
    pub came: Instant,
    /// The entry was made.
    pub made: Instant,
    /// This member's log held it durably; `None` if that isn't known, as where it was forwarded.
    pub logged: Option<Instant>,
    /// Its commands began to be applied: it was committed.
    pub begun: Instant,
    /// They were applied.
    pub applied: Instant,
    /// Readers and watchers were told.
    pub published: Instant,
}

impl EntryTimes {
    /// Notes what a command of it that came in at `came` waited for.
    pub fn note(&self, came: Instant) {
        stages::note(Stage::Queue, came, self.made);
        // A majority may be faster than this member's own disk, and then it is waited for before the publish.
        let before = self.logged.filter(|logged| *logged <= self.begun);
        stages::note(Stage::Fsync, self.made, before.unwrap_or(self.made));
        stages::note(Stage::Replicate, before.unwrap_or(self.made), self.begun);
        stages::note(Stage::Apply, self.begun, self.applied);
        let after = self.logged.filter(|logged| *logged > self.applied).unwrap_or(self.applied);
        stages::note(Stage::Fsync, self.applied, after);
        stages::note(Stage::Publish, after, self.published);
    }
}

/// Where a proposal's outcome goes. Dropped without an answer, the outcome is unknown.
pub type Reply = oneshot::Sender<Result<Applied, RequestError>>;

/// The commands and waiters of a batch that this process proposed itself.
///
/// They ride along with the entry in memory, so that applying it needs no decoding and no table
/// of waiters. On a follower and after a restart there is none, and the payload is decoded.
#[derive(Debug)]
pub struct LocalBatch {
    proposals: Mutex<Option<Proposals>>,
    appended: AtomicBool,
    /// Told once whether the batch reached the log; for another member that waits to know.
    accepted: Mutex<Option<oneshot::Sender<bool>>>,
}

/// Commands and, at the same places, where their outcomes go.
#[derive(Debug, Default)]
pub struct Proposals {
    /// The commands, in the order in which they are applied.
    pub commands: Vec<Command>,
    /// One for each command.
    pub replies: Vec<Reply>,
    /// When the command that waited longest came in, and when the batch was made; `None` where nobody keeps time.
    pub since: Option<(Instant, Instant)>,
    /// Held until the batch is applied: bounds the batches under way.
    pub permit: Option<tokio::sync::OwnedSemaphorePermit>,
    /// The commands' part of the budget of bytes, held as long.
    pub held: Option<Held>,
    /// Where the batch goes if it surely didn't reach the log; without it, its waiters are refused.
    pub returns: Option<mpsc::UnboundedSender<Proposals>>,
}

impl Proposals {
    /// Hands it back to whoever proposed it, for another try.
    pub(super) fn give_back(mut self) -> Result<(), Self> {
        let Some(returns) = self.returns.take() else { return Err(self) };
        self.permit = None;
        returns.send(self).map_err(|refused| refused.0)
    }
}

impl LocalBatch {
    /// Marks that the batch has reached the log: from here on its outcome may be unknown.
    pub fn mark_appended(&self) {
        self.appended.store(true, Ordering::Release);
        if let Some(accepted) = self.accepted.lock().take() {
            // Whoever stopped waiting doesn't know, which is what is assumed.
            let _ = accepted.send(true);
        }
    }

    /// Takes the proposals out; the second caller gets none.
    pub fn take(&self) -> Option<Proposals> {
        self.proposals.lock().take()
    }
}

impl Drop for LocalBatch {
    /// A batch that never reached the log was certainly not applied: it may be tried again, or its waiters learn so.
    fn drop(&mut self) {
        if let Some(accepted) = self.accepted.get_mut().take() {
            let _ = accepted.send(false);
        }
        if !*self.appended.get_mut()
            && let Some(proposals) = self.proposals.get_mut().take()
        {
            let Err(proposals) = proposals.give_back() else { return };
            for reply in proposals.replies {
                // A waiter that has gone away needs no answer.
                let _ = reply.send(Err(RequestError::NoLeader));
            }
        }
    }
}

/// The application part of a log entry.
#[derive(Clone)]
pub struct LogData {
    /// The commands as `apply::codec` encodes them, behind [`ORIGIN_LEN`] bytes of origin if they were forwarded.
    pub payload: Bytes,
    /// Whether another member than the leader proposed them.
    pub forwarded: bool,
    /// The same commands with their waiters, where they were proposed by this process.
    pub local: Option<Arc<LocalBatch>>,
}

/// Bytes in front of a batch that was forwarded: the member that proposed it and its tag.
pub const ORIGIN_LEN: usize = 16;

/// Who proposed a batch that was forwarded to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The member.
    pub member: MemberId,
    /// Its name for the batch; another one after each of its starts.
    pub tag: u64,
}

impl Origin {
    /// As it stands in front of a batch.
    pub fn put(self, out: &mut BytesMut) {
        out.put_u64_le(self.member.get());
        out.put_u64_le(self.tag);
    }
}

impl LogData {
    /// An entry that this process proposes.
    pub fn proposed(payload: Bytes, proposals: Proposals) -> Self {
        let local = LocalBatch {
            proposals: Mutex::new(Some(proposals)),
            appended: AtomicBool::new(false),
            accepted: Mutex::new(None),
        };
        Self { payload, forwarded: false, local: Some(Arc::new(local)) }
    }

    /// An entry that another member forwarded to this leader; `accepted` learns whether it reached the log.
    pub fn accepting(payload: Bytes, accepted: oneshot::Sender<bool>) -> Self {
        let local = LocalBatch {
            proposals: Mutex::new(None),
            appended: AtomicBool::new(false),
            accepted: Mutex::new(Some(accepted)),
        };
        Self { payload, forwarded: true, local: Some(Arc::new(local)) }
    }

    /// An entry that was read from the log or came from another member.
    pub fn stored(payload: Bytes) -> Self {
        Self { payload, forwarded: false, local: None }
    }

    /// The same for one that was forwarded to the leader; its payload begins with its origin.
    pub fn forwarded(payload: Bytes) -> Self {
        Self { payload, forwarded: true, local: None }
    }

    /// Who proposed it, if it was forwarded, and the commands' bytes; `None` if it is too short for an origin.
    pub fn parts(&self) -> Option<(Option<Origin>, Bytes)> {
        if !self.forwarded {
            return Some((None, self.payload.clone()));
        }
        let (member, rest) = self.payload.split_first_chunk::<8>()?;
        let (tag, _) = rest.split_first_chunk::<8>()?;
        let origin = Origin { member: MemberId(u64::from_le_bytes(*member)), tag: u64::from_le_bytes(*tag) };
        Some((Some(origin), self.payload.slice(ORIGIN_LEN..)))
    }
}

impl PartialEq for LogData {
    fn eq(&self, other: &Self) -> bool {
        self.payload == other.payload && self.forwarded == other.forwarded
    }
}

impl fmt::Debug for LogData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogData({} bytes)", self.payload.len())
    }
}

impl fmt::Display for LogData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.payload.len())
    }
}

/// A log id from its parts.
pub(super) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::env::{Clock as _, ManualClock};

    fn batch() -> (LogData, oneshot::Receiver<Result<Applied, RequestError>>) {
        let (reply, answer) = oneshot::channel();
        let commands = vec![Command::Compact { revision: 1 }];
        (LogData::proposed(Bytes::new(), Proposals { commands, replies: vec![reply], ..Proposals::default() }), answer)
    }

    /// A write waits for its own log, for a quorum, or both at a time; what comes last is what it waited for.
    #[tokio::test]
    async fn an_entrys_times_become_the_stages_of_its_commands() {
        let begun = ManualClock::new().now();
        let at = |ms| begun + Duration::from_millis(ms);
        let stages = |logged: Option<u64>| {
            let times = EntryTimes {
                came: at(0),
                made: at(10),
                logged: logged.map(at),
                begun: at(100),
                applied: at(110),
                published: at(150),
            };
            stages::watched(begun, async move {
                times.note(at(5));
                let seen = stages::stages().expect("watched");
                let ms = |stage| seen.took(stage).as_millis();
                assert_eq!((ms(Stage::Queue), ms(Stage::Apply)), (5, 10));
                assert_eq!(seen.waited(), Duration::from_millis(145), "nothing is counted twice or left out");
                (ms(Stage::Fsync), ms(Stage::Replicate), ms(Stage::Publish))
            })
        };
        assert_eq!(stages(Some(90)).await, (80, 10, 40), "its log was slow");
        assert_eq!(stages(Some(12)).await, (2, 88, 40), "the others were");
        assert_eq!(stages(Some(145)).await, (35, 90, 5), "its log is slower than a quorum");
        assert_eq!(stages(None).await, (0, 90, 40), "another member's log");
    }

    #[test]
    fn a_batch_that_never_reached_the_log_is_refused_for_certain() {
        let (data, mut answer) = batch();
        drop(data);
        assert!(matches!(answer.try_recv(), Ok(Err(RequestError::NoLeader))));
    }

    #[test]
    fn a_batch_lost_after_it_reached_the_log_has_an_unknown_outcome() {
        let (data, mut answer) = batch();
        data.local.as_ref().expect("just made with one").mark_appended();
        drop(data);
        assert!(matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
    }

    #[test]
    fn log_ids_order_by_term_then_index() {
        assert!(log_id(1, 9) < log_id(2, 1));
        assert!(log_id(2, 1) < log_id(2, 2));
    }
}
