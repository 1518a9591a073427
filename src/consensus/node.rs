//! A running Raft node: started from a log and a machine, watched, asked, and ended.
//!
//! ```text
//! Node::start ─► recover ─► (first start: initialize) ─► elected ─► first confirmation ─► ready
//! ```

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::RaftError;
use openraft::{Config, ReadPolicy, SnapshotPolicy};
use tokio::sync::watch;

use super::index::{from_raft, to_raft};
use super::log_store::LogStore;
use super::network::NoPeers;
use super::state_machine::StateMachine;
use super::status::NodeStatus;
use super::types::{LogData, PeerNode, Proposals, Raft, TypeConfig};
use crate::types::{MemberId, RaftIndex, RequestError, Term};

/// How Raft runs, from the flags.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// This member.
    pub member: MemberId,
    /// What the cluster is to know of it.
    pub peer: PeerNode,
    /// `--heartbeat-interval`.
    pub heartbeat: Duration,
    /// `--election-timeout`: elections begin at a random time between this and twice this.
    pub election_timeout: Duration,
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
    /// Set once, with the reason, when Raft ended by itself.
    fatal: watch::Receiver<Option<String>>,
}

impl Node {
    /// Starts Raft. A log without any vote begins a cluster of this member alone.
    ///
    /// # Errors
    /// The log or the state can't be read, or the timeouts contradict each other.
    pub async fn start(
        config: NodeConfig,
        log: LogStore,
        machine: StateMachine,
        status: Arc<NodeStatus>,
    ) -> Result<Self, StartError> {
        let raft_config = Arc::new(raft_config(&config).validate()?);
        let member = config.member.get();
        let raft = Raft::new(member, raft_config, NoPeers, log, machine)
            .await
            .map_err(|error| StartError::Raft(error.to_string()))?;
        let (failed, fatal) = watch::channel(None);
        tokio::spawn(watch_raft(raft.clone(), status.clone(), failed));
        let pristine = !raft.is_initialized().await.map_err(|error| StartError::Raft(error.to_string()))?;
        if pristine {
            let members = BTreeMap::from([(member, config.peer)]);
            raft.initialize(members).await.map_err(|error| StartError::Raft(error.to_string()))?;
        }
        Ok(Self { raft, status, fatal })
    }

    /// What is known of Raft without asking it.
    pub fn status(&self) -> &Arc<NodeStatus> {
        &self.status
    }

    /// Becomes `Some(reason)` when Raft ended by itself; the process has to end then.
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.fatal.clone()
    }

    /// Hands a batch to the log; its replies come from the state machine.
    ///
    /// # Errors
    /// `Stopped` if Raft has ended.
    pub async fn append(&self, payload: Bytes, proposals: Proposals) -> Result<(), RequestError> {
        let data = LogData::proposed(payload, proposals);
        self.raft.client_write_ff(data, None).await.map_err(|_| RequestError::Stopped)
    }

    /// Confirms leadership with a quorum and waits until everything committed before is applied.
    ///
    /// # Errors
    /// `NoLeader` if this member doesn't lead or can't reach a quorum, `Stopped` if Raft has ended.
    pub async fn confirm_read(&self) -> Result<(), RequestError> {
        match self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(_)) => Err(RequestError::NoLeader),
            Err(RaftError::Fatal(_)) => Err(RequestError::Stopped),
        }
    }

    /// Waits until this member can serve linearizable requests.
    ///
    /// # Errors
    /// `Stopped` if Raft ended while waiting.
    pub async fn ready(&self) -> Result<(), RequestError> {
        loop {
            match self.confirm_read().await {
                Ok(()) => break,
                Err(RequestError::Stopped) => return Err(RequestError::Stopped),
                // No leader yet: an election is under way.
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
        let metrics = self.raft.server_metrics().borrow_watched().clone();
        update(&self.status, &metrics);
        let sole = metrics.membership_config.membership().voter_ids().eq([self.status.member().get()]);
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

    /// The members, by id, with whether each is a learner.
    pub fn members(&self) -> Vec<(MemberId, PeerNode, bool)> {
        let metrics = self.raft.server_metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let voters: Vec<_> = membership.voter_ids().collect();
        let member = |(id, node): (&u64, &PeerNode)| (MemberId(*id), node.clone(), !voters.contains(id));
        membership.nodes().map(member).collect()
    }

    /// Ends Raft in order; what was appended is on disk already.
    pub async fn shutdown(&self) -> io::Result<()> {
        self.status.set_stopped();
        self.raft.shutdown().await.map_err(|error| io::Error::other(error.to_string()))
    }
}

fn raft_config(config: &NodeConfig) -> Config {
    let heartbeat_ms = u64::try_from(config.heartbeat.as_millis()).unwrap_or(u64::MAX).max(1);
    let election_ms = u64::try_from(config.election_timeout.as_millis()).unwrap_or(u64::MAX).max(2);
    Config {
        cluster_name: "rusd".to_owned(),
        heartbeat_interval: heartbeat_ms,
        election_timeout_min: election_ms,
        election_timeout_max: election_ms.saturating_mul(2),
        // We decide on snapshots ourselves, by bytes and not by entries.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: 10_000,
        purge_batch_size: 1,
        enable_pre_vote: Some(true),
        ..Config::default()
    }
}

/// Keeps `status` in step with Raft, and reports when Raft ends by itself.
async fn watch_raft(raft: Raft, status: Arc<NodeStatus>, failed: watch::Sender<Option<String>>) {
    let mut metrics = raft.metrics();
    loop {
        {
            let seen = metrics.borrow_watched();
            status.set_term(Term(seen.current_term));
            status.set_leader(seen.current_leader.map(MemberId));
            if let Some(id) = &seen.local_committed {
                status.set_committed(to_raft(id.index));
            }
            if seen.current_leader != Some(seen.id) {
                status.set_sole_leader(false);
            }
            status.set_learner(!seen.membership_config.membership().voter_ids().any(|id| id == seen.id));
            if let Err(fatal) = &seen.running_state {
                let orderly = status.is_stopped();
                status.set_stopped();
                if !orderly {
                    failed.send_replace(Some(fatal.to_string()));
                }
                return;
            }
        }
        if metrics.changed().await.is_err() {
            let orderly = status.is_stopped();
            status.set_stopped();
            if !orderly {
                failed.send_replace(Some("raft ended".to_owned()));
            }
            return;
        }
    }
}

fn update(status: &NodeStatus, metrics: &openraft::metrics::RaftServerMetrics<TypeConfig>) {
    status.set_leader(metrics.current_leader.map(MemberId));
    status.set_term(Term(metrics.vote.leader_id.term));
}
