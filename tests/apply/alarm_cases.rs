//! 05 E130–E132 and E125: alarms, as far as apply sees them.

use rusd::apply::{AlarmKind, AlarmOp, Command, Response, TxnOp};
use rusd::types::{LeaseId, MemberId, RequestError};

use crate::harness::*;

fn alarm(node: &mut Node, activate: bool, member: u64, kind: Option<AlarmKind>) -> Vec<(MemberId, AlarmKind)> {
    let outcome = node.run(Command::Alarm(AlarmOp { activate, member: MemberId(member), kind }));
    match outcome.result {
        Ok(Response::Alarm(alarms)) => alarms,
        other => panic!("{other:?} to an alarm"),
    }
}

#[test]
fn e125_e130_no_space_stops_what_grows() {
    let mut node = Node::new();
    node.grant(7).unwrap();
    node.put(leased("a", "1", 7)).unwrap();
    node.put(put("b", "1")).unwrap();
    let view = node.machine.alarms();
    let raised = (MemberId(5), AlarmKind::NoSpace);
    assert_eq!(alarm(&mut node, true, 5, Some(AlarmKind::NoSpace)), [raised]);
    assert_eq!(view.load().list(None), [raised]);
    assert_eq!(node.put(put("k", "v")), Err(RequestError::NoSpace));
    assert_eq!(node.put(leased("k", "v", 999)), Err(RequestError::NoSpace), "before anything else");
    assert_eq!(node.grant(8), Err(RequestError::NoSpace));
    let failure = TxnOp { failure: vec![op_put("k", "v")], ..TxnOp::default() };
    assert_eq!(node.txn(failure), Err(RequestError::NoSpace));
    assert_eq!(node.delete(one("b")).deleted, 1);
    assert!(node.txn(then(vec![op_delete(one("z")), op_range(one("a"))])).is_ok());
    assert!(node.run(Command::Compact { revision: 2 }).result.is_ok());
    assert!(node.run(Command::LeaseRevoke { id: LeaseId(7) }).result.is_ok());
    assert_eq!(alarm(&mut node, false, 6, Some(AlarmKind::NoSpace)), [], "E131");
    assert_eq!(alarm(&mut node, false, 5, None), [], "E131");
    assert_eq!(alarm(&mut node, false, 5, Some(AlarmKind::NoSpace)), [raised]);
    assert!(node.put(put("k", "v")).is_ok());
}

#[test]
fn e132_corruption_stops_every_change() {
    let mut node = Node::new();
    node.grant(7).unwrap();
    node.put(leased("a", "1", 7)).unwrap();
    alarm(&mut node, true, 5, Some(AlarmKind::Corrupt));
    for command in [
        Command::Put(put("a", "2")),
        Command::Txn(then(vec![op_delete(one("a"))])),
        Command::Compact { revision: 2 },
        Command::LeaseGrant { id: LeaseId(9), ttl_secs: 5 },
        Command::LeaseRevoke { id: LeaseId(7) },
        Command::LeaseExpire { ids: vec![LeaseId(7)] },
    ] {
        assert_eq!(node.run(command).result, Err(RequestError::Corrupt));
    }
    assert_eq!(node.revision(), 2);
    alarm(&mut node, false, 5, Some(AlarmKind::Corrupt));
    assert_eq!(node.delete(one("a")).deleted, 1);
}
