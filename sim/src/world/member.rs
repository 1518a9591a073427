//! One boot of a member: the real log, consensus, machine, store, proposer, lease keeper and watch hub, opened
//! from what the disk holds and run until something ends it.
//!
//! ```text
//! disk ─► Wal::open, Store::open ─► (gap? newest snapshot) ─► Machine ─► Node ─► Proposer ─► ready ─► door
//!           └────────────── a part reports its end ─► the boot ends, the driver starts the next ◄─┘
//! ```

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rusd::apply::{AlarmKind, AlarmOp, Command, Machine as StateTables};
use rusd::consensus::peer::{PeerOptions, Peers};
use rusd::consensus::{
    LogCache, LogStore, MEMBERSHIP_KEY, MemberChange, MemberRules, Node, NodeConfig, NodeStatus, OnApply, OnPublish,
    Save, SavedSnapshot, Snapshots, StateMachine, Waiters,
};
use rusd::env::{Env, SeededRng};
use rusd::lease::Lessor;
use rusd::propose::{LeaseKeeper, Leases, ProposeLimits, Proposer};
use rusd::server::parts;
use rusd::storage::backend::Engine;
use rusd::storage::compaction::{ReclaimOptions, Reclaimer};
use rusd::storage::values::Health;
use rusd::storage::{Disk, EventBatch, RangeQuery, Store, StoreConfig, StoreReader, snapshot};
use rusd::types::{ClusterId, EventKind, KeyRange, Limits, MemberId, RaftIndex, RequestError, StorageError};
use rusd::wal::{Wal, WalOptions};
use rusd::watch::{WatchHub, WatchLimits};
use rusd_sim::check::members::Published;
use rusd_sim::ledger::{Change, Kv};
use tokio::sync::mpsc;

use super::clock::SimClock;
use super::door::Door;
use super::net::{self, Wire};
use super::spawn::SimSpawn;
use super::{Host, Machine, World};

const LOG_DIR: &str = "/member/wal";
const SNAPSHOT_DIR: &str = "/member/snap";
const STORE_DIR: &str = "/member/store";

/// Small, so that a run comes to the ends of several files.
const SEGMENT_BYTES: u32 = 64 * 1024;
/// Entries between two snapshots, and entries that stay behind one.
const SNAPSHOT_ENTRIES: u64 = 150;
const KEEP_ENTRIES: u64 = 40;

pub(crate) const HEARTBEAT: Duration = Duration::from_millis(100);
/// The shorter of two: half of the runs have twice this, which is `--election-timeout`'s default.
pub(crate) const ELECTION: Duration = Duration::from_millis(500);
/// How long a request may wait.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

type Ended = Box<dyn std::error::Error + Send + Sync>;

/// Why a member ended that was removed.
pub(crate) const REMOVED: &str = "it was removed from the cluster";

/// One life of a member.
pub(crate) struct Life {
    pub(crate) id: MemberId,
    pub(crate) machine: Arc<Machine>,
    pub(crate) boot: u64,
    pub(crate) seed: u64,
}

/// The id of the first member at a place.
pub(crate) fn id_of(at: usize) -> MemberId {
    MemberId(at as u64 + 1)
}

/// Runs one boot; the reason of its end is left with the host.
pub(crate) async fn run(world: Arc<World>, host: Arc<Host>, life: Life, wire: Wire) {
    let seed = life.seed;
    let ended = match rusd::consensus::seeded(seed, serve(world.clone(), host.clone(), life, wire)).await {
        Ok(why) => why,
        Err(error) => format!("did not start: {error}"),
    };
    world.note(format_args!("{} ended: {ended}", host.name));
    *host.port.lock() = None;
    *host.ended.lock() = Some(ended);
}

async fn serve(world: Arc<World>, host: Arc<Host>, life: Life, wire: Wire) -> Result<String, Ended> {
    let Life { id, machine: disks, boot, seed } = life;
    let spawn = SimSpawn::new(disks.disk.clone());
    let env = Env {
        disk: Arc::new(disks.disk.clone()),
        clock: Arc::new(SimClock { world: world.clone(), member: host.at }),
        rng: Arc::new(SeededRng::new(seed)),
        spawn: Arc::new(spawn.clone()),
    };
    for dir in [LOG_DIR, SNAPSHOT_DIR, STORE_DIR] {
        env.disk.create_dir_all(Path::new(dir))?;
    }
    let snapshot_dir = Path::new(SNAPSHOT_DIR);
    let options = WalOptions { segment_bytes: SEGMENT_BYTES, cache_bytes: 64 << 10, ..WalOptions::default() };
    let (wal, recovered) = Wal::open(env.clone(), Path::new(LOG_DIR), options)?;
    let wal = Arc::new(wal);
    let mut config = StoreConfig::new(Engine::Memory(disks.image.clone()), STORE_DIR);
    config.values.cache_bytes = 4 << 20;
    let (mut store, mut opened) = Store::open(&env, config)?;
    let purged = recovered.purged.map_or(RaftIndex(0), |id| id.index);
    if opened.position.index < purged
        && let Some(rebuilt) = parts::from_snapshot(&env, &mut store, snapshot_dir)?
    {
        opened = rebuilt;
    }
    let have = opened.position.index;
    parts::finish_received(&env, snapshot_dir, have)?;
    let newest = parts::newest(&env, snapshot_dir)?;
    let newest_index = newest.as_ref().map_or(RaftIndex(0), |newest| newest.position.index);
    if have < purged {
        return Err(format!("the store stands at {have} and the log begins after {purged}").into());
    }
    if parts::is_log_lost(have, newest_index, disks.has_served.load(Ordering::Relaxed), &recovered) {
        // Never silent: this disk loses only what wasn't synced, so nothing may be missing.
        world.fault(format!("{}: the log is lost: store {have}, snapshot {newest_index}, {recovered:?}", host.name));
    }

    let (leases, lessor) = Lessor::new(env.clock.now());
    let machine = StateTables::open(store, &opened, leases)?;
    let (reader, alarms, auth) = (machine.reader(), machine.alarms(), machine.auth());
    let limits = WatchLimits { stream_bytes_max: 8 << 10, ..WatchLimits::new(&Limits::default(), PROGRESS) };
    let hub = WatchHub::new(reader.clone(), limits);
    let status = Arc::new(NodeStatus::new(id));
    let cache = Arc::new(LogCache::default());
    let save = saver(env.clone(), reader.clone(), spawn);
    let snapshots = Snapshots::new(save, parts::load(env.clone()), parts::reaching(newest, purged))?;
    let membership = opened.meta.iter().find(|(key, _)| key == MEMBERSHIP_KEY).map(|(_, value)| value);
    let waiters = Arc::new(Waiters::new(REQUEST_TIMEOUT));
    let revision = AtomicI64::new(reader.snapshot().revision());
    let ears = Ears { world: world.clone(), host: host.clone(), boot, reader: reader.clone(), revision };
    let state = StateMachine::new(
        machine,
        opened.position,
        membership.map(AsRef::as_ref),
        on_publish(ears, hub.clone(), lessor.clone(), env.clone()),
        cache.clone(),
        status.clone(),
        snapshots.clone(),
    )?
    .tracing(seed)?
    .forwarding(waiters.clone())
    .timed(env.clock.clone(), on_apply(world.clone()));
    let log = LogStore::new(wal.clone(), recovered.vote.as_deref(), cache, status.clone())?;
    let first = world.hosts.iter().take(world.settings.members);
    let first = first.map(|host| (id_of(host.at), net::peer_node(&host.name)));
    let config = NodeConfig {
        lease_reads: world.lease_reads,
        member: id,
        initial: if disks.joins { BTreeMap::new() } else { first.collect() },
        heartbeat: HEARTBEAT,
        election_timeout: world.election,
        members: MemberRules { strict: world.settings.seed.is_multiple_of(2), ..MemberRules::default() },
    };
    let options = PeerOptions {
        cluster: ClusterId(7),
        member: id,
        election_timeout: world.election,
        message_bytes_max: 32 << 20,
        snapshot_dir: snapshot_dir.to_owned(),
    };
    let peers = Peers::new(options, env.clone(), Arc::new(wire.clone()));
    let node = Node::start(config, log, state, status.clone(), peers.clone()).await?;
    let limits = ProposeLimits { timeout: REQUEST_TIMEOUT, ..ProposeLimits::default() };
    let proposer = Proposer::start(node.clone(), limits, env.clone(), waiters);
    let renewals = Leases::new(lessor.clone(), proposer.clone(), env.clone());
    net::serve(&wire, parts::peer_door(&node, &peers, renewals.clone()))?;

    // All of these end with the boot's runtime.
    LeaseKeeper::new(lessor.clone(), proposer.clone(), env.clone(), world.election).spawn();
    let stepper = node.clone();
    let step = move |records_max| {
        let node = stepper.clone();
        async move {
            let step = move |state: &mut StateMachine| state.machine_mut().store_mut().compact_step(records_max);
            node.with_machine(step).await.ok()
        }
    };
    let reclaim = ReclaimOptions { batch_limit: 100, sleep_interval: Duration::from_millis(20) };
    Reclaimer::new(reader.clone(), reclaim).run(step);
    parts::upkeep(node.clone(), snapshots, reader.clone(), SNAPSHOT_ENTRIES, KEEP_ENTRIES, wal.clone());
    tokio::spawn(watch_leadership(world.clone(), host.clone(), status));

    let (port, requests) = mpsc::unbounded_channel();
    *host.port.lock() = Some(port);
    parts::comparer(node.clone(), proposer.clone(), alarms, auth);
    tokio::spawn(publish(node.clone(), host.name.clone(), disks));
    let door = Door { world, member: host.at, env, proposer, reader: reader.clone(), lessor, renewals, hub };
    tokio::spawn(door.serve(requests));
    Ok(tokio::select! {
        biased;
        why = below_ended(&wal, &reader, &node) => why,
        () = parts::removed(&node) => REMOVED.to_owned(),
    })
}

/// Tells the cluster that this member has started, as the server does.
async fn publish(node: Node, name: String, machine: Arc<Machine>) {
    if node.ready().await.is_err() {
        return;
    }
    machine.has_served.store(true, Ordering::Relaxed);
    let id = node.status().member();
    let change = MemberChange::Publish { id, name, client_urls: Vec::new() };
    while !matches!(node.request_change(change.clone()).await, Ok(_) | Err(RequestError::Stopped)) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Between two answers of a watcher that has nothing to tell.
const PROGRESS: Duration = Duration::from_millis(700);

/// Waits for the end of a part without which a member can't go on.
async fn below_ended(wal: &Wal, reader: &StoreReader, node: &Node) -> String {
    let (mut log, mut store, mut raft) = (wal.fatal(), reader.values().health(), node.fatal());
    tokio::select! {
        biased;
        failed = log.wait_for(Option::is_some) => format!("log: {:?}", failed.map(|failed| failed.clone())),
        failed = store.wait_for(|health| matches!(health, Health::Failed(_))) =>
            format!("store: {:?}", failed.map(|failed| failed.clone())),
        failed = raft.wait_for(Option::is_some) => format!("raft: {:?}", failed.map(|failed| failed.clone())),
    }
}

/// Writes snapshots as the server does, but steps the store's worker where the server waits for its thread.
fn saver(env: Env, reader: StoreReader, spawn: SimSpawn) -> Save {
    Box::new(move || {
        let pinned = reader.snapshot_pinned();
        let stuck = || StorageError::Closed("the store's worker doesn't freeze".into());
        let frozen = spawn.run_for("store", reader.values().freeze()).ok_or_else(stuck)??;
        let path = parts::snapshot_path(Path::new(SNAPSHOT_DIR), frozen.position.index);
        let (header, _) = snapshot::save_snapshot(&env, &frozen, reader.values(), &path)?;
        drop(pinned);
        Ok(SavedSnapshot { position: header.position, membership: header.membership, path })
    })
}

/// What hears of every publish first.
struct Ears {
    world: Arc<World>,
    host: Arc<Host>,
    boot: u64,
    reader: StoreReader,
    /// The last one heard of.
    revision: AtomicI64,
}

impl Ears {
    fn hear(&self, batch: Option<&EventBatch>) {
        // Without events only a snapshot brings a member forward.
        let revision = self.reader.snapshot().revision();
        if self.revision.swap(revision, Ordering::Relaxed) < revision && batch.is_none() {
            self.installed();
        }
        let mut blocks: Vec<(i64, Vec<Change>)> = Vec::new();
        for entry in batch.iter().flat_map(|batch| &batch.events) {
            let (event, revision) = (&entry.event, entry.event.revision.main);
            let change = match event.kind {
                EventKind::Put => Change::Put(kv_of(&event.kv)),
                EventKind::Delete => Change::Delete(event.kv.key.clone()),
            };
            match blocks.last_mut().filter(|(last, _)| *last == revision) {
                Some((_, changes)) => changes.push(change),
                None => blocks.push((revision, vec![change])),
            }
        }
        let shown = self.reader.snapshot();
        let (digest, beside) = (shown.digest(), shown.digest_beside_keys());
        let state = Published { index: shown.position().index.get(), revision: shown.revision(), digest, beside };
        self.world.published(&self.host, self.boot, blocks, state);
    }
}

impl Ears {
    /// A snapshot was put in place of everything: it must be what the ledger has at its revision, key for key.
    fn installed(&self) {
        let query = RangeQuery::latest(KeyRange::prefix(Bytes::new()));
        let found = match self.reader.range(&query, Disk::Allowed) {
            Ok(found) => found,
            Err(error) => return self.world.fault(format!("a snapshot can't be read: {error:?}")),
        };
        let kvs: Vec<Kv> = found.value.kvs.iter().map(kv_of).collect();
        self.world.note(format_args!("{} installs a snapshot at {}", self.host.name, found.revision));
        let mut known = self.world.known.lock();
        known.installs += 1;
        let expected = known.ledger.range_at(b"", found.revision);
        if !kvs.iter().eq(expected) {
            let fault = format!("{} installs a snapshot at {} that has {kvs:?}", self.host.name, found.revision);
            known.faults.push(fault);
        }
    }
}

/// A pair as the ledger keeps it.
pub(crate) fn kv_of(kv: &rusd::types::KeyValue) -> Kv {
    Kv {
        key: kv.key.clone(),
        value: kv.value.clone(),
        create: kv.create_revision,
        modified: kv.mod_revision,
        version: kv.version,
        lease: kv.lease.get(),
    }
}

fn on_publish(ears: Ears, hub: WatchHub, lessor: Arc<Lessor>, env: Env) -> OnPublish {
    Box::new(move |batch, revision| {
        ears.hear(batch.as_deref());
        hub.notify(batch, revision);
        lessor.arm(env.clock.now());
    })
}

fn on_apply(world: Arc<World>) -> OnApply {
    Box::new(move |commands, _, _| {
        for command in commands {
            let now = world.now();
            let mut known = world.known.lock();
            if let Command::Alarm(AlarmOp { activate: true, kind: Some(AlarmKind::Corrupt), member }) = command {
                known.faults.push(format!("member {member} is said to be corrupt"));
            }
            match command {
                Command::LeaseGrant { id, .. } => known.lives.grant(id.get(), now),
                Command::LeaseRevoke { id } => known.lives.end(id.get(), now),
                Command::LeaseExpire { ids } => {
                    for id in ids {
                        known.expiries.entry(id.get()).or_insert(now);
                        known.lives.end(id.get(), now);
                    }
                }
                Command::Compact { revision } => known.lives.compact(*revision),
                _ => {}
            }
        }
    })
}

/// Says whom this member takes for the leader in which term, if it is itself.
async fn watch_leadership(world: Arc<World>, host: Arc<Host>, status: Arc<NodeStatus>) {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let mut last = 0;
    loop {
        tick.tick().await;
        let term = status.term().get();
        if let Some(index) = status.diverged() {
            world.fault(format!("{} was found to differ at entry {index}", host.name));
        }
        if status.is_leader() && term != last {
            last = term;
            world.note(format_args!("{} leads in term {term}", host.name));
            let now = world.now();
            let mut known = world.known.lock();
            known.lives.lead(now);
            let led = known.members.leads(host.at, term);
            drop(known);
            if let Err(fault) = led {
                world.fault(fault);
            }
        }
    }
}
