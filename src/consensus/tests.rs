//! openraft's own suite on our log, and a node of one on a disk that forgets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use openraft::EntryPayload;
use openraft::raft::AppendEntriesRequest;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::vote::RaftLeaderId;
use tokio::sync::oneshot;

use super::index::from_raft;
use super::lineage::LINEAGE_KEY;
use super::peer::{NoDial, PeerOptions, Peers};
use super::state_machine::StateMachine;
use super::types::{Entry, LogData, Membership, TypeConfig, Vote, log_id};
use super::*;
use crate::apply::{Command, Machine, Op, Outcome, PutOp, TxnOp, codec};
use crate::env::{CrashStyle, Env, MemDisk};
use crate::lease::Lessor;
use crate::storage::snapshot::SnapshotItem;
use crate::storage::{AppliedPosition, Opened, RangeQuery, Store, StoreReader, Table, snapshot};
use crate::types::{Budget, ClusterId, KeyRange, MemberId, RaftIndex, RequestError, StorageError, Term};
use crate::wal::{Wal, WalOptions};

const DIR: &str = "/member/wal";

pub(super) fn env(disk: &MemDisk) -> Env {
    Env { disk: Arc::new(disk.clone()), ..Env::real() }
}

pub(super) fn options() -> WalOptions {
    WalOptions { segment_bytes: 64 * 1024, ..WalOptions::default() }
}

/// Where snapshots lie: one machine's are installed into another.
static SHARED: LazyLock<MemDisk> = LazyLock::new(MemDisk::new);
static SAVED: AtomicU64 = AtomicU64::new(0);

/// Snapshots as files on a disk.
pub(super) fn snapshots(env: &Env, reader: StoreReader) -> Arc<Snapshots> {
    env.disk.create_dir_all(Path::new("/snap")).expect("a disk in memory");
    let save: Save = {
        let env = env.clone();
        Box::new(move || {
            let frozen = futures::executor::block_on(reader.values().freeze())?;
            let path = PathBuf::from(format!("/snap/{}.snapshot", SAVED.fetch_add(1, Ordering::Relaxed)));
            let (header, _) = snapshot::save_snapshot(&env, &frozen, reader.values(), &path)?;
            Ok(SavedSnapshot { position: header.position, membership: header.membership, path })
        })
    };
    let env = env.clone();
    let load: Load = Box::new(move |store, path| {
        let mut items = Vec::new();
        let input = snapshot::open_snapshot(&env, path)?;
        let keep = |item| {
            items.push(Ok::<_, StorageError>(item));
            Ok(())
        };
        let header = snapshot::read_snapshot(input, keep).map_err(|error| error.at(path))?;
        store.install(header.position, items)
    });
    Snapshots::new(save, load, None).expect("no snapshot to read")
}

/// The log and an empty machine over `disk`, as the server opens them.
fn open(disk: &MemDisk) -> (LogStore, StateMachine, Arc<NodeStatus>) {
    let env = env(disk);
    let (wal, recovered) = Wal::open(env.clone(), Path::new(DIR), options()).expect("the log opens");
    let status = Arc::new(NodeStatus::new(MemberId(1)));
    let cache = Arc::new(LogCache::default());
    let log = LogStore::new(Arc::new(wal), recovered.vote.as_deref(), cache.clone(), status.clone())
        .expect("the vote is ours");
    let (leases, _lessor) = Lessor::new(env.clock.now());
    let machine = Machine::open(Store::in_memory(), &Default::default(), leases).expect("an empty store");
    let publish: OnPublish = Box::new(|_, _| {});
    let position = AppliedPosition::default();
    let snapshots = snapshots(&self::env(&SHARED), machine.reader());
    let machine = StateMachine::new(machine, position, None, publish, cache, status.clone(), snapshots)
        .expect("no membership to read");
    (log, machine, status)
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine> for Builder {
    async fn build(&self) -> Result<((), LogStore, StateMachine), openraft::StorageError<TypeConfig>> {
        // The suite applies what was never in the log: its machine doesn't hear of one.
        let (log, ..) = open(&MemDisk::new());
        let (_, machine, status) = open(&MemDisk::new());
        status.set_logged(Some(RaftIndex(u64::MAX)));
        Ok(((), log, machine))
    }
}

#[tokio::test]
async fn openrafts_log_suite_passes() {
    Suite::test_all(Builder).await.expect("every case of the suite");
}

/// A state that was read in adds a stretch to its lineage, once, also if it is this member's own: see `lineage`.
#[tokio::test]
async fn a_state_that_was_read_in_is_a_stretch_more() {
    let env = env(&MemDisk::new());
    let mut store = Store::in_memory();
    let machine = |store: Store, opened: Opened| {
        let (leases, _lessor) = Lessor::new(env.clock.now());
        let position = opened.position;
        let machine = Machine::open(store, &opened, leases).expect("no rows that matter to it");
        let snapshots = snapshots(&env, machine.reader());
        let status = Arc::new(NodeStatus::new(MemberId(1)));
        let publish: OnPublish = Box::new(|_, _| {});
        let machine = StateMachine::new(machine, position, None, publish, Arc::default(), status.clone(), snapshots);
        (machine.expect("no membership to read"), status)
    };
    let at = |index| AppliedPosition { index: RaftIndex(index), term: Term(1) };
    let row = |store: &Store, key| store.reader().snapshot().rows().get(Table::Meta, key).map(Bytes::copy_from_slice);
    let own = Lineage::default().copied(MemberId(1), 5, RaftIndex(3)).encode();
    let item = |key: &'static [u8], value: Bytes| SnapshotItem::Row(Table::Meta, Bytes::from_static(key), value);
    let items = [item(LINEAGE_KEY, own), item(COPIED_KEY, Bytes::from_static(b"1"))];
    let opened = store.install::<StorageError>(at(40), items.into_iter().map(Ok)).expect("installed");
    let (mut first, status) = {
        let (machine, status) = machine(store, opened);
        (machine.tracing(8).expect("noted"), status)
    };
    assert_eq!((status.lineage().since(), status.lineage().copied_from()), (RaftIndex(40), Some(MemberId(1))));
    let store = first.machine_mut().store_mut();
    assert_eq!(row(store, COPIED_KEY), None);
    assert_eq!(row(store, LINEAGE_KEY), Some(status.lineage().encode()));
    // A start that finds it as it is adds none.
    let items = [item(LINEAGE_KEY, status.lineage().encode())];
    let mut again = Store::in_memory();
    let opened = again.install::<StorageError>(at(50), items.into_iter().map(Ok)).expect("installed");
    let (second, started) = machine(again, opened);
    second.tracing(9).expect("noted");
    assert_eq!(started.lineage(), status.lineage());
}

pub(super) fn config() -> NodeConfig {
    NodeConfig {
        lease_reads: false,
        member: MemberId(1),
        initial: BTreeMap::from([(MemberId(1), PeerNode { name: "one".into(), ..PeerNode::default() })]),
        heartbeat: Duration::from_millis(100),
        election_timeout: Duration::from_millis(1000),
        members: MemberRules::default(),
    }
}

/// No other members.
pub(super) fn nobody() -> Peers {
    let options = PeerOptions {
        cluster: ClusterId(1),
        member: MemberId(1),
        election_timeout: Duration::from_secs(1),
        message_bytes_max: 1 << 20,
        snapshot_dir: "/snap".into(),
    };
    Peers::new(options, env(&MemDisk::new()), Arc::new(NoDial))
}

pub(crate) async fn start(disk: &MemDisk) -> Node {
    let (log, machine, status) = open(disk);
    let node = Node::start(config(), log, machine, status, nobody()).await.expect("the node starts");
    node.ready().await.expect("a leader of one");
    node
}

pub(super) async fn put(node: &Node, key: &str) -> Result<Applied, RequestError> {
    let commands = vec![Command::Put(PutOp { key: Bytes::copy_from_slice(key.as_bytes()), ..PutOp::default() })];
    let mut payload = BytesMut::new();
    codec::encode_batch(&commands, &mut payload);
    let (reply, answer) = oneshot::channel();
    node.append(payload.freeze(), Proposals { commands, replies: vec![reply], ..Proposals::default() }, None).await?;
    answer.await.expect("an outcome")
}

#[tokio::test]
async fn a_node_of_one_answers_after_the_entry_is_on_disk() {
    let disk = MemDisk::new();
    let node = start(&disk).await;
    assert!(node.status().is_sole_leader());
    let first = put(&node, "a").await.expect("it is applied");
    assert_eq!(first.outcome.revision, 2);
    let second = put(&node, "b").await.expect("it is applied");
    assert_eq!(second.outcome.revision, 3);
    assert_eq!(second.term, node.status().term());
    node.shutdown().await.expect("an orderly end");
    assert_eq!(put(&node, "c").await.err(), Some(RequestError::Stopped));
}

/// The store of this test is in memory and lost; the log alone brings every acknowledged write back.
#[tokio::test]
async fn after_a_power_cut_the_log_brings_back_what_was_acknowledged() {
    let disk = MemDisk::new();
    let node = start(&disk).await;
    for key in ["a", "b", "c"] {
        put(&node, key).await.expect("it is applied");
    }
    let after = disk.fork();
    after.crash(CrashStyle::LoseAll);
    node.shutdown().await.expect("an orderly end");

    let node = start(&after).await;
    let revision = node.with_machine(|machine| machine.machine_mut().store_mut().revision()).await;
    assert_eq!(revision, Ok(4));
    assert_eq!(put(&node, "d").await.expect("it goes on").outcome.revision, 5);
    node.shutdown().await.expect("an orderly end");
}

#[tokio::test]
async fn what_openraft_sees_of_an_empty_machine_is_nothing() {
    let (_, mut machine, _) = open(&MemDisk::new());
    let (applied, membership) = machine.applied_state().await.expect("no disk is touched");
    assert_eq!(applied, None);
    assert_eq!(membership.log_id(), &None);
}

/// A store that was given up refused the publish, and the writer was told of success all the same.
#[tokio::test]
async fn a_write_that_the_store_refuses_is_not_answered_and_ends_raft() {
    let node = start(&MemDisk::new()).await;
    put(&node, "a").await.expect("it is applied");
    let give_up = |machine: &mut StateMachine| machine.machine_mut().reader().values().give_up("damage under a read");
    node.with_machine(give_up).await.expect("it runs");
    let commands = vec![Command::Put(PutOp { key: Bytes::from_static(b"b"), ..PutOp::default() })];
    let mut payload = BytesMut::new();
    codec::encode_batch(&commands, &mut payload);
    let (reply, answer) = oneshot::channel();
    let proposals = Proposals { commands, replies: vec![reply], ..Proposals::default() };
    node.append(payload.freeze(), proposals, None).await.expect("the log takes it");
    assert!(answer.await.is_err(), "its outcome is unknown");
    let mut fatal = node.fatal();
    let reason = fatal.wait_for(Option::is_some).await.expect("raft says why").clone();
    assert!(reason.is_some_and(|reason| reason.contains("damage under a read")), "the reason is told");
}

/// A publish was bounded by entries alone: a replay of 256 large ones held all of them in memory,
/// outside of every budget.
#[tokio::test]
async fn large_entries_are_published_before_many_have_come() {
    let status = Arc::new(NodeStatus::new(MemberId(1)));
    let published = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let notify: OnPublish = {
        let published = published.clone();
        Box::new(move |_, revision| published.lock().push(revision))
    };
    let (leases, _lessor) = Lessor::new(Env::real().clock.now());
    let machine = Machine::open(Store::in_memory(), &Default::default(), leases).expect("an empty store");
    let snapshots = snapshots(&self::env(&SHARED), machine.reader());
    let position = AppliedPosition::default();
    let mut machine =
        StateMachine::new(machine, position, None, notify, Arc::new(LogCache::default()), status, snapshots)
            .expect("no membership to read");
    let entry = |index: u64| {
        let op = PutOp { key: Bytes::from_static(b"k"), value: vec![1; 1 << 20].into(), ..PutOp::default() };
        let mut payload = BytesMut::new();
        codec::encode_batch(&[Command::Put(op)], &mut payload);
        let payload = EntryPayload::Normal(LogData::stored(payload.freeze()));
        Ok((Entry { log_id: log_id(1, from_raft(RaftIndex(index))), payload }, None))
    };
    machine.apply(futures::stream::iter((1..=10).map(entry))).await.expect("it is applied");
    assert_eq!(*published.lock(), [5, 9, 11]);
}

/// Cause: a list of the members was Raft's own word, which has an order of its own with what is applied, and a change
/// was acknowledged before it was published. Now each is published by itself, and known with its entry.
#[tokio::test]
async fn members_are_known_as_of_the_entry_that_is_published() {
    let (published, status) = (Arc::new(AtomicU64::new(0)), Arc::new(NodeStatus::new(MemberId(1))));
    let notify: OnPublish = {
        let published = published.clone();
        Box::new(move |_, _| {
            published.fetch_add(1, Ordering::Relaxed);
        })
    };
    let (leases, _lessor) = Lessor::new(Env::real().clock.now());
    let machine = Machine::open(Store::in_memory(), &Default::default(), leases).expect("an empty store");
    let (cache, snapshots) = (Arc::new(LogCache::default()), snapshots(&self::env(&SHARED), machine.reader()));
    let mut machine =
        StateMachine::new(machine, AppliedPosition::default(), None, notify, cache, status.clone(), snapshots)
            .expect("no membership to read");
    assert_eq!(status.membership().nodes().count(), 0);
    let members = |count: u64| {
        let nodes = (1..=count).map(|id| (id, PeerNode::default())).collect::<BTreeMap<_, _>>();
        let membership = Membership::new(vec![[1].into()], nodes).expect("one votes");
        Ok((Entry { log_id: log_id(1, count), payload: EntryPayload::Membership(membership) }, None))
    };
    machine.apply(futures::stream::iter((1..=3).map(members))).await.expect("they are applied");
    assert_eq!(published.load(Ordering::Relaxed), 3, "each before it is acknowledged");
    assert_eq!((status.membership().nodes().count(), status.applied()), (3, RaftIndex(4)));
}

/// Cause: answers were counted once they went out, and how much a transaction reads is known when it is applied. Symptom: a
/// hundred that each wrote a key and read all of them held a hundred times all of them, on the members that only follow,
/// too, and again at each start. Now: an answer counts from its making on, and where there is no room for it the
/// transaction is done and its client isn't told; what nobody waits for isn't kept.
#[tokio::test]
async fn answers_count_as_soon_as_they_are_made() {
    const VALUE_BYTES: usize = 100 << 10;
    const COMMANDS: usize = 20;
    let kept = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let on_apply: OnApply = {
        let kept = kept.clone();
        Box::new(move |_, outcomes, _| kept.lock().extend(outcomes.iter().map(Outcome::pair_bytes)))
    };
    let status = Arc::new(NodeStatus::new(MemberId(1)));
    let (leases, _lessor) = Lessor::new(Env::real().clock.now());
    let machine = Machine::open(Store::in_memory(), &Default::default(), leases).expect("an empty store");
    let snapshots = snapshots(&self::env(&SHARED), machine.reader());
    let (position, cache) = (AppliedPosition::default(), Arc::new(LogCache::default()));
    // With the part that writes have besides, a bit less than four of them.
    let answers = Budget::new(3 * VALUE_BYTES);
    let machine = StateMachine::new(machine, position, None, Box::new(|_, _| ()), cache, status, snapshots);
    let machine = machine.expect("no membership to read").timed(Env::real().clock, on_apply);
    let mut machine = machine.holding(answers.clone());
    let put = |key: &str, bytes| PutOp { key: key.to_owned().into(), value: vec![1; bytes].into(), ..PutOp::default() };
    let reads = |at: usize| {
        let read = Op::Range(RangeQuery::latest(KeyRange::single("big")));
        Command::Txn(TxnOp { success: vec![Op::Put(put(&format!("k{at}"), 1)), read], ..TxnOp::default() })
    };
    let commands: Vec<_> =
        std::iter::once(Command::Put(put("big", VALUE_BYTES))).chain((0..COMMANDS).map(reads)).collect();
    let mut payload = BytesMut::new();
    codec::encode_batch(&commands, &mut payload);
    let payload = payload.freeze();
    let entry = |index: u64, data| {
        let entry = Entry { log_id: log_id(1, from_raft(RaftIndex(index))), payload: EntryPayload::Normal(data) };
        futures::stream::iter([Ok((entry, None))])
    };

    // Somebody waits.
    let (replies, outcomes): (Vec<_>, Vec<_>) = commands.iter().map(|_| oneshot::channel()).unzip();
    let proposals = Proposals { commands, replies, ..Proposals::default() };
    machine.apply(entry(1, LogData::proposed(payload.clone(), proposals))).await.expect("it is applied");
    let (mut told, mut untold) = (Vec::new(), 0);
    for mut outcome in outcomes {
        match outcome.try_recv().expect("an answer") {
            Ok(applied) => told.push(applied),
            Err(RequestError::Timeout) => untold += 1,
            Err(error) => panic!("{error}"),
        }
    }
    // The put, and as many as there is room for.
    assert_eq!((told.len(), untold), (1 + 3, COMMANDS - 3));
    assert!(answers.used() > 3 * VALUE_BYTES && answers.used() <= answers.max() * 5 / 4);
    drop(told);
    assert_eq!(answers.used(), 0);
    assert!(kept.lock().drain(..).sum::<usize>() < 4 * VALUE_BYTES);
    let keys = machine.machine_mut().reader().snapshot().count(&KeyRange::all());
    assert_eq!(keys, 1 + COMMANDS as i64, "all of it is done");

    // Nobody does: a member that follows, or a start.
    machine.apply(entry(2, LogData::stored(payload))).await.expect("it is applied");
    assert_eq!(kept.lock().iter().sum::<usize>(), 0);
}

/// A member that catches up took the core from those that serve.
#[tokio::test]
async fn what_is_far_behind_is_applied_aside_and_in_order() {
    let status = Arc::new(NodeStatus::new(MemberId(1)));
    let published = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let notify: OnPublish = {
        let published = published.clone();
        Box::new(move |_, revision| published.lock().push(revision))
    };
    let threads = Arc::new(parking_lot::Mutex::new(Vec::new()));
    let on_apply: OnApply = {
        let threads = threads.clone();
        Box::new(move |_, _, _| threads.lock().push(std::thread::current().name() == Some("gentle")))
    };
    let (leases, _lessor) = Lessor::new(Env::real().clock.now());
    let machine = Machine::open(Store::in_memory(), &Default::default(), leases).expect("an empty store");
    let snapshots = snapshots(&self::env(&SHARED), machine.reader());
    let (position, cache) = (AppliedPosition::default(), Arc::new(LogCache::default()));
    let machine = StateMachine::new(machine, position, None, notify, cache, status.clone(), snapshots);
    let mut machine = machine.expect("no membership to read").timed(Env::real().clock, on_apply);
    let entry = |index: u64| {
        let op = PutOp { key: Bytes::from_static(b"k"), value: index.to_string().into(), ..PutOp::default() };
        let mut payload = BytesMut::new();
        codec::encode_batch(&[Command::Put(op)], &mut payload);
        let payload = EntryPayload::Normal(LogData::stored(payload.freeze()));
        Ok((Entry { log_id: log_id(1, from_raft(RaftIndex(index))), payload }, None))
    };
    status.heard_commit(RaftIndex(1_300));
    machine.apply(futures::stream::iter((1..=256).map(entry))).await.expect("it is applied");
    assert_eq!((threads.lock().len(), status.applied()), (256, RaftIndex(256)));
    assert!(threads.lock().drain(..).all(|is_aside| is_aside));
    machine.apply(futures::stream::iter((257..=320).map(entry))).await.expect("it is applied");
    assert!(threads.lock().iter().all(|is_aside| !is_aside), "what is nearly there is not in the way");
    assert_eq!(*published.lock(), [257, 321]);
}

/// Cause: whoever heard within its first seconds that it was removed passed for one that had been before. Symptom: a pod that
/// had just started when its set shrank came back by itself at once, and the set lost a member.
#[test]
fn a_member_to_which_a_leader_spoke_was_not_removed_before() {
    let status = NodeStatus::new(MemberId(1));
    assert!(!status.has_heard_leader());
    status.heard_commit(RaftIndex(1));
    assert!(status.has_heard_leader());
}

/// A seed of the simulation found openraft sending from where it had purged: what came after the hole was next.
#[tokio::test]
async fn what_is_purged_is_neither_skipped_in_silence_nor_sent_around() {
    let (mut log, ..) = open(&MemDisk::new());
    let blank = |index| Entry { log_id: log_id(1, index), payload: EntryPayload::Blank };
    log.blocking_append((0..10).map(blank).collect::<Vec<_>>()).await.expect("appended");
    let peers = nobody();
    let asked = |prev: Option<u64>, entries| AppendEntriesRequest::<TypeConfig> {
        vote: Vote { leader_id: openraft::impls::leader_id_std::LeaderId::new(1, 1), committed: true },
        prev_log_id: prev.map(|index| log_id(1, index)),
        leader_commit: None,
        entries,
    };
    assert!(!peers.is_superseded(&asked(None, vec![])), "without a log nothing is purged");
    peers.set_log(&log);
    assert!(!peers.is_superseded(&asked(Some(2), vec![])));
    log.purge(log_id(1, 4)).await.expect("purged");

    assert_eq!(log.limited_get_log_entries(3, 8).await.expect("no fault of the leader").len(), 0);
    assert_eq!(log.limited_get_log_entries(5, 8).await.expect("three").len(), 3);
    let applied: Vec<_> = log.entries_stream(3..8).await.collect().await;
    assert!(
        matches!(applied.as_slice(), [Err(error)] if error.kind() == std::io::ErrorKind::InvalidData),
        "{applied:?}"
    );
    assert!(log.entries_stream(5..8).await.all(|entry| std::future::ready(entry.is_ok())).await);

    assert!(peers.is_superseded(&asked(Some(3), vec![])) && peers.is_superseded(&asked(None, vec![])));
    assert!(!peers.is_superseded(&asked(Some(4), vec![])), "the entry after the purged ones comes next");
    assert!(!peers.is_superseded(&asked(Some(3), vec![blank(4)])), "read before it was purged");
}
