//! Commands to bytes; `decode` is its mirror, line by line.

use super::sink::Sink;
use super::{auth, kind, op_kind, put_flag, range_flag};
use crate::apply::{AlarmKind, Command, Compare, CompareResult, CompareTarget, DeleteOp, Op, PutOp, TxnOp};
use crate::storage::{RangeQuery, SortOrder, SortTarget};
use crate::types::{KeyRange, RangeEnd};

pub(super) fn command(out: &mut impl Sink, command: &Command) {
    match command {
        Command::Put(op) => {
            out.byte(kind::PUT);
            put(out, op);
        }
        Command::DeleteRange(op) => {
            out.byte(kind::DELETE_RANGE);
            delete(out, op);
        }
        Command::Txn(op) => {
            out.byte(kind::TXN);
            txn(out, op);
        }
        Command::Compact { revision } => {
            out.byte(kind::COMPACT);
            out.signed(*revision);
        }
        Command::LeaseGrant { id, ttl_secs } => {
            out.byte(kind::LEASE_GRANT);
            out.fixed(id.get() as u64);
            out.signed(*ttl_secs);
        }
        Command::LeaseRevoke { id } => {
            out.byte(kind::LEASE_REVOKE);
            out.fixed(id.get() as u64);
        }
        Command::LeaseExpire { ids } => {
            out.byte(kind::LEASE_EXPIRE);
            out.varint(ids.len() as u64);
            for id in ids {
                out.fixed(id.get() as u64);
            }
        }
        Command::LeaseCheckpoint { remaining } => {
            out.byte(kind::LEASE_CHECKPOINT);
            out.varint(remaining.len() as u64);
            for (id, secs) in remaining {
                out.fixed(id.get() as u64);
                out.signed(*secs);
            }
        }
        Command::Alarm(op) => {
            out.byte(kind::ALARM);
            out.byte(u8::from(op.activate));
            out.fixed(op.member.get());
            out.byte(match op.kind {
                None => 0,
                Some(AlarmKind::NoSpace) => 1,
                Some(AlarmKind::Corrupt) => 2,
                Some(AlarmKind::Diverged) => 3,
            });
        }
        Command::Auth(op) => {
            out.byte(kind::AUTH);
            auth::put_op(out, op);
        }
        Command::As(on_behalf) => {
            out.byte(kind::AS);
            auth::put_caller(out, &on_behalf.caller);
            self::command(out, &on_behalf.command);
        }
    }
}

fn put(out: &mut impl Sink, op: &PutOp) {
    let mut flags = 0;
    for (set, flag) in [
        (op.prev_kv, put_flag::PREV_KV),
        (op.ignore_value, put_flag::IGNORE_VALUE),
        (op.ignore_lease, put_flag::IGNORE_LEASE),
        (!op.lease.is_none(), put_flag::LEASE),
    ] {
        flags |= if set { flag } else { 0 };
    }
    out.byte(flags);
    out.bytes(&op.key);
    out.bytes(&op.value);
    if !op.lease.is_none() {
        out.fixed(op.lease.get() as u64);
    }
}

fn delete(out: &mut impl Sink, op: &DeleteOp) {
    out.byte(u8::from(op.prev_kv));
    key_range(out, &op.range);
}

fn txn(out: &mut impl Sink, op: &TxnOp) {
    out.varint(op.compares.len() as u64);
    for item in &op.compares {
        compare(out, item);
    }
    for branch in [&op.success, &op.failure] {
        out.varint(branch.len() as u64);
        for item in branch {
            operation(out, item);
        }
    }
}

fn operation(out: &mut impl Sink, op: &Op) {
    match op {
        Op::Range(query) => {
            out.byte(op_kind::RANGE);
            range(out, query);
        }
        Op::Put(op) => {
            out.byte(op_kind::PUT);
            put(out, op);
        }
        Op::Delete(op) => {
            out.byte(op_kind::DELETE);
            delete(out, op);
        }
        Op::Txn(op) => {
            out.byte(op_kind::TXN);
            txn(out, op);
        }
    }
}

fn compare(out: &mut impl Sink, compare: &Compare) {
    out.byte(match compare.result {
        CompareResult::Equal => 0,
        CompareResult::Greater => 1,
        CompareResult::Less => 2,
        CompareResult::NotEqual => 3,
        CompareResult::Unknown => 4,
    });
    match &compare.target {
        CompareTarget::Version(number) => number_target(out, 0, *number),
        CompareTarget::Create(number) => number_target(out, 1, *number),
        CompareTarget::Mod(number) => number_target(out, 2, *number),
        CompareTarget::Value(value) => {
            out.byte(3);
            out.bytes(value);
        }
        CompareTarget::Lease(number) => number_target(out, 4, *number),
        CompareTarget::Unknown => out.byte(5),
    }
    key_range(out, &compare.range);
}

fn number_target(out: &mut impl Sink, target: u8, number: i64) {
    out.byte(target);
    out.signed(number);
}

fn range(out: &mut impl Sink, query: &RangeQuery) {
    let sorted = query.order != SortOrder::None || query.target != SortTarget::Key;
    let filters =
        [query.min_mod_revision, query.max_mod_revision, query.min_create_revision, query.max_create_revision];
    let filtered = filters.iter().any(|bound| *bound != 0);
    let mut flags = 0;
    for (set, flag) in [
        (query.keys_only, range_flag::KEYS_ONLY),
        (query.count_only, range_flag::COUNT_ONLY),
        (query.limit != 0, range_flag::LIMIT),
        (query.revision != 0, range_flag::REVISION),
        (sorted, range_flag::SORT),
        (filtered, range_flag::FILTERS),
    ] {
        flags |= if set { flag } else { 0 };
    }
    out.byte(flags);
    key_range(out, &query.range);
    if query.limit != 0 {
        out.signed(query.limit);
    }
    if query.revision != 0 {
        out.signed(query.revision);
    }
    if sorted {
        out.byte(match query.order {
            SortOrder::None => 0,
            SortOrder::Ascend => 1,
            SortOrder::Descend => 2,
        });
        out.byte(match query.target {
            SortTarget::Key => 0,
            SortTarget::Version => 1,
            SortTarget::Create => 2,
            SortTarget::Mod => 3,
            SortTarget::Value => 4,
        });
    }
    if filtered {
        for bound in filters {
            out.signed(bound);
        }
    }
}

fn key_range(out: &mut impl Sink, range: &KeyRange) {
    match &range.end {
        RangeEnd::Single => out.byte(0),
        RangeEnd::Unbounded => out.byte(1),
        RangeEnd::Before(end) => {
            out.byte(2);
            out.bytes(end);
        }
    }
    out.bytes(&range.start);
}
