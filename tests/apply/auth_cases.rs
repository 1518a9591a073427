//! Users, and commands on their behalf, where they are applied.

use bytes::Bytes;
use rusd::apply::{
    AlarmKind, AlarmOp, Command, Compare, CompareResult, CompareTarget, MachineError, Op, PutOp, Response, TxnOp,
};
use rusd::auth::{AuthOp, Caller, PasswordHash, PermissionKind, token_hash};
use rusd::env::ManualSpawn;
use rusd::storage::backend::MemoryImage;
use rusd::storage::{RangeQuery, SnapshotItem, Store, Table};
use rusd::types::{KeyRange, LeaseId, MemberId, RaftIndex, RequestError, StorageError};

use crate::harness::{Node, one, put};

fn auth(node: &mut Node, op: AuthOp) {
    let command = Command::Auth(op).by(root(node));
    node.run(command).result.unwrap();
}

fn user(node: &Node, name: &str) -> Caller {
    Caller::User { name: name.into(), revision: node.machine.auth().look().revision() }
}

fn root(node: &Node) -> Caller {
    if node.machine.auth().look().is_enabled() { user(node, "root") } else { Caller::Nobody }
}

/// `u` may write [a, c) and w, and read [a, d).
fn enable(node: &mut Node) {
    let password = Some(PasswordHash::new("$2a$04$hash"));
    for name in ["root", "u"] {
        auth(node, AuthOp::UserAdd { name: name.into(), password: password.clone() });
    }
    auth(node, AuthOp::UserGrantRole { name: "root".into(), role: "root".into() });
    auth(node, AuthOp::RoleAdd { name: "r".into() });
    for (kind, key, end) in
        [(PermissionKind::ReadWrite, "a", "c"), (PermissionKind::Read, "c", "d"), (PermissionKind::Write, "w", "")]
    {
        auth(node, AuthOp::RoleGrant { role: "r".into(), kind, key: key.into(), range_end: end.into() });
    }
    auth(node, AuthOp::UserGrantRole { name: "u".into(), role: "r".into() });
    auth(node, AuthOp::Enable);
}

fn by(node: &mut Node, name: &str, command: Command) -> Result<Response, RequestError> {
    let caller = user(node, name);
    node.run(command.by(caller)).result
}

#[test]
fn what_nobody_asked_for_is_refused() {
    let mut node = Node::new();
    node.put(put("a", "1")).unwrap();
    node.grant(7).unwrap();
    enable(&mut node);
    let revision = node.revision();
    for command in [
        Command::Put(put("a", "2")),
        Command::Txn(TxnOp::default()),
        Command::LeaseGrant { id: LeaseId(8), ttl_secs: 5 },
        Command::LeaseRevoke { id: LeaseId(7) },
        Command::Compact { revision: 2 },
        Command::Alarm(AlarmOp { activate: true, member: MemberId(5), kind: Some(AlarmKind::NoSpace) }),
        Command::Auth(AuthOp::Disable),
    ] {
        assert_eq!(node.run(command.clone()).result, Err(RequestError::UserEmpty), "{command:?}");
        let root = root(&node);
        assert_ne!(node.run(command.clone().by(root)).result, Err(RequestError::UserEmpty), "{command:?}");
        if !node.machine.auth().look().is_enabled() {
            break;
        }
    }
    assert!(node.revision() > revision);
}

/// The cluster's own business goes on: leases end, and old history is forgotten.
#[test]
fn the_cluster_itself_goes_on() {
    let mut node = Node::new();
    node.grant(7).unwrap();
    node.put(PutOp { lease: LeaseId(7), ..put("x", "1") }).unwrap();
    enable(&mut node);
    assert!(node.run(Command::LeaseCheckpoint { remaining: vec![(LeaseId(7), 5)] }).result.is_ok());
    assert!(node.run(Command::LeaseExpire { ids: vec![LeaseId(7)] }).result.is_ok());
    assert_eq!(node.get("x"), None);
    let compact = Command::Compact { revision: 2 }.by_member(&node.machine.auth());
    assert!(matches!(compact, Command::As(_)));
    assert!(node.run(compact).result.is_ok());
}

#[test]
fn rights_are_those_of_the_moment_of_applying() {
    let mut node = Node::new();
    enable(&mut node);
    let before = user(&node, "u");
    assert!(node.run(Command::Put(put("a", "1")).by(before.clone())).result.is_ok());
    auth(&mut node, AuthOp::RoleAdd { name: "other".into() });
    let late = node.run(Command::Put(put("a", "2")).by(before)).result;
    assert_eq!(late, Err(RequestError::AuthRevisionOld), "admitted before a change, applied after it");
    assert!(by(&mut node, "u", Command::Put(put("a", "2"))).is_ok());
    auth(&mut node, AuthOp::UserRevokeRole { name: "u".into(), role: "r".into() });
    assert_eq!(by(&mut node, "u", Command::Put(put("a", "3"))), Err(RequestError::PermissionDenied));
    auth(&mut node, AuthOp::UserDelete { name: "u".into() });
    assert_eq!(by(&mut node, "u", Command::Put(put("a", "3"))), Err(RequestError::PermissionDenied));
    assert_eq!(node.get("a").unwrap().value, "2");
}

#[test]
fn every_part_of_a_transaction_counts() {
    let mut node = Node::new();
    for (lease, key) in [(7, "x"), (8, "b")] {
        node.grant(lease).unwrap();
        node.put(PutOp { lease: LeaseId(lease), ..put(key, "1") }).unwrap();
    }
    enable(&mut node);
    let range = |start: &'static str, end: &'static str| KeyRange::from_wire(start.into(), end.into());
    let compare = |range: KeyRange| Compare { range, result: CompareResult::Equal, target: CompareTarget::Version(0) };
    let read = |range: KeyRange| Op::Range(RangeQuery::latest(range));
    let leased = |lease| Op::Put(PutOp { lease: LeaseId(lease), ..put("a", "1") });
    let delete = |range, prev_kv| Op::Delete(rusd::apply::DeleteOp { range, prev_kv });
    let prev = |key| Op::Put(PutOp { prev_kv: true, ..put(key, "1") });
    let unbounded = KeyRange { end: rusd::types::RangeEnd::Unbounded, ..one("a") };
    let success = |op: Op| TxnOp { success: vec![op], ..TxnOp::default() };
    let failure = |op: Op| TxnOp { failure: vec![op], ..TxnOp::default() };
    let forbidden = [
        TxnOp { compares: vec![compare(one("x"))], ..TxnOp::default() },
        TxnOp { compares: vec![compare(range("a", "e"))], ..TxnOp::default() },
        TxnOp { compares: vec![compare(unbounded.clone())], ..TxnOp::default() },
        success(read(unbounded)),
        success(read(one("w"))),
        success(prev("w")),
        success(leased(7)),
        success(delete(one("w"), true)),
        success(delete(range("a", "d"), false)),
        success(Op::Put(put("c", "1"))),
    ];
    let allowed = [
        TxnOp { compares: vec![compare(range("a", "d"))], ..TxnOp::default() },
        success(read(range("a", "d"))),
        success(prev("a")),
        success(leased(8)),
        success(delete(one("w"), false)),
        success(delete(range("a", "c"), true)),
        success(Op::Put(PutOp { ignore_lease: true, ..put("a", "1") })),
    ];
    by(&mut node, "u", Command::Put(put("a", "0"))).unwrap();
    for (ops, is_allowed) in [(&forbidden[..], false), (&allowed[..], true)] {
        for op in ops {
            // As it is, in the branch that isn't taken, and three levels down.
            let deep = success(Op::Txn(failure(Op::Txn(failure(Op::Txn(op.clone()))))));
            for txn in [deep, failure(Op::Txn(op.clone())), op.clone()] {
                let result = by(&mut node, "u", Command::Txn(txn.clone()));
                let denied = result == Err(RequestError::PermissionDenied);
                assert_eq!(denied, !is_allowed, "{txn:?}: {result:?}");
            }
            by(&mut node, "root", Command::Put(put("a", "0"))).unwrap();
        }
    }
}

#[test]
fn a_leases_keys_guard_it() {
    let mut node = Node::new();
    for (lease, key) in [(7, "x"), (8, "a"), (9, "c")] {
        node.grant(lease).unwrap();
        node.put(PutOp { lease: LeaseId(lease), ..put(key, "1") }).unwrap();
    }
    enable(&mut node);
    for (lease, allowed) in [(7, false), (8, true), (9, false)] {
        let attach = Command::Put(PutOp { lease: LeaseId(lease), ..put("b", "1") });
        assert_eq!(by(&mut node, "u", attach).is_ok(), allowed);
        assert_eq!(by(&mut node, "u", Command::LeaseRevoke { id: LeaseId(lease) }).is_ok(), allowed);
    }
    assert_eq!(by(&mut node, "u", Command::LeaseRevoke { id: LeaseId(99) }), Err(RequestError::LeaseNotFound));
}

#[test]
fn tokens_follow_the_log() {
    let mut node = Node::new();
    enable(&mut node);
    let (tokens, now, ttl) =
        (node.machine.tokens(), rusd::env::Clock::now(&rusd::env::SystemClock), std::time::Duration::from_secs(9));
    let issue = |node: &mut Node, name: &str, letters: &str| {
        let revision = node.machine.auth().look().revision();
        let op = AuthOp::Issue { name: name.into(), token: token_hash(letters), revision };
        match node.run(Command::Auth(op).by(Caller::Member)).result {
            Ok(Response::Token(index)) => format!("{letters}.{}", index.get()),
            other => panic!("{other:?}"),
        }
    };
    let (a, b) = (issue(&mut node, "u", "abc"), issue(&mut node, "root", "xyz"));
    assert_eq!(tokens.user(&a, now, ttl).as_deref(), Some("u"));
    let op = AuthOp::Issue { name: "root".into(), token: token_hash("mine"), revision: 1 };
    let forged = by(&mut node, "u", Command::Auth(op));
    assert_eq!(forged, Err(RequestError::PermissionDenied), "nobody gives a token to himself");
    auth(&mut node, AuthOp::UserChangePassword { name: "u".into(), password: PasswordHash::new("$2a$04$other") });
    assert_eq!(tokens.user(&a, now, ttl), None);
    assert!(tokens.user(&b, now, ttl).is_some());
    auth(&mut node, AuthOp::Disable);
    assert_eq!(tokens.user(&b, now, ttl), None);
}

#[test]
fn users_are_there_after_a_restart() {
    let (disk, spawn) = (MemoryImage::default(), ManualSpawn::default());
    let mut node = Node::open(&disk, &spawn);
    enable(&mut node);
    let (revision, digest) = (node.machine.auth().look().revision(), node.machine.auth_digest());
    assert_ne!(digest, 0);
    spawn.step("store");
    drop(node);
    let mut node = Node::open(&disk, &spawn);
    let state = node.machine.auth().load();
    assert!(state.is_enabled());
    assert_eq!((state.revision(), node.machine.auth_digest()), (revision, digest));
    assert_eq!(by(&mut node, "u", Command::Put(put("x", "1"))), Err(RequestError::PermissionDenied));
    assert!(by(&mut node, "u", Command::Put(put("a", "1"))).is_ok());
    assert_eq!(state.role("r").unwrap().permissions[0].key, Bytes::from("a"));
}

/// A member that was away comes from a state without users to one with them by a snapshot.
#[test]
fn a_snapshots_users_are_known_before_its_keys() {
    let mut leader = Node::new();
    leader.put(put("secret", "1")).unwrap();
    enable(&mut leader);
    let (snapshot, position) = (leader.machine.reader().snapshot_pinned(), leader.machine.applied());
    let mut items = Vec::new();
    snapshot
        .each_record(|at, record| {
            items.push(Ok::<_, StorageError>(SnapshotItem::Record(at, record.clone())));
            Ok::<_, StorageError>(())
        })
        .unwrap();
    for table in [Table::Meta, Table::Lease, Table::Auth] {
        items.extend(snapshot.rows().of(table).into_iter().map(|(key, row)| Ok(SnapshotItem::Row(table, key, row))));
    }
    let mut member = Node::new();
    let (view, reader) = (member.machine.auth(), member.machine.reader());
    assert!(!view.look().is_enabled());
    let tokens = member.machine.tokens();
    tokens.issue(token_hash("abc"), RaftIndex(1), "u".into());
    let install = |store: &mut Store| {
        let opened = store.install(position, items)?;
        // The store's readers see the keys from here on, and the machine has not looked at the rest yet.
        assert_eq!(reader.revision(), leader.revision());
        assert!(view.look().is_enabled(), "the keys can be read by who was let in before");
        assert!(tokens.is_empty(), "a token that ended meanwhile stands for who its user is now");
        Ok::<_, Failed>(opened)
    };
    member.machine.install(install).unwrap();
    assert_eq!(view.look().revision(), leader.machine.auth().look().revision());
}

#[derive(Debug)]
struct Failed;

impl From<StorageError> for Failed {
    fn from(_: StorageError) -> Self {
        Self
    }
}

impl From<MachineError> for Failed {
    fn from(_: MachineError) -> Self {
        Self
    }
}
