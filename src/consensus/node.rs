//! A running Raft node: started from a log and a machine, watched, asked, and ended.
//!
//! ```text
//! Node::start ─► recover ─► (first start: initialize) ─► a leader is elected ─► first confirmation ─► ready
//! ```

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use openraft::async_runtime::instant::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use openraft::{Config, LinearizerOption, RaftMetrics, ReadPolicy, SnapshotPolicy};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::Instant;

use super::index::{from_raft, to_raft};
use super::leader_lines::LeaderLines;
use super::lease::Lease;
use super::log_store::LogStore;
use super::membership::{Desk, MemberRecord, MemberRules, is_learner, records};
use super::peer::{Lead, Peers};
use super::promoter;
use super::state_machine::StateMachine;
use super::status::NodeStatus;
use super::types::{LogData, LogId, ORIGIN_LEN, Origin, PeerNode, Proposals, Raft, TypeConfig, Vote};
use super::vouched;
use crate::types::{MemberId, RaftIndex, RequestError, Term};

/// How Raft runs, from the flags.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// This member.
    pub member: MemberId,
    /// The members of a new cluster, the same on all of them; none for a member that joins one.
    pub initial: BTreeMap<MemberId, PeerNode>,
    /// `--heartbeat-interval`.
    pub heartbeat: Duration,
    /// `--election-timeout`: an election begins between this and about one and a half times this after
    /// the leader was heard last.
    pub election_timeout: Duration,
    /// How the membership may change.
    pub members: MemberRules,
    /// `--lease-reads`: a leader that a quorum has answered lately reads without asking it again.
    pub lease_reads: bool,
}

/// Why a node could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings contradict each other.
    #[error("raft configuration: {0}")]
    Config(#[from] openraft::ConfigError),
    /// The log or the state could not be read.
    #[error("raft could not start: {0}")]
    Raft(String),
}

/// A running Raft node. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    raft: Raft,
    status: Arc<NodeStatus>,
    peers: Peers,
    election_timeout: Duration,
    desk: Arc<Desk>,
    /// Set once, with the reason, when Raft ended by itself.
    fatal: watch::Receiver<Option<String>>,
    lease: Lease,
    /// One member is healed at a time.
    pub(super) healing: Arc<Semaphore>,
}

impl Node {
    /// Starts Raft. A log without any vote begins the cluster of `config.initial`, if there is one.
    ///
    /// # Errors
    /// The log or the state can't be read, or the timeouts contradict each other.
    pub async fn start(
        config: NodeConfig,
        log: LogStore,
        machine: StateMachine,
        status: Arc<NodeStatus>,
        peers: Peers,
    ) -> Result<Self, StartError> {
        let raft_config = Arc::new(raft_config(&config).validate()?);
        let election_min = Duration::from_millis(raft_config.election_timeout_min);
        let lease = Lease::new(config.lease_reads, election_min, log.has_voted());
        let member = config.member.get();
        let heartbeat = config.heartbeat;
        let desk = Desk::new(config.members, 2 * config.election_timeout);
        peers.set_log(&log);
        let raft = Raft::new(member, raft_config, peers.clone(), log, machine)
            .await
            .map_err(|error| StartError::Raft(error.to_string()))?;
        let (failed, fatal) = watch::channel(None);
        let node = Self {
            raft,
            status,
            peers,
            election_timeout: config.election_timeout,
            desk: Arc::new(desk),
            fatal,
            lease,
            healing: Arc::new(Semaphore::new(1)),
        };
        tokio::spawn(watch_raft(node.clone(), config.heartbeat, failed));
        let pristine = !node.raft.is_initialized().await.map_err(|error| StartError::Raft(error.to_string()))?;
        if pristine && !config.initial.is_empty() {
            let members: BTreeMap<_, _> = config.initial.into_iter().map(|(id, node)| (id.get(), node)).collect();
            match node.raft.initialize(members).await {
                // What is promised by it, as a vote, is no promise before it is durable; nor is it begun.
                Ok(()) => {
                    let begun = node.status.wait_logged(RaftIndex(1)).await;
                    begun.map_err(|error| StartError::Raft(error.to_string()))?;
                }
                // Another member was faster, and its leader has sent the same already.
                Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
                Err(error) => return Err(StartError::Raft(error.to_string())),
            }
        }
        tokio::spawn(promoter::run(node.clone(), heartbeat));
        // Nobody else could vote: there is nothing to wait for.
        let alone = node.raft.server_metrics().borrow_watched().membership_config.membership().voter_ids().eq([member]);
        if !pristine && alone {
            node.raft.trigger().elect(false).await.map_err(|error| StartError::Raft(error.to_string()))?;
        }
        Ok(node)
    }

    pub(super) fn raft(&self) -> &Raft {
        &self.raft
    }

    /// The way to the other members.
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    pub(super) fn desk(&self) -> &Desk {
        &self.desk
    }

    /// What is known of Raft without asking it.
    pub fn status(&self) -> &Arc<NodeStatus> {
        &self.status
    }

    /// Becomes `Some(reason)` when Raft ended by itself; the process has to end then.
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.fatal.clone()
    }

    /// Hands a batch to the log; its replies come from the state machine. With a term, only the leader of
    /// that term takes it; whoever doesn't take it answers `NoLeader` to all of it.
    ///
    /// # Errors
    /// `Stopped` if Raft has ended.
    pub async fn append(&self, payload: Bytes, proposals: Proposals, term: Option<Term>) -> Result<(), RequestError> {
        self.write(LogData::proposed(payload, proposals), term).await
    }

    async fn write(&self, data: LogData, term: Option<Term>) -> Result<(), RequestError> {
        let write = self.raft.write(data);
        let write = match term {
            Some(term) => write.with_leader(term.get()),
            None => write,
        };
        write.await.map_err(|_| RequestError::Stopped)
    }

    /// Puts another member's batch into this leader's log. `payload` is without its origin. With a term, only the leader of
    /// that term does.
    ///
    /// # Errors
    /// `Stopped` if Raft has ended; false if this member doesn't lead: the batch surely isn't in the log.
    pub(super) async fn append_forwarded(
        &self,
        payload: Bytes,
        member: MemberId,
        tag: u64,
        term: Option<Term>,
    ) -> Result<bool, RequestError> {
        // The others may be faster than this member; what they send must not pile up here.
        if self.status.committed().get().saturating_sub(self.status.applied().get()) > FORWARDED_BEHIND_MAX {
            return Ok(false);
        }
        let mut framed = BytesMut::with_capacity(ORIGIN_LEN + payload.len());
        Origin { member, tag }.put(&mut framed);
        framed.put_slice(&payload);
        let (accepted, outcome) = oneshot::channel();
        let data = LogData::accepting(framed.freeze(), accepted);
        self.write(data, term).await?;
        outcome.await.map_err(|_| RequestError::Stopped)
    }

    /// Confirms leadership with a quorum, or by the lease that one has given; whoever has applied the entry that is returned (openraft's index)
    /// sees everything that was acknowledged before this call.
    ///
    /// # Errors
    /// `NoLeader` if this member doesn't lead or can't reach a quorum, `Stopped` if Raft has ended.
    pub(super) async fn read_index(&self) -> Result<u64, RequestError> {
        if let Some(age_max) = self.lease.age_max() {
            // If it has run out, this waits for a round as well.
            let read = self.read_log_id(LinearizerOption::new(Some(age_max), true)).await?;
            // Asked after the answer: the lead wasn't given away before it.
            if !self.lease.is_void(Term(read.leader_id.term)) {
                return Ok(read.index);
            }
        }
        Ok(self.read_log_id(ReadPolicy::ReadIndex.into()).await?.index)
    }

    /// As [`Node::read_index`], for a member that has said what it voted for after its reads began.
    pub(super) async fn read_index_for(&self, caller: MemberId, vouched: Option<Vote>) -> Result<u64, RequestError> {
        if let Some(vouched) = vouched
            && let Some(index) = vouched::index(&self.raft, self.status.member(), caller, vouched).await?
        {
            return Ok(index);
        }
        self.read_index().await
    }

    async fn read_log_id(&self, option: LinearizerOption) -> Result<LogId, RequestError> {
        match self.raft.get_read_log_id(option).await {
            Ok((read, _)) => Ok(*read.log_id()),
            Err(RaftError::APIError(_)) => Err(RequestError::NoLeader),
            Err(RaftError::Fatal(_)) => Err(RequestError::Stopped),
        }
    }

    /// Waits until everything that was acknowledged anywhere before this call is published here. The leader
    /// is asked; on the leader, a quorum is.
    ///
    /// # Errors
    /// `NoLeader` if there is none, or it can't reach a quorum; `Timeout` after `limit`, `Stopped` if Raft
    /// has ended.
    pub async fn confirm_read(&self, limit: Duration) -> Result<(), RequestError> {
        let confirm = async {
            let index = match self.status.leader() {
                // Known only as long as it is heard of; openraft knows for certain.
                // One that is paused says nothing, and another one may lead by now.
                Some(leader) if leader != self.status.member() => tokio::select! {
                    biased;
                    index = self.ask_leader(leader, limit) => index?,
                    () = self.status.leader_is_not(leader) => return Err(RequestError::NoLeader),
                },
                _ => self.read_index().await?,
            };
            self.status.wait_applied(to_raft(index)).await;
            Ok(())
        };
        match tokio::time::timeout(limit, confirm).await {
            Ok(result) => result,
            Err(_) => Err(RequestError::Timeout),
        }
    }

    async fn ask_leader(&self, leader: MemberId, limit: Duration) -> Result<u64, RequestError> {
        // Raft is only asked where its word can count; the leader decides by what it knows.
        let counts = vouched::are_quorum(&self.status.membership(), self.status.member(), leader);
        let vouched = if counts { vouched::vote(&self.raft, leader).await } else { None };
        self.peers.read_index(leader, vouched, limit).await
    }

    /// Returns when a quorum says, asked after this call, that this member leads; the status knows in which term.
    ///
    /// # Errors
    /// `NoLeader` if it doesn't, `Stopped` if Raft has ended.
    pub async fn confirm_lead(&self) -> Result<(), RequestError> {
        let read = self.read_log_id(ReadPolicy::ReadIndex.into()).await?;
        // The boundary is this leader's own first entry or a later one, so it tells the term.
        self.status.set_term(Term(read.leader_id.term));
        self.status.wait_applied(to_raft(read.index)).await;
        Ok(())
    }

    /// Waits until another member is known to lead, for an election timeout at most: an entry that is gone had to make
    /// room for that one's, which is noticed a moment later.
    pub async fn sees_other_leader(&self) {
        let me = self.status.member();
        let mut seen = self.status.leaders();
        let other = seen.wait_for(|leader| leader.is_some_and(|leader| leader != me));
        // Who leads doesn't matter to what is done, only to what is said.
        let _ = tokio::time::timeout(self.election_timeout, other).await;
    }

    /// Why a command that was proposed then wasn't done in time: the leader failed, the connection to it did, or
    /// neither.
    pub fn timed_out(&self, begun: Instant) -> RequestError {
        self.status.blame(begun, self.election_timeout)
    }

    /// Waits until this member can serve linearizable requests.
    ///
    /// # Errors
    /// `Stopped` if Raft ended while waiting.
    pub async fn ready(&self) -> Result<(), RequestError> {
        loop {
            match self.confirm_read(self.election_timeout).await {
                Ok(()) => break,
                Err(RequestError::Stopped) => return Err(RequestError::Stopped),
                // No leader yet: an election is under way.
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
        let metrics = self.raft.server_metrics().borrow_watched().clone();
        let term = Term(metrics.vote.leader_id.term);
        self.status.set_term(term);
        if metrics.current_leader == Some(self.status.member().get()) {
            self.status.set_leader(Some(self.status.member()), term);
        }
        // One that waits for its vote serves clients already, and may have shown them more than is applied here.
        let me = self.status.member().get();
        let sole = metrics.membership_config.membership().nodes().map(|(id, _)| *id).eq([me]);
        self.status.set_sole_leader(sole && self.status.is_leader());
        Ok(())
    }

    /// Asks for a snapshot of what is applied; it is made in the background.
    pub async fn trigger_snapshot(&self) -> Result<(), RequestError> {
        self.raft.trigger().snapshot().await.map_err(|_| RequestError::Stopped)
    }

    /// The last entry that a finished snapshot holds.
    pub fn snapshot_index(&self) -> Option<RaftIndex> {
        self.raft.data_metrics().borrow_watched().snapshot.map(|id| to_raft(id.index))
    }

    /// The last entry of the log that no member needs to which this leader sent a snapshot, and that is more than `keep`
    /// entries behind; `None` if there is none such.
    pub fn not_needed(&self, keep: u64) -> Option<RaftIndex> {
        let metrics = self.raft.metrics();
        let seen = metrics.borrow_watched();
        let progress = seen.replication.as_ref()?;
        let in_step = RaftIndex(self.status.applied().get().saturating_sub(keep));
        let has = |member: MemberId| progress.get(&member.get()).copied().flatten();
        self.peers.not_needed(in_step, |member| has(member).map_or(RaftIndex(0), |id| to_raft(id.index)))
    }

    /// Drops the log up to and with `index`; Raft keeps what no snapshot holds.
    pub async fn purge(&self, index: RaftIndex) -> Result<(), RequestError> {
        self.raft.trigger().purge_log(from_raft(index)).await.map_err(|_| RequestError::Stopped)
    }

    /// Runs `work` on the state machine's own task, between two batches.
    ///
    /// # Errors
    /// `Stopped` if Raft has ended.
    pub async fn with_machine<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut StateMachine) -> T + Send + 'static,
    ) -> Result<T, RequestError> {
        self.raft
            .with_state_machine(move |machine| {
                let result = work(machine);
                Box::pin(async move { result })
            })
            .await
            .map_err(|_| RequestError::Stopped)
    }

    /// The members as of what is published here, by id: Raft's own word of them comes later than that.
    pub fn members(&self) -> Vec<MemberRecord> {
        let published = self.status.membership();
        if published.nodes().next().is_some() {
            return records(&published);
        }
        // Before the first entry of all, what the flags say.
        records(self.raft.server_metrics().borrow_watched().membership_config.membership())
    }

    /// Asks the others in turn for as long as no leader is known, and never returns; what they answer doesn't matter but
    /// that this member was removed, which is heeded. By its own log such a one has no vote: it asks nobody for one, and
    /// whoever leads has nothing more to tell it. So a leader that gave up the lead before it knew that its own removal
    /// was committed would wait for ever.
    pub async fn ask_around(&self) -> Infallible {
        let mut silent = 0;
        loop {
            tokio::time::sleep(self.election_timeout).await;
            silent = if self.status.leader().is_none() { silent + 1 } else { 0 };
            let others = self.members().into_iter().map(|member| member.id).filter(|id| *id != self.status.member());
            let others: Vec<_> = others.collect();
            if silent >= ASKS_AFTER && !others.is_empty() {
                let asked = self.peers.read_index(others[silent % others.len()], None, self.election_timeout).await;
                tracing::debug!(?asked, "asked another member, as no leader is known");
            }
        }
    }

    /// Ends Raft in order; what was appended is on disk already.
    pub async fn shutdown(&self) -> io::Result<()> {
        self.status.set_stopped();
        self.raft.shutdown().await.map_err(|error| io::Error::other(error.to_string()))
    }
}

/// Committed entries that aren't applied here yet, above which the leader takes no batch of another member.
const FORWARDED_BEHIND_MAX: u64 = 5_000;

/// Election timeouts without a leader after which a member asks others why: an election is over by then.
const ASKS_AFTER: usize = 3;

/// openraft's lease of a leader and its election timer add up, where etcd's timer alone counts: with these
/// shares of `--election-timeout`, an election begins 1.05 to 1.4 of it after the leader was heard last.
const ELECTION_MIN_PERCENT: u64 = 35;
const ELECTION_MAX_PERCENT: u64 = 70;

fn raft_config(config: &NodeConfig) -> Config {
    let heartbeat_ms = u64::try_from(config.heartbeat.as_millis()).unwrap_or(u64::MAX).max(1);
    let election_ms = u64::try_from(config.election_timeout.as_millis()).unwrap_or(u64::MAX).max(10);
    let election_max_ms = (election_ms.saturating_mul(ELECTION_MAX_PERCENT) / 100).max(heartbeat_ms + 2);
    Config {
        cluster_name: "rusd".to_owned(),
        heartbeat_interval: heartbeat_ms,
        election_timeout_min: (election_ms.saturating_mul(ELECTION_MIN_PERCENT) / 100).max(heartbeat_ms + 1),
        election_timeout_max: election_max_ms,
        // We decide on snapshots ourselves, by bytes and not by entries.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 10_000,
        purge_batch_size: 1,
        enable_pre_vote: Some(true),
        // On by default. A leader that comes back without a vote takes for committed what it had noted, which lags
        // behind what it had acknowledged: its reads were stale until its next write. And what it lost in a power cut
        // may be in the others' logs, sent before it was synced: in the same term, other entries would get its places.
        enable_leader_restore: Some(false),
        // Entries go to the others while the leader's own disk writes them.
        broadcast_submitted_on_append: Some(true),
        // A leader that hears nobody must not be heard for ever: it would keep the others from electing one.
        quorum_loss_probe_interval: Some(election_max_ms.saturating_mul(3)),
        backoff: "20ms 50ms 100ms ..500ms".to_owned(),
        ..Config::default()
    }
}

/// Keeps `status` in step with Raft, and reports when Raft ends by itself.
async fn watch_raft(node: Node, heartbeat: Duration, failed: watch::Sender<Option<String>>) {
    let status = &node.status;
    let mut metrics = node.raft.metrics();
    let mut watching = Watching { since: Instant::now(), leads: false };
    let mut lines = LeaderLines::new(status.member());
    loop {
        let (leader, term) = {
            let seen = metrics.borrow_watched();
            let leader = watching.take_over(&node, &seen);
            if let Err(fatal) = &seen.running_state {
                let orderly = status.is_stopped();
                status.set_stopped();
                node.peers.set_lead(Lead::None);
                if !orderly {
                    failed.send_replace(Some(fatal.to_string()));
                }
                return;
            }
            (leader, Term(seen.current_term))
        };
        // Raft waits for whoever borrows its metrics, so nothing is written before they are given back.
        lines.see(leader, term, Instant::now());
        // A leader that is gone says nothing, so the time is looked at, too.
        let changed = tokio::time::timeout(heartbeat, metrics.changed()).await;
        if matches!(changed, Ok(Err(_))) {
            let orderly = status.is_stopped();
            status.set_stopped();
            node.peers.set_lead(Lead::None);
            if !orderly {
                failed.send_replace(Some("raft ended".to_owned()));
            }
            return;
        }
    }
}

/// What is remembered between two looks.
struct Watching {
    /// Since when this member leads, or doesn't.
    since: Instant,
    leads: bool,
}

impl Watching {
    /// Hands on what Raft shows; the leader, if there is one for those who ask.
    fn take_over(&mut self, node: &Node, seen: &RaftMetrics<TypeConfig>) -> Option<MemberId> {
        let status = &node.status;
        status.set_term(Term(seen.current_term));
        let leads = seen.current_leader == Some(seen.id);
        if leads != self.leads {
            (self.leads, self.since) = (leads, Instant::now());
        }
        let membership = seen.membership_config.membership();
        let voters = membership.voter_ids().count();
        let limit = node.election_timeout;
        // One that can't reach a quorum, or isn't heard of, is none for those who ask.
        let is_there = match seen.current_leader {
            Some(_) if leads => {
                let acked = seen.last_quorum_acked.as_ref().map(|acked| acked.elapsed());
                voters <= 1 || acked.unwrap_or_else(|| self.since.elapsed()) < limit
            }
            Some(leader) => status.silent_for(MemberId(leader)) < limit,
            None => false,
        };
        node.peers.set_lead(match (leads, is_there) {
            (false, _) => Lead::None,
            (true, true) => Lead::Sure,
            (true, false) => Lead::Unsure,
        });
        let leader = seen.current_leader.filter(|_| is_there).map(MemberId);
        status.set_leader(leader, Term(seen.current_term));
        if let Some(id) = &seen.local_committed {
            status.set_committed(to_raft(id.index));
        }
        if !leads {
            status.set_sole_leader(false);
        }
        status.set_learner(is_learner(membership, seen.id));
        for (id, peer) in membership.nodes() {
            node.peers.book().set(MemberId(*id), peer.peer_urls.clone());
        }
        leader
    }
}
