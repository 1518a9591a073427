//! Everything below the API, started in the order in which it depends on each other and ended in
//! the reverse.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::answers::Answers;
use super::compare::Comparer;
use super::disk::DiskWatch;
use super::door::Door;
use super::ends::{asked, below_ended, raft_ended, removed};
use super::gauges::{self, Sources};
use super::heal::{self, Healer, streams_end};
use super::maintain::Keeper;
use super::marks::{Marks, OnDisk};
use super::meters::{self, CompactionMeter, EngineMeter, LogMeter};
use super::open::{self, Opening};
use super::peer_port::PeerPort;
use super::room::{Place, Room};
use super::scrub::{Care, Scrub, StoreScrub};
use super::turns::Turns;
use super::upkeep::{SnapshotPolicy, Upkeep};
use super::{ServerError, Stopped, limits, publish, rebuild, tokens};
use crate::api::watch::{WatchService, end_streams_without_leader};
use crate::api::{Authentication, Budgets, Listener, NodeInfo, RpcMetrics, Services, SlowLog};
use crate::apply::{AlarmView, Command, Machine};
use crate::auth::{AuthView, IssuedTokens, Jwt};
use crate::consensus::peer::{PeerOptions, Peers, SocketDial};
use crate::consensus::{
    self, LogCache, LogStore, MEMBERSHIP_KEY, MemberRules, Node, NodeConfig, NodeStatus, OnPublish, PeerNode, Save,
    Snapshots, StateMachine, Waiters,
};
use crate::discovery;
use crate::env::Env;
use crate::lease::Lessor;
use crate::ops::config::{AutoCompaction, Config, MetricsDetail, Url};
use crate::ops::data_dir::DataDir;
use crate::ops::identity::{Identity, member_id};
use crate::ops::logging::SERVING_PEERS;
use crate::ops::metrics::{Figure, Metrics};
use crate::ops::signals::Signal;
use crate::ops::traces::Traces;
use crate::propose::{LeaseKeeper, Leases, ProposeLimits, Proposer};
use crate::storage::StoreReader;
use crate::storage::compaction::{self, AutoCompactor, ReclaimOptions, Reclaimer};
use crate::storage::values::Health;
use crate::tls::Connector;
use crate::types::{Limits, MemberId, RaftIndex};
use crate::wal::Wal;
use crate::watch::{Confirm, HeaderIds, HeaderSource, WatchHub, WatchLimits};

/// Answers to large reads that are held in memory at a time.
const LARGE_READS_MAX: usize = 4;
/// How long a member of a cluster waits for it before it serves clients; etcd's default.
const CLUSTER_READY_MAX: Duration = Duration::from_secs(5);
/// How long a leader that ends writes down what leases have left before it hands over; those that it doesn't come to
/// have their full time, as after a crash.
const CHECKPOINT_MAX: Duration = Duration::from_millis(200);
/// How long a leader that ends waits until another member leads, at least and at most: in between as long as
/// `--election-timeout`, for that is what everybody waits if nobody takes over. It is divided among the other voters: one
/// that is still at it when the next one is asked costs a term, and a moment without a leader, more.
const HAND_OVER: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(5)];
/// How long the parts get to end after the listeners have.
const STOP_MAX: Duration = Duration::from_secs(5);

/// A running member without its listeners.
pub(super) struct Core {
    pub(super) node: Node,
    pub(super) hub: WatchHub,
    proposer: Proposer,
    leases: Leases,
    reader: StoreReader,
    snapshots: Arc<Snapshots>,
    lessor: Arc<Lessor>,
    alarms: AlarmView,
    auth: AuthView,
    issued: Arc<IssuedTokens>,
    limits: Limits,
    budgets: Budgets,
    wal: Arc<Wal>,
    room: Room,
    peer_port: PeerPort,
    /// This member had been removed before this start.
    removed_before: bool,
    /// `--election-timeout`.
    election_timeout: Duration,
    /// Becomes true when a state that differs can be replaced, which is a start's work.
    restart: watch::Sender<bool>,
    workers: Vec<JoinHandle<()>>,
}

/// Beyond a batch of the largest request: what an entry and a message of entries take besides.
const PEER_MESSAGE_BYTES: usize = 32 << 20;

fn member_rules(config: &Config) -> MemberRules {
    MemberRules {
        strict: config.clustering.strict_reconfig_check,
        learners_max: config.clustering.max_learners,
        auto_promote: config.clustering.auto_promote_learners,
        timeout: config.limits().request_timeout,
    }
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(ToString::to_string).collect()
}

/// The members of the cluster that a first start makes: what the flags say, the same on all of them.
pub(super) fn initial(config: &Config) -> BTreeMap<MemberId, PeerNode> {
    let alone = config.clustering.initial_cluster.len() == 1;
    let member = |(name, urls): (&str, &[Url])| {
        let id = member_id(urls, &config.clustering.initial_cluster_token, None);
        // The others tell theirs once they have started.
        let client_urls = if alone { texts(&config.clustering.advertise_client_urls) } else { Vec::new() };
        (id, PeerNode { name: name.to_owned(), peer_urls: texts(urls), client_urls, wants_vote: false })
    };
    config.clustering.initial_cluster.iter().map(member).collect()
}

/// Whether the cluster that a blank log is about to begin is the one that the directory was made for. A log that isn't
/// blank says who the members are, and the flags don't matter; this one has nothing else to go by.
fn begins_as_made(config: &Config, data: &DataDir) -> Result<(), ServerError> {
    let root = data.root().display();
    if !data.is_fresh() && discovery::is_asked(config) {
        return Err(ServerError::Fatal(format!(
            "the first start found its cluster by discovery and didn't come to begin it: remove {root} and start again"
        )));
    }
    if Identity::bootstrap(config) != data.identity() {
        return Err(ServerError::Fatal(format!(
            "{root} was made for another cluster than --initial-cluster={} with this name and token, and the first start \
             didn't come to begin it: type what was typed then, or remove the directory and start again",
            config.clustering.initial_cluster
        )));
    }
    Ok(())
}

impl Core {
    /// Opens the data, starts Raft and the workers, serves the other members on `peer_listeners`, and waits until
    /// this member can serve clients. Members at `https` URLs are reached by `connector`.
    pub(super) async fn start(
        config: &Arc<Config>,
        data: &Arc<DataDir>,
        env: &Env,
        metrics: &Arc<Metrics>,
        peer_listeners: Vec<Listener>,
        connector: Option<Connector>,
    ) -> Result<Self, ServerError> {
        let log_meter = Arc::new(LogMeter::new(metrics.clone()));
        let engine_meter = Arc::new(EngineMeter(metrics.clone()));
        let limits = config.limits();
        let budgets = Budgets::new(&limits);
        let (leases, lessor) = Lessor::new(env.clock.now());
        let open = {
            let (env, config, data, log) = (env.clone(), config.clone(), data.clone(), log_meter.clone());
            move || -> Result<_, ServerError> {
                let Opening { store, opened, wal, recovered } = open::open(&env, &config, &data, log, engine_meter)?;
                let machine = Machine::open(store, &opened, leases)?;
                let newest = rebuild::newest(&env, &data.snapshots()).map_err(open::OpenError::Store)?;
                let newest = rebuild::reaching(newest, wal.purged().map_or(RaftIndex(0), |id| id.index));
                Ok((machine, opened, wal, recovered, newest))
            }
        };
        // Reads whole files; a signal must be heard meanwhile.
        let opened = tokio::task::spawn_blocking(open).await;
        let (machine, opened, wal, recovered, newest) =
            opened.map_err(|error| ServerError::Fatal(format!("opening the data: {error}")))??;
        let is_blank = recovered.vote.is_none() && recovered.last.is_none();
        if is_blank && !data.has_joined() {
            begins_as_made(config, data)?;
        }
        let behind_bytes = wal.bytes_after(newest.as_ref().map_or(RaftIndex(0), |newest| newest.position.index));
        let reader = machine.reader();
        let alarms = machine.alarms();
        let (auth, issued) = (machine.auth(), machine.tokens());
        issued.forget_until(recovered.last.map_or(RaftIndex(0), |last| last.index));
        let hub =
            WatchHub::new(reader.clone(), WatchLimits::new(&limits, config.features.watch_progress_notify_interval));
        let status = Arc::new(NodeStatus::new(data.identity().member));
        let streams = hub.clone();
        status.when_diverged(move || streams.end_all(&streams_end()));
        // Others may tell it as soon as the peer port is open, so the status may soon say more than the disk.
        let forced = config.features.force_new_cluster && !data.is_fresh();
        let noted = data.divergence(env.disk.as_ref())?.map(|mark| mark.index).filter(|_| !forced);
        if let Some(index) = noted {
            status.set_diverged(index);
        }
        let cache = Arc::new(LogCache::default());
        let snapshots = Snapshots::new(
            timed_save(reader.clone(), data.snapshots(), env, metrics),
            rebuild::load(env.clone()),
            newest,
        )?;
        let membership = opened.meta.iter().find(|(key, _)| key == MEMBERSHIP_KEY).map(|(_, value)| value);
        let waiters = Arc::new(Waiters::new(limits.request_timeout));
        let state = StateMachine::new(
            machine,
            opened.position,
            membership.map(AsRef::as_ref),
            notifier(hub.clone(), lessor.clone(), env.clone()),
            cache.clone(),
            status.clone(),
            snapshots.clone(),
        )?
        .tracing(env.rng.next_u64())?
        .forwarding(waiters.clone())
        .holding(budgets.answers.clone())
        .timed(
            env.clock.clone(),
            meters::on_apply(metrics.clone(), config.logging.warning_apply_duration, env.clock.clone()),
        )
        .published(meters::on_published(metrics.clone()));
        if forced {
            let told = &config.clustering.initial_advertise_peer_urls;
            // Later starts may leave the flag out.
            let is_told = *told != Config::default().clustering.initial_advertise_peer_urls;
            let own = PeerNode { name: config.member.name.clone(), peer_urls: texts(told), ..PeerNode::default() };
            let stored = membership.map(AsRef::as_ref);
            consensus::force_alone(&wal, data.identity().member, stored, own, is_told).await?;
            heal::settle(env.disk.as_ref(), data)?;
        }
        let disk = env.disk.clone();
        let marks = Arc::new(Marks::new(status.clone(), OnDisk { data: data.clone(), disk }, noted.is_some()));
        let log =
            LogStore::new(wal.clone(), recovered.vote.as_deref(), cache, status.clone())?.timed(env.clock.clone());
        let node_config = NodeConfig {
            member: data.identity().member,
            initial: if data.has_joined() { BTreeMap::new() } else { initial(config) },
            heartbeat: config.member.heartbeat_interval,
            election_timeout: config.member.election_timeout,
            members: member_rules(config),
            lease_reads: config.clustering.lease_reads,
        };
        let peers = Peers::new(
            PeerOptions {
                cluster: data.identity().cluster,
                member: data.identity().member,
                election_timeout: config.member.election_timeout,
                message_bytes_max: limits.request_bytes_max.saturating_add(PEER_MESSAGE_BYTES),
                snapshot_dir: data.snapshots(),
            },
            env.clone(),
            Arc::new(SocketDial::new(connector)),
        )
        .metered(meters::peers(metrics.clone()));
        // A disk that is full or fails keeps both of these waiting, and only log and store know why.
        let node = tokio::select! {
            biased;
            error = below_ended(&wal, &reader) => return Err(error),
            node = Node::start(node_config, log, state, status.clone(), peers.clone()) => node?,
        };
        // Before anybody can ask for a vote: a member whose log is lost later must know that there was one.
        if status.has_log() {
            data.mark_served(env.disk.as_ref())?;
        }
        let propose_limits = ProposeLimits {
            pending_max: limits.proposals_pending_max,
            pending_bytes_max: limits.requests_pending_bytes_max,
            timeout: limits.request_timeout,
            ..ProposeLimits::default()
        };
        let proposer = Proposer::start(node.clone(), propose_limits, env.clone(), waiters);
        let leases = Leases::new(lessor.clone(), proposer.clone(), env.clone());
        let turns = Arc::new(Turns::new(node.clone(), alarms.clone(), config.member.election_timeout));
        let answers = Answers { leases: leases.clone(), marks: marks.clone(), turns };
        let peer_port = PeerPort::open(peer_listeners, limits::Files::of_process().peers(), &node, &peers, answers);
        for url in &config.member.listen_peer_urls {
            tracing::info!(address = url.address(), "{SERVING_PEERS}");
        }
        // Alone, a member that isn't ready is of no use to anybody; in a cluster it may be what others wait for.
        let ready_max = if node.members().len() <= 1 { Duration::MAX } else { CLUSTER_READY_MAX };
        let mut removed_before = false;
        tokio::select! {
            biased;
            error = below_ended(&wal, &reader) => return Err(error),
            // It is noticed again, and then the member ends in order. One to which a leader spoke was removed since.
            () = removed(&node) => removed_before = !node.status().has_heard_leader(),
            ready = tokio::time::timeout(ready_max, publish::ready(&node, config)) => match ready {
                // What was given out while this member was away would be good for longer here than elsewhere.
                Ok(Ok(())) => issued.forget_until(node.status().applied()),
                Ok(Err(_)) => return Err(raft_ended(&node).await),
                Err(_) => tracing::warn!(
                    waited = ?ready_max, "the cluster has no leader yet; clients are served and will be told so"
                ),
            }
        }
        // With other members the keeper starts the clocks, once it is sure to lead.
        if node.status().is_sole_leader() {
            lessor.promote(env.clock.now(), config.member.election_timeout);
        }
        let care = Arc::new(Care::default());
        let compaction = Arc::new(CompactionMeter::new(metrics.clone()));
        let sources = Sources {
            status,
            proposer: proposer.clone(),
            reader: reader.clone(),
            hub: hub.clone(),
            lessor: lessor.clone(),
            auth: auth.clone(),
            alarms: alarms.clone(),
            limits: limits.clone(),
            log: log_meter.clone(),
            wal: wal.clone(),
            compaction: compaction.clone(),
            care: care.clone(),
        };
        let known = node.clone();
        metrics.peers.sample_members(move || known.members().into_iter().map(|member| member.id).collect());
        gauges::connect(metrics, sources);
        let values = reader.values().clone();
        let never = Box::new(|| false);
        let log = Place { dir: data.wal().to_owned(), waiting_bytes: Box::new(|| 0), is_refused: never };
        let health = values.health();
        let is_refused = Box::new(move || matches!(*health.borrow(), Health::Waiting(_)));
        let store = Place { dir: data.store(), waiting_bytes: Box::new(move || values.memory().0), is_refused };
        let (room, watching) = Room::watch(env.clone(), vec![log, store]);
        let full = room.clone();
        metrics.sample(Figure::DiskShort, move || f64::from(u8::from(full.is_short())));
        let workers = vec![watching];
        let mut core = Self {
            node,
            hub,
            proposer,
            leases,
            reader,
            snapshots,
            lessor,
            alarms,
            auth,
            issued,
            limits,
            budgets,
            wal,
            room,
            peer_port,
            removed_before,
            election_timeout: config.member.election_timeout,
            restart: watch::Sender::new(false),
            workers,
        };
        core.start_workers(config, env, log_meter, compaction, (data.snapshots(), care.clone()), behind_bytes)?;
        let auth = core.auth.clone();
        let (node, proposer, alarms) = (core.node.clone(), core.proposer.clone(), core.alarms.clone());
        core.workers
            .push(Comparer::new(node.clone(), proposer.clone(), (alarms.clone(), auth.clone()), marks.clone()).spawn());
        let healer = Healer {
            node,
            proposer,
            alarms,
            auth,
            marks,
            data: data.clone(),
            env: env.clone(),
            wal: core.wal.clone(),
            reader: core.reader.clone(),
            care,
            enabled: config.clustering.heal_diverged,
            restart: core.restart.clone(),
        };
        core.workers.push(healer.spawn());
        Ok(core)
    }

    fn start_workers(
        &mut self,
        config: &Config,
        env: &Env,
        log: Arc<LogMeter>,
        meter: Arc<CompactionMeter>,
        (dir, care): (PathBuf, Arc<Care>),
        behind_bytes: u64,
    ) -> Result<(), ServerError> {
        let election = config.member.election_timeout;
        self.workers.push(LeaseKeeper::new(self.lessor.clone(), self.proposer.clone(), env.clone(), election).spawn());
        let leader = self.node.status().clone();
        let has_leader = Arc::new(move || leader.leader().is_some());
        self.workers.push(tokio::spawn(end_streams_without_leader(self.hub.clone(), has_leader, election)));
        let options = ReclaimOptions {
            batch_limit: config.features.compaction_batch_limit,
            sleep_interval: config.features.compaction_sleep_interval,
        };
        let node = self.node.clone();
        let clock = env.clock.clone();
        let step = move |keys_max| {
            let (node, clock, meter) = (node.clone(), clock.clone(), meter.clone());
            async move {
                let step = move |state: &mut StateMachine| {
                    let begun = clock.now();
                    let step = state.machine_mut().store_mut().compact_step(keys_max);
                    meter.step(step, begun, clock.now(), clock.wall());
                    step
                };
                node.with_machine(step).await.ok()
            }
        };
        self.workers.push(Reclaimer::new(self.reader.clone(), options).run(step));
        let mode = match config.auto_compaction()? {
            AutoCompaction::Off => compaction::AutoCompaction::Off,
            AutoCompaction::Periodic(retention) => compaction::AutoCompaction::Periodic(retention),
            AutoCompaction::Revision(keep) => compaction::AutoCompaction::Revision(keep),
        };
        if let Some(auto) = AutoCompactor::new(mode, self.reader.clone()) {
            let status = self.node.status().clone();
            let (proposer, auth) = (self.proposer.clone(), self.auth.clone());
            let propose = move |revision| {
                let proposer = proposer.clone();
                let command = Command::Compact { revision }.by_member(&auth);
                async move { proposer.propose(command).await?.outcome.result.map(drop) }
            };
            self.workers.push(auto.run(move || status.leads_rightly(), propose));
        }
        let ttl = tokens::ttl_of(config.auth.token_ttl);
        self.workers.push(tokens::sweep(env.clone(), self.issued.clone(), ttl));
        let policy = SnapshotPolicy {
            entries_min: config.member.snapshot_count,
            bytes_min: config.engine.snapshot_log_bytes,
            keep_entries: config.member.snapshot_catchup_entries,
        };
        let (node, snapshots, reader) = (self.node.clone(), self.snapshots.clone(), self.reader.clone());
        let disk = DiskWatch {
            node: self.node.clone(),
            wal: self.wal.clone(),
            pace: log.pace.clone(),
            room: self.room.clone(),
            leaves_when_slow: config.clustering.slow_disk_hand_over,
        };
        self.workers.push(disk.spawn());
        self.workers.push(Scrub { wal: self.wal.clone(), care: care.clone() }.spawn());
        let scrub = StoreScrub {
            env: env.clone(),
            reader: self.reader.clone(),
            snapshots: dir,
            care: care.clone(),
            wal: self.wal.clone(),
        };
        self.workers.push(scrub.spawn());
        let upkeep = Upkeep { node, snapshots, reader, policy, behind_bytes, care, wal: self.wal.clone() };
        self.workers.push(upkeep.spawn(move || log.bytes.load(Ordering::Relaxed)));
        Ok(())
    }

    /// What the listeners serve.
    pub(super) fn services(
        &self,
        config: &Config,
        data: &DataDir,
        env: &Env,
        metrics: &Arc<Metrics>,
        signed: Option<Arc<Jwt>>,
        traces: Option<Traces>,
    ) -> Result<Arc<Services>, ServerError> {
        let identity = data.identity();
        let header: HeaderSource = {
            let status = self.node.status().clone();
            Arc::new(move || HeaderIds {
                cluster_id: identity.cluster.get(),
                member_id: identity.member.get(),
                raft_term: status.term().get(),
            })
        };
        let leader = self.node.status().clone();
        let extensive = config.monitoring.metrics == MetricsDetail::Extensive;
        let logging = &config.logging;
        let slow = SlowLog::new(
            logging.warning_unary_request_duration,
            logging.warning_apply_duration,
            metrics.counters.slow_apply.clone(),
        );
        let calls = RpcMetrics::register(metrics.registry(), env.clock.clone(), extensive)?;
        let calls = Arc::new(calls.watched(slow, traces));
        let proposer = self.proposer.clone();
        let confirm: Confirm = Arc::new(move || {
            let proposer = proposer.clone();
            // Without a leader it is answered as far as this member knows.
            async move { drop(proposer.read_barrier().await) }.boxed()
        });
        let watch = WatchService::new(self.hub.clone(), header, self.limits.request_bytes_max)
            .with_leader_check(Arc::new(move || leader.leader().is_some()))
            .with_confirm(confirm)
            .with_metrics(calls.clone());
        let door = Arc::new(Door::new(self.proposer.clone(), self.leases.clone(), self.room.clone()));
        let text = metrics.clone();
        Ok(Arc::new(Services {
            proposer: door.clone(),
            maintain: Arc::new(Keeper::new(env.clone(), self.reader.clone(), door, metrics.clone(), data.snapshots())),
            reader: self.reader.clone(),
            lessor: self.lessor.clone(),
            alarms: self.alarms.clone(),
            auth: Authentication::new(
                self.auth.clone(),
                tokens::tokens(signed, self.issued.clone(), config.auth.token_ttl),
                config.auth.bcrypt_cost,
                config.client_tls.client_cert_auth,
                env.clone(),
            )
            .with_limits(&self.limits),
            watch,
            env: env.clone(),
            info: NodeInfo { cluster_id: identity.cluster, member_id: identity.member },
            limits: self.limits.clone(),
            metrics: calls,
            metrics_text: Arc::new(move || text.encode().unwrap_or_else(|error| format!("# {error}\n"))),
            budgets: self.budgets.clone(),
            large_reads: Arc::new(Semaphore::new(LARGE_READS_MAX)),
        }))
    }

    /// Shows the limits that clients may run into.
    pub(super) fn show_limits(
        &self,
        metrics: &Metrics,
        port: &limits::Port,
        services: &Services,
    ) -> Result<(), ServerError> {
        let (proposer, hub, lessor) = (&self.proposer, &self.hub, &self.lessor);
        limits::show(metrics, port, &limits::Kept { limits: &self.limits, proposer, hub, lessor, services })?;
        Ok(())
    }

    /// Waits for a signal, or for the end of a part without which the server can't go on.
    pub(super) async fn wait(&self, signal: impl Future<Output = Signal>) -> Result<Stopped, ServerError> {
        tokio::select! {
            biased;
            signal = signal => Ok(Stopped::Signal(signal)),
            () = removed(&self.node) => Ok(Stopped::Removed { before: self.removed_before }),
            () = asked(self.restart.subscribe()) => Ok(Stopped::Healing),
            // They say why raft ended, so they are asked first.
            error = below_ended(&self.wal, &self.reader) => Err(error),
            error = raft_ended(&self.node) => Err(error),
        }
    }

    /// Hands the lead over, if there is anybody to take it: writes go on elsewhere while this member, which forwards
    /// what still comes in, ends its connections.
    pub(super) async fn leave(&self, env: &Env) {
        let status = self.node.status();
        if !status.is_leader() || status.is_sole_leader() {
            return;
        }
        let checkpoints = LeaseKeeper::checkpoint_all(&self.lessor, &self.proposer, env);
        if tokio::time::timeout(CHECKPOINT_MAX, checkpoints).await.is_err() {
            tracing::debug!("not all leases were written down before the lead is handed over");
        }
        let limit = self.election_timeout.clamp(HAND_OVER[0], HAND_OVER[1]);
        if let Some(leader) = self.node.hand_over(limit).await {
            tracing::info!(%leader, "handed the lead over");
        }
    }

    /// Ends all of it; `orderly` if it still works. Whether Raft has ended for sure, and does nothing any more.
    pub(super) async fn stop(self, env: &Env, orderly: bool) -> bool {
        for worker in &self.workers {
            worker.abort();
        }
        let stopping = async {
            if orderly {
                if self.node.status().is_sole_leader() {
                    LeaseKeeper::checkpoint_all(&self.lessor, &self.proposer, env).await;
                }
                if let Err(error) = self.reader.values().flush().await {
                    tracing::warn!(%error, "the store was not flushed; the log will bring the rest back");
                }
            }
            let ended = self.node.shutdown().await;
            if let Err(error) = &ended {
                tracing::warn!(%error, "raft did not end in order");
            }
            ended.is_ok()
        };
        let ended = tokio::time::timeout(STOP_MAX, stopping).await.unwrap_or_else(|_| {
            tracing::warn!("gave up waiting for an orderly end; nothing acknowledged is lost");
            false
        });
        self.peer_port.close().await;
        ended
    }
}

/// Writes snapshots below `dir`, with their times noted.
fn timed_save(reader: StoreReader, dir: PathBuf, env: &Env, metrics: &Arc<Metrics>) -> Save {
    let (clock, metrics) = (env.clock.clone(), metrics.clone());
    let noted = metrics.clone();
    let save = rebuild::save_noting(env.clone(), reader, dir, move |times| {
        noted.histograms.snapshot_marshal.observe(times.making.as_secs_f64());
        noted.histograms.snapshot_fsync.observe(times.syncs.as_secs_f64());
    });
    Box::new(move || {
        let begun = clock.now();
        let saved = save()?;
        metrics.histograms.snapshot_save.observe(clock.now().saturating_duration_since(begun).as_secs_f64());
        Ok(saved)
    })
}

/// After each publish: watchers first, then the clocks of new leases.
fn notifier(hub: WatchHub, lessor: Arc<Lessor>, env: Env) -> OnPublish {
    Box::new(move |batch, revision| {
        hub.notify(batch, revision);
        lessor.arm(env.clock.now());
    })
}
