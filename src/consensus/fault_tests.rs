//! A whole member (Raft, log, store, snapshots) on a disk in memory that fails once, at each place
//! after the other: what was acknowledged is there after the next start, and reads go on meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::tests::{config, env, nobody, options, snapshots};
use super::*;
use crate::apply::{Command, Machine, PutOp, codec};
use crate::env::{CrashStyle, DiskOp, MemDisk};
use crate::lease::Lessor;
use crate::storage::backend::Engine;
use crate::storage::values::Health;
use crate::storage::{self, Store, StoreConfig, StoreReader};
use crate::types::MemberId;
use crate::wal::Wal;

const EIO: i32 = 5;
/// Far above what anything here takes; who waits longer waits for ever.
const HANGS: Duration = Duration::from_secs(30);
const BEFORE: u32 = 5;
const KEYS: u32 = 30;

struct Whole {
    node: Node,
    wal: Arc<Wal>,
    reader: StoreReader,
    snapshots: Arc<Snapshots>,
}

impl Whole {
    async fn start(disk: &MemDisk) -> Self {
        let env = env(disk);
        let (wal, recovered) = Wal::open(env.clone(), Path::new("/member/wal"), options()).expect("the log opens");
        let wal = Arc::new(wal);
        let status = Arc::new(NodeStatus::new(MemberId(1)));
        let cache = Arc::new(LogCache::default());
        let log = LogStore::new(wal.clone(), recovered.vote.as_deref(), cache.clone(), status.clone())
            .expect("the vote is ours");
        let mut settings = StoreConfig::new(Engine::Redb, "/member/store");
        settings.values.flush_interval = Duration::from_millis(1);
        let (store, opened) = Store::open(&env, settings).expect("the store opens");
        let reader = store.reader();
        let (leases, _lessor) = Lessor::new(env.clock.now());
        let machine = Machine::open(store, &opened, leases).expect("the state is ours");
        let snapshots = snapshots(&env, reader.clone());
        let membership = opened.meta.iter().find(|(key, _)| key == MEMBERSHIP_KEY).map(|(_, value)| value.as_ref());
        let publish: OnPublish = Box::new(|_, _| {});
        let state =
            StateMachine::new(machine, opened.position, membership, publish, cache, status.clone(), snapshots.clone())
                .expect("a membership that can be read");
        let node = Node::start(config(), log, state, status, nobody()).await.expect("the node starts");
        node.ready().await.expect("a leader of one");
        Self { node, wal, reader, snapshots }
    }

    /// Whether the put of this key was acknowledged.
    async fn put(&self, key: u32) -> bool {
        let commands = vec![Command::Put(PutOp { key: name(key), value: name(key), ..PutOp::default() })];
        let mut payload = BytesMut::new();
        codec::encode_batch(&commands, &mut payload);
        let (reply, answer) = oneshot::channel();
        let proposals = Proposals { commands, replies: vec![reply], ..Proposals::default() };
        let put = async {
            self.node.append(payload.freeze(), proposals, None).await.ok()?;
            answer.await.ok()?.ok()
        };
        timeout(HANGS, put).await.expect("an answer or an end").is_some()
    }

    fn check(&self, acknowledged: &[u32]) {
        for key in acknowledged {
            let found = self.reader.get(&name(*key), storage::Disk::Allowed).expect("reads go on");
            assert_eq!(found.value.map(|kv| kv.value), Some(name(*key)), "key {key}");
        }
    }

    /// Why it can't go on, as the server sees it.
    fn end(&self) -> Option<String> {
        let log = self.wal.fatal().borrow().as_ref().map(ToString::to_string);
        log.or_else(|| match &*self.reader.values().health().borrow() {
            Health::Failed(why) => Some(why.clone()),
            _ => None,
        })
    }
}

fn name(key: u32) -> Bytes {
    format!("key-{key:04}").into()
}

/// One fault; whether it ended the member.
async fn fail_once(op: DiskOp, nth: u64) -> bool {
    let disk = MemDisk::new();
    let member = Whole::start(&disk).await;
    let mut acknowledged = Vec::new();
    for key in 0..BEFORE {
        assert!(member.put(key).await);
        acknowledged.push(key);
    }
    disk.fail(op, nth, EIO);
    for key in BEFORE..KEYS {
        if member.put(key).await {
            acknowledged.push(key);
        }
        if key % 10 == 0 {
            // Upkeep tries again later.
            let _ = timeout(HANGS, member.snapshots.save_now()).await.expect("a snapshot or an error");
        }
    }
    // The engine takes a failure by opening again, or says that it can't.
    let _ = timeout(HANGS, member.reader.values().flush()).await.expect("flushed or given up");
    member.check(&acknowledged);
    let end = member.end();
    match &end {
        Some(why) => {
            assert!(why.contains("/member/") && why.contains("os error 5"), "{op:?} {nth}: {why}");
            if member.wal.fatal().borrow().is_some() {
                assert!(!member.put(KEYS).await, "a failed log takes nothing any more");
            }
        }
        None => assert_eq!(acknowledged.len(), KEYS as usize, "{op:?} {nth}: refused without a reason"),
    }
    let after = disk.fork();
    after.crash(CrashStyle::LoseAll);
    let _ = timeout(HANGS, member.node.shutdown()).await;

    let again = Whole::start(&after).await;
    again.check(&acknowledged);
    assert!(again.put(KEYS + 1).await, "{op:?} {nth}: it goes on");
    again.node.shutdown().await.expect("an orderly end");
    end.is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_the_disk_fails_nothing_acknowledged_is_lost() {
    for op in [DiskOp::Write, DiskOp::Sync, DiskOp::SyncDir, DiskOp::Rename, DiskOp::Open] {
        let (mut ended, mut tried) = (0, 0);
        for nth in [0, 1, 3, 7, 14] {
            ended += u32::from(fail_once(op, nth).await);
            tried += 1;
        }
        println!("{op:?}: of {tried} faults {ended} ended the member");
        if matches!(op, DiskOp::Write | DiskOp::Sync) {
            assert!(ended > 0, "{op:?} never hit the log");
        }
    }
}
