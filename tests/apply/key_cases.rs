//! 05 §B: put and delete.

use rusd::apply::{Command, PutOp, PutResult};
use rusd::storage::AppliedPosition;
use rusd::types::{EventKind, RaftIndex, RequestError, Term};

use crate::harness::*;

fn with_prev(op: PutOp) -> PutOp {
    PutOp { prev_kv: true, ..op }
}

#[test]
fn e2_a_delete_in_an_empty_store_changes_nothing() {
    let mut node = Node::new();
    assert_eq!(node.delete(one("a")).deleted, 0);
    assert_eq!((node.revision(), node.event_list()), (1, vec![]));
}

#[test]
fn e27_e28_e29_puts_count_up() {
    let mut node = Node::new();
    assert_eq!(node.put(with_prev(put("a", "1"))), Ok(PutResult { prev_kv: None }));
    assert_eq!(node.revision(), 2);
    assert_eq!(node.put(with_prev(put("a", "2"))), Ok(PutResult { prev_kv: Some(kv("a", "1", 2, 2, 1, 0)) }));
    assert_eq!(node.get("a"), Some(kv("a", "2", 2, 3, 2, 0)));
    node.put(put("a", "2")).unwrap();
    assert_eq!(node.get("a"), Some(kv("a", "2", 2, 4, 3, 0)), "the same value");
    assert_eq!(node.event_list(), [(EventKind::Put, "a".into(), 4)]);
}

#[test]
fn e30_keeping_needs_something_to_keep() {
    let mut node = Node::new();
    for op in [PutOp { ignore_value: true, ..put("k", "") }, PutOp { ignore_lease: true, ..put("k", "v") }] {
        assert_eq!(node.put(op), Err(RequestError::KeyNotFound));
    }
    assert_eq!(node.revision(), 1);
}

#[test]
fn e32_a_lease_must_be_there_and_is_asked_for_first() {
    let mut node = Node::new();
    assert_eq!(node.put(leased("k", "v", 12345)), Err(RequestError::LeaseNotFound));
    let both = PutOp { ignore_value: true, ..leased("k", "", 12345) };
    assert_eq!(node.put(both), Err(RequestError::LeaseNotFound));
    assert_eq!((node.revision(), node.get("k")), (1, None));
}

#[test]
fn e34_e35_deletes_go_in_key_order_in_one_revision() {
    let mut node = Node::new();
    for key in ["d", "c", "e"] {
        node.put(put(key, key)).unwrap();
    }
    let result = node.delete(span("c", "e"));
    assert_eq!(result.deleted, 2);
    assert_eq!(result.prev_kvs, [kv("c", "c", 3, 3, 1, 0), kv("d", "d", 2, 2, 1, 0)]);
    assert_eq!(node.event_list(), [(EventKind::Delete, "c".into(), 5), (EventKind::Delete, "d".into(), 5)]);
    for range in [span("c", "e"), span("z", "a"), span("e", "e")] {
        assert_eq!(node.delete(range).deleted, 0);
        assert_eq!((node.revision(), node.event_list()), (5, vec![]));
    }
}

#[test]
fn e36_a_new_generation_starts_over() {
    let mut node = Node::new();
    node.put(put("a", "1")).unwrap();
    node.put(put("a", "2")).unwrap();
    node.delete(one("a"));
    assert_eq!(node.put(with_prev(put("a", "3"))), Ok(PutResult { prev_kv: None }));
    assert_eq!(node.get("a"), Some(kv("a", "3", 5, 5, 1, 0)));
}

#[test]
fn e37_to_e40_a_put_says_where_the_key_hangs() {
    let mut node = Node::new();
    node.grant(7).unwrap();
    node.grant(8).unwrap();
    node.put(leased("k", "v", 7)).unwrap();
    assert_eq!(node.keys_of(7).unwrap(), ["k"]);
    node.put(PutOp { ignore_lease: true, ..put("k", "v2") }).unwrap();
    assert_eq!(node.get("k"), Some(kv("k", "v2", 2, 3, 2, 7)), "E38");
    node.put(leased("k", "v3", 8)).unwrap();
    assert_eq!((node.keys_of(7).unwrap().len(), node.keys_of(8).unwrap().len()), (0, 1), "E40");
    node.put(PutOp { ignore_value: true, ..put("k", "") }).unwrap();
    assert_eq!(node.get("k"), Some(kv("k", "v3", 2, 5, 4, 0)), "E39");
    assert_eq!(node.keys_of(8).unwrap().len(), 0, "E39");
    node.put(leased("k", "v4", 7)).unwrap();
    node.put(put("k", "v5")).unwrap();
    assert_eq!(node.keys_of(7).unwrap().len(), 0, "E37");
    node.put(leased("k", "v6", 7)).unwrap();
    node.put(leased("k", "v7", 7)).unwrap();
    assert_eq!(node.keys_of(7).unwrap(), ["k"], "the same lease again");
    node.delete(one("k"));
    assert_eq!(node.keys_of(7).unwrap().len(), 0, "E121");
}

#[test]
fn a_compaction_answers_with_the_current_revision() {
    let mut node = Node::new();
    node.put(put("a", "1")).unwrap();
    node.put(put("a", "2")).unwrap();
    for (revision, error) in
        [(2, None), (2, Some(RequestError::Compacted)), (4, Some(RequestError::FutureRevision)), (3, None)]
    {
        let outcome = node.run(Command::Compact { revision });
        assert_eq!((outcome.result.err(), outcome.revision), (error, 3), "{revision}");
    }
}

#[test]
fn positions_only_go_up() {
    let mut node = Node::new();
    node.put(put("a", "1")).unwrap();
    let first = AppliedPosition { index: RaftIndex(1), term: Term(1) };
    assert!(node.machine.apply(first, &[]).is_err());
    assert!(node.machine.publish(AppliedPosition { index: RaftIndex(0), term: Term(1) }).is_err());
    assert!(node.machine.publish(AppliedPosition { index: RaftIndex(2), term: Term(0) }).is_err());
    assert!(node.machine.publish(first).is_ok(), "the same again shows nothing new");
    assert_eq!(node.get("a"), Some(kv("a", "1", 2, 2, 1, 0)));
}
