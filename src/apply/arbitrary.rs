//! Random commands for property tests.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::{AlarmKind, AlarmOp, Command, Compare, CompareResult, CompareTarget, DeleteOp, Op, PutOp, TxnOp};
use crate::auth::{AuthOp, Caller, PasswordHash, PermissionKind};
use crate::storage::{RangeQuery, SortOrder, SortTarget};
use crate::types::{KeyRange, LeaseId, MemberId};

fn bytes(len_max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..=len_max).prop_map(Bytes::from)
}

fn key_range() -> impl Strategy<Value = KeyRange> {
    (bytes(4), prop_oneof![Just(Bytes::new()), Just(Bytes::from_static(&[0])), bytes(4)])
        .prop_map(|(key, end)| KeyRange::from_wire(key, end))
}

fn put() -> impl Strategy<Value = PutOp> {
    (bytes(8), bytes(200), any::<i64>(), any::<[bool; 3]>()).prop_map(
        |(key, value, lease, [prev_kv, ignore_value, ignore_lease])| PutOp {
            key,
            value,
            lease: LeaseId(lease),
            prev_kv,
            ignore_value,
            ignore_lease,
        },
    )
}

fn delete() -> impl Strategy<Value = DeleteOp> {
    (key_range(), any::<bool>()).prop_map(|(range, prev_kv)| DeleteOp { range, prev_kv })
}

fn compare() -> impl Strategy<Value = Compare> {
    let result = prop_oneof![
        Just(CompareResult::Equal),
        Just(CompareResult::Greater),
        Just(CompareResult::Less),
        Just(CompareResult::NotEqual),
        Just(CompareResult::Unknown),
    ];
    let target = prop_oneof![
        any::<i64>().prop_map(CompareTarget::Version),
        any::<i64>().prop_map(CompareTarget::Create),
        any::<i64>().prop_map(CompareTarget::Mod),
        bytes(8).prop_map(CompareTarget::Value),
        any::<i64>().prop_map(CompareTarget::Lease),
        Just(CompareTarget::Unknown),
    ];
    (key_range(), result, target).prop_map(|(range, result, target)| Compare { range, result, target })
}

fn query() -> impl Strategy<Value = RangeQuery> {
    let order = prop_oneof![Just(SortOrder::None), Just(SortOrder::Ascend), Just(SortOrder::Descend)];
    let target = prop_oneof![
        Just(SortTarget::Key),
        Just(SortTarget::Version),
        Just(SortTarget::Create),
        Just(SortTarget::Mod),
        Just(SortTarget::Value),
    ];
    (
        key_range(),
        any::<(i64, i64)>(),
        order,
        target,
        any::<(bool, bool)>(),
        prop_oneof![Just([0; 4]), any::<[i64; 4]>()],
    )
        .prop_map(|(range, (limit, revision), order, target, (keys_only, count_only), bounds)| RangeQuery {
            range,
            limit,
            revision,
            order,
            target,
            keys_only,
            count_only,
            min_mod_revision: bounds[0],
            max_mod_revision: bounds[1],
            min_create_revision: bounds[2],
            max_create_revision: bounds[3],
        })
}

fn txn() -> impl Strategy<Value = TxnOp> {
    let leaf = prop_oneof![query().prop_map(Op::Range), put().prop_map(Op::Put), delete().prop_map(Op::Delete),];
    let op = leaf.prop_recursive(3, 24, 4, |inner| {
        (vec(compare(), 0..3), vec(inner.clone(), 0..3), vec(inner, 0..3))
            .prop_map(|(compares, success, failure)| Op::Txn(TxnOp { compares, success, failure }))
    });
    (vec(compare(), 0..4), vec(op.clone(), 0..4), vec(op, 0..4)).prop_map(|(compares, success, failure)| TxnOp {
        compares,
        success,
        failure,
    })
}

fn auth() -> impl Strategy<Value = AuthOp> {
    let name = || "[a-cü]{0,3}";
    let hash = || name().prop_map(PasswordHash::new);
    let kind = prop_oneof![Just(PermissionKind::Read), Just(PermissionKind::Write), Just(PermissionKind::ReadWrite)];
    prop_oneof![
        Just(AuthOp::Enable),
        Just(AuthOp::Disable),
        (name(), proptest::option::of(hash())).prop_map(|(name, password)| AuthOp::UserAdd { name, password }),
        name().prop_map(|name| AuthOp::UserDelete { name }),
        (name(), hash()).prop_map(|(name, password)| AuthOp::UserChangePassword { name, password }),
        (name(), name()).prop_map(|(name, role)| AuthOp::UserGrantRole { name, role }),
        (name(), name()).prop_map(|(name, role)| AuthOp::UserRevokeRole { name, role }),
        name().prop_map(|name| AuthOp::RoleAdd { name }),
        name().prop_map(|name| AuthOp::RoleDelete { name }),
        (name(), kind, bytes(4), bytes(4)).prop_map(|(role, kind, key, range_end)| AuthOp::RoleGrant {
            role,
            kind,
            key,
            range_end
        }),
        (name(), bytes(4), bytes(4)).prop_map(|(role, key, range_end)| AuthOp::RoleRevoke { role, key, range_end }),
        (name(), any::<[u8; 32]>(), any::<u64>()).prop_map(|(name, token, revision)| AuthOp::Issue {
            name,
            token,
            revision
        }),
    ]
}

/// Any command, on somebody's behalf or not.
pub(crate) fn command() -> impl Strategy<Value = Command> {
    let caller = prop_oneof![
        2 => Just(Caller::Nobody),
        1 => Just(Caller::Member),
        2 => ("[a-cü]{0,3}", any::<u64>())
            .prop_map(|(name, revision)| Caller::User { name: name.as_str().into(), revision }),
    ];
    (plain(), caller).prop_map(|(command, caller)| command.by(caller))
}

/// Any command of nobody's.
fn plain() -> impl Strategy<Value = Command> {
    let lease = any::<i64>().prop_map(LeaseId);
    let kinds = [AlarmKind::NoSpace, AlarmKind::Corrupt, AlarmKind::Diverged];
    let alarm = prop_oneof![Just(None), prop::sample::select(kinds.to_vec()).prop_map(Some)];
    prop_oneof![
        4 => put().prop_map(Command::Put),
        2 => delete().prop_map(Command::DeleteRange),
        6 => txn().prop_map(Command::Txn),
        1 => any::<i64>().prop_map(|revision| Command::Compact { revision }),
        1 => (lease.clone(), any::<i64>()).prop_map(|(id, ttl_secs)| Command::LeaseGrant { id, ttl_secs }),
        1 => lease.clone().prop_map(|id| Command::LeaseRevoke { id }),
        1 => vec(lease.clone(), 0..6).prop_map(|ids| Command::LeaseExpire { ids }),
        1 => vec((lease, any::<i64>()), 0..6).prop_map(|remaining| Command::LeaseCheckpoint { remaining }),
        1 => (any::<bool>(), any::<u64>(), alarm).prop_map(|(activate, member, kind)| {
            Command::Alarm(AlarmOp { activate, member: MemberId(member), kind })
        }),
        2 => auth().prop_map(Command::Auth),
    ]
}
