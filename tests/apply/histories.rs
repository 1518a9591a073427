//! Bugs that etcd once had, by their issue numbers, as far as they are the machine's.

use std::collections::BTreeMap;

use rusd::apply::{Command, MachineError};
use rusd::env::ManualSpawn;
use rusd::storage::AppliedPosition;
use rusd::storage::backend::MemoryImage;
use rusd::types::RequestError;

use crate::harness::{Node, one, op_put, op_range_at, put, then};

/// etcd 13766. Cause: the place in the log was stored beside the data and could be of another moment than the data.
/// Symptom: after a crash under load a member had other revisions than the rest. Here they go in one batch: whenever the
/// power goes, revision and digest are those that the stored place in the log had.
#[test]
fn issue_13766_revision_and_place_in_the_log_are_of_one_moment() {
    for flush_every in [1, 2, 3, 7, 100] {
        let (disk, spawn) = (MemoryImage::default(), ManualSpawn::default());
        let mut node = Node::open(&disk, &spawn);
        let mut states = BTreeMap::from([(0, (1, node.machine.reader().snapshot().digest()))]);
        for n in 0..40 {
            // Some entries make no revision, some one of two keys.
            match n % 3 {
                0 => drop(node.put(put(&format!("k{}", n % 5), &n.to_string()))),
                1 => drop(node.txn(then(vec![op_put("a", &n.to_string()), op_put("b", "1")]))),
                _ => drop(node.txn(then(vec![op_range_at(one("a"), 0)]))),
            }
            let shown = node.machine.reader().snapshot();
            states.insert(node.machine.applied().index.get(), (shown.revision(), shown.digest()));
            if n % flush_every == 0 {
                spawn.run("store");
            }
            let again = Node::open(&disk, &ManualSpawn::default());
            let shown = again.machine.reader().snapshot();
            let place = again.machine.applied().index.get();
            assert_eq!(states.get(&place), Some(&(shown.revision(), shown.digest())), "a power cut at entry {n}");
        }
    }
}

/// etcd 14685. Cause: after a crash during a defragmentation the store had lost its place in the log. Symptom: entries
/// were applied a second time. Here the machine refuses whatever isn't behind its place, before and after a restart.
#[test]
fn issue_14685_no_entry_is_applied_twice() {
    let (disk, spawn) = (MemoryImage::default(), ManualSpawn::default());
    let mut node = Node::open(&disk, &spawn);
    for n in 0..5 {
        node.put(put("k", &n.to_string())).unwrap();
    }
    spawn.run("store");
    let last = node.machine.applied();
    for restarted in [false, true] {
        if restarted {
            node = Node::open(&disk, &ManualSpawn::default());
        }
        for index in 1..=last.index.get() {
            let again = AppliedPosition { index: rusd::types::RaftIndex(index), ..last };
            let refused = node.machine.apply(again, &[Command::Put(put("k", "again"))]);
            assert!(matches!(refused, Err(MachineError::OutOfOrder { .. })), "{index}: {refused:?}");
        }
        assert_eq!((node.revision(), node.get("k").map(|kv| kv.version)), (6, Some(5)));
    }
}

/// etcd 18667. Cause: whether a txn's read at a compacted revision failed depended on how far the compaction's work on the
/// disk was. Symptom: members answered, and wrote, differently. Here the compact revision alone decides.
#[test]
fn issue_18667_a_compacted_read_in_a_txn_fails_on_every_member() {
    let mut members = [Node::new(), Node::new()];
    let mut seen = Vec::new();
    for (at, node) in members.iter_mut().enumerate() {
        for n in 0..5 {
            node.put(put("k", &n.to_string())).unwrap();
        }
        node.run(Command::Compact { revision: 5 }).result.unwrap();
        // On the second one the space is reclaimed as well.
        while at == 1 && !node.machine.store_mut().compact_step(1).done {}
        let outcomes: Vec<_> =
            (2..=6).map(|revision| node.txn(then(vec![op_range_at(one("k"), revision), op_put("p", "1")]))).collect();
        seen.push((outcomes, node.revision(), node.machine.reader().snapshot().digest()));
    }
    assert_eq!(seen[0], seen[1]);
    let refused: Vec<bool> = seen[0].0.iter().map(|outcome| *outcome == Err(RequestError::Compacted)).collect();
    assert_eq!(refused, [true, true, true, false, false]);
}
