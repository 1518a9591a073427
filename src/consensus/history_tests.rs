//! Bugs that etcd once had, by their issue numbers, as far as they are consensus's.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::oneshot;

use super::tests::{put, start};
use super::*;
use crate::apply::{Command, PutOp, codec};
use crate::env::{CrashStyle, DiskOp, MemDisk};
use crate::types::{LeaseId, Term};

const EIO: i32 = 5;
/// Far above what anything here takes.
const HANGS: Duration = Duration::from_secs(30);

/// etcd 14370. Cause: a cluster of one member counted an entry as committed before it was on the disk. Symptom: a crash
/// took an acknowledged write. Here nothing is acknowledged whose sync failed, and all that was is there.
#[tokio::test]
async fn issue_14370_one_member_acknowledges_only_what_is_synced() {
    let disk = MemDisk::new();
    let node = start(&disk).await;
    put(&node, "a").await.expect("it is synced");
    disk.fail(DiskOp::Sync, 0, EIO);
    let write = vec![Command::Put(PutOp { key: Bytes::from_static(b"b"), ..PutOp::default() })];
    let answer = tokio::time::timeout(HANGS, propose(&node, write, None)).await.expect("an answer or an end");
    assert!(answer.is_none(), "it was acknowledged and isn't on the disk");
    let after = disk.fork();
    after.crash(CrashStyle::LoseAll);
    // It has failed, and says so.
    let _ = node.shutdown().await;
    let node = start(&after).await;
    let revision = node.with_machine(|machine| machine.machine_mut().store_mut().revision()).await;
    assert_eq!(revision, Ok(2));
    node.shutdown().await.expect("an orderly end");
}

/// `None` if it wasn't acknowledged.
async fn propose(node: &Node, commands: Vec<Command>, term: Option<Term>) -> Option<Applied> {
    let mut payload = BytesMut::new();
    codec::encode_batch(&commands, &mut payload);
    let (reply, answer) = oneshot::channel();
    let proposals = Proposals { commands, replies: vec![reply], ..Proposals::default() };
    node.append(payload.freeze(), proposals, term).await.ok()?;
    answer.await.ok()?.ok()
}

/// etcd 15247. Cause: a leader that was stuck in its disk still took itself for the leader and had its successor revoke
/// leases by its own stopped clock. Symptom: all leases were gone, though they were renewed. Here what a leader decides
/// by its clocks is bound to the term in which it decided it.
#[tokio::test]
async fn issue_15247_a_former_leader_ends_no_lease() {
    let node = start(&MemDisk::new()).await;
    let grant = vec![Command::LeaseGrant { id: LeaseId(7), ttl_secs: 60 }];
    propose(&node, grant, None).await.expect("granted");
    let before = Term(node.status().term().get() - 1);
    let ends = vec![Command::LeaseExpire { ids: vec![LeaseId(7)] }];
    assert!(propose(&node, ends.clone(), Some(before)).await.is_none(), "the term before has no say any more");
    let lives = |machine: &mut StateMachine| machine.machine_mut().lessor().keys(LeaseId(7)).is_some();
    assert_eq!(node.with_machine(lives).await, Ok(true));
    propose(&node, ends, Some(node.status().term())).await.expect("this term's leader may");
    assert_eq!(node.with_machine(lives).await, Ok(false));
    node.shutdown().await.expect("an orderly end");
}
