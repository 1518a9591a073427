//! 05 §F: leases, as far as apply sees them.

use rusd::apply::{Command, Response};
use rusd::types::{EventKind, LeaseId, RequestError};

use crate::harness::*;

#[test]
fn e112_e113_ids_are_the_clients_and_unique() {
    let mut node = Node::new();
    assert_eq!(node.grant(-7), Ok(Response::LeaseGrant { id: LeaseId(-7), ttl_secs: 100 }));
    assert_eq!(node.grant(-7), Err(RequestError::LeaseExists));
    assert_eq!(node.grant(0), Err(RequestError::LeaseNotFound));
    node.put(leased("k", "v", -7)).unwrap();
    assert_eq!(node.get("k").unwrap().lease, LeaseId(-7));
    assert_eq!(node.revision(), 2, "a grant makes no revision");
}

#[test]
fn e117_e119_a_revoke_needs_a_lease_but_no_keys() {
    let mut node = Node::new();
    for id in [0, 9] {
        assert_eq!(node.run(Command::LeaseRevoke { id: LeaseId(id) }).result, Err(RequestError::LeaseNotFound));
    }
    node.grant(9).unwrap();
    assert_eq!(node.run(Command::LeaseRevoke { id: LeaseId(9) }).result, Ok(Response::Lease));
    assert_eq!((node.revision(), node.event_list()), (1, vec![]));
    assert_eq!(node.keys_of(9), None);
}

#[test]
fn e118_a_revoke_deletes_sorted_keys_in_one_revision() {
    let mut node = Node::new();
    node.grant(7).unwrap();
    for key in ["l0", "z1", "a1"] {
        node.put(leased(key, "v", 7)).unwrap();
    }
    node.run(Command::LeaseRevoke { id: LeaseId(7) }).result.unwrap();
    let events = ["a1", "l0", "z1"].map(|key| (EventKind::Delete, key.to_owned(), 5));
    assert_eq!(node.event_list(), events);
    let prev = node.events.as_ref().unwrap().events[0].prev.unwrap();
    let record = node.machine.reader().record(prev).unwrap().unwrap();
    assert_eq!(record.version.unwrap().lease, LeaseId(7), "prev_kv.lease");
}

#[test]
fn e120_leases_expire_in_one_entry_each_with_a_revision_of_its_own() {
    let mut node = Node::new();
    for id in [1, 2, 3, 4] {
        node.grant(id).unwrap();
    }
    for (key, lease) in [("b", 1), ("a", 1), ("c", 3), ("d", 4)] {
        node.put(leased(key, "v", lease)).unwrap();
    }
    let ids = [3, 99, 2, 1, 3].map(LeaseId).to_vec();
    let outcome = node.run(Command::LeaseExpire { ids });
    assert_eq!((outcome.result, outcome.revision), (Ok(Response::Lease), 7));
    let gone = |key: &str, revision| (EventKind::Delete, key.to_owned(), revision);
    assert_eq!(node.event_list(), [gone("c", 6), gone("a", 7), gone("b", 7)]);
    assert_eq!(node.put(leased("k", "v", 1)), Err(RequestError::LeaseNotFound));
    assert!(node.grant(1).is_ok(), "the id is free again");
    assert_eq!(node.keys_of(1).unwrap().len(), 0);
    assert_eq!(node.keys_of(4).unwrap(), ["d"]);
}

#[test]
fn e121_a_key_that_moved_is_not_deleted_with_its_old_lease() {
    let mut node = Node::new();
    node.grant(7).unwrap();
    node.grant(8).unwrap();
    for key in ["a", "b", "c"] {
        node.put(leased(key, "v", 7)).unwrap();
    }
    node.put(leased("a", "v", 8)).unwrap();
    node.put(put("b", "v")).unwrap();
    node.run(Command::LeaseRevoke { id: LeaseId(7) }).result.unwrap();
    assert_eq!(node.event_list(), [(EventKind::Delete, "c".into(), 7)]);
}

#[test]
fn a_failed_txn_moves_no_key() {
    let mut node = Node::new();
    node.grant(7).unwrap();
    node.put(leased("a", "v", 7)).unwrap();
    let ops = vec![op_put("a", "detached"), op_range_at(one("a"), 99)];
    assert_eq!(node.txn(then(ops)), Err(RequestError::FutureRevision));
    assert_eq!(node.keys_of(7).unwrap(), ["a"]);
}

#[test]
fn the_end_of_a_lease_is_announced_after_it_is_published() {
    let mut node = Node::new();
    node.grant(7).unwrap();
    node.put(leased("k", "v", 7)).unwrap();
    let ended = node.machine.lessor().ended();
    let position = node.next();
    node.machine.apply(position, &[Command::LeaseRevoke { id: LeaseId(7) }]).unwrap();
    assert!(!ended.has_changed().unwrap());
    assert!(node.get("k").is_some(), "not published yet");
    node.machine.publish(position).unwrap();
    assert!(ended.has_changed().unwrap());
    assert!(node.get("k").is_none());
}
