//! Random commands over few keys and leases, so that they meet.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use rusd::admit;
use rusd::apply::{AlarmKind, AlarmOp, Command, Compare, CompareResult, CompareTarget, DeleteOp, Op, PutOp, TxnOp};
use rusd::storage::RangeQuery;
use rusd::types::{KeyRange, LeaseId, Limits, MemberId};

const KEYS: [&str; 6] = ["a", "b", "c", "ca", "d", "e"];

fn key() -> impl Strategy<Value = Bytes> {
    proptest::sample::select(&KEYS[..]).prop_map(Bytes::from)
}

fn value() -> impl Strategy<Value = Bytes> {
    proptest::sample::select(&["", "v", "w"][..]).prop_map(Bytes::from)
}

fn range() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        4 => key().prop_map(KeyRange::single),
        2 => (key(), key()).prop_map(|(start, end)| KeyRange::from_wire(start, end)),
        1 => key().prop_map(|start| KeyRange::from_wire(start, Bytes::from_static(&[0]))),
    ]
}

fn lease() -> impl Strategy<Value = LeaseId> {
    (1..4i64).prop_map(LeaseId)
}

fn put() -> impl Strategy<Value = PutOp> {
    let lease = prop_oneof![2 => Just(LeaseId::NONE), 1 => lease()];
    (key(), value(), lease, any::<bool>(), prop_oneof![5 => Just((false, false)), 1 => any::<(bool, bool)>()]).prop_map(
        |(key, value, lease, prev_kv, (ignore_value, ignore_lease))| PutOp {
            key,
            value: if ignore_value { Bytes::new() } else { value },
            lease: if ignore_lease { LeaseId::NONE } else { lease },
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

fn delete() -> impl Strategy<Value = DeleteOp> {
    (range(), any::<bool>()).prop_map(|(range, prev_kv)| DeleteOp { range, prev_kv })
}

fn compare() -> impl Strategy<Value = Compare> {
    let result = proptest::sample::select(vec![
        CompareResult::Equal,
        CompareResult::Greater,
        CompareResult::Less,
        CompareResult::NotEqual,
        CompareResult::Unknown,
    ]);
    let target = prop_oneof![
        (0..3i64).prop_map(CompareTarget::Version),
        (0..12i64).prop_map(CompareTarget::Create),
        (0..12i64).prop_map(CompareTarget::Mod),
        value().prop_map(CompareTarget::Value),
        (0..4i64).prop_map(CompareTarget::Lease),
        Just(CompareTarget::Unknown),
    ];
    (range(), result, target).prop_map(|(range, result, target)| Compare { range, result, target })
}

fn query() -> impl Strategy<Value = RangeQuery> {
    let revision = prop_oneof![5 => Just(0), 1 => -1..14i64];
    (range(), revision, 0..3i64, prop::bool::weighted(0.2)).prop_map(|(range, revision, limit, count_only)| {
        RangeQuery { revision, limit, count_only, ..RangeQuery::latest(range) }
    })
}

fn txn() -> impl Strategy<Value = TxnOp> {
    let leaf = prop_oneof![
        1 => query().prop_map(Op::Range),
        3 => put().prop_map(Op::Put),
        1 => delete().prop_map(Op::Delete),
    ];
    let op = leaf.prop_recursive(3, 16, 3, |inner| {
        (vec(compare(), 0..2), vec(inner.clone(), 0..3), vec(inner, 0..3))
            .prop_map(|(compares, success, failure)| Op::Txn(TxnOp { compares, success, failure }))
    });
    (vec(compare(), 0..3), vec(op.clone(), 0..4), vec(op, 0..4))
        .prop_map(|(compares, success, failure)| TxnOp { compares, success, failure })
        .prop_filter("admitted", |op| admit::check_txn(op, &Limits::default()).is_ok())
}

/// A command that admission lets through.
pub(crate) fn command() -> impl Strategy<Value = Command> {
    let kind = prop_oneof![3 => Just(Some(AlarmKind::NoSpace)), 1 => Just(Some(AlarmKind::Corrupt)), 1 => Just(None)];
    let alarm = (prop::bool::weighted(0.3), 1..3u64, kind);
    prop_oneof![
        12 => put().prop_map(Command::Put),
        4 => delete().prop_map(Command::DeleteRange),
        12 => txn().prop_map(Command::Txn),
        1 => (-1..14i64).prop_map(|revision| Command::Compact { revision }),
        4 => (lease(), 2..50i64).prop_map(|(id, ttl_secs)| Command::LeaseGrant { id, ttl_secs }),
        1 => lease().prop_map(|id| Command::LeaseRevoke { id }),
        1 => vec(lease(), 0..4).prop_map(|ids| Command::LeaseExpire { ids }),
        1 => vec((lease(), -1..60i64), 0..4).prop_map(|remaining| Command::LeaseCheckpoint { remaining }),
        1 => alarm.prop_map(|(activate, member, kind)| Command::Alarm(AlarmOp { activate, member: MemberId(member), kind })),
    ]
}
