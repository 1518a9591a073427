//! Requests from the wire into the house's own types, with the checks that need the wire's form.
//!
//! ```text
//! RangeRequest ─► RangeQuery     unknown sort numbers are refused here, since ours have no room for them
//! TxnRequest   ─► TxnOp          an empty union is "key not found"; depth and counts are bounded on the way
//! ```
//! The order of the checks is etcd's, since the first one that fails is what the client sees.

use bytes::Bytes;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::compare::TargetUnion;
use rusd_proto::etcdserverpb::request_op::Request;
use rusd_proto::mvccpb;

use crate::admit;
use crate::apply::cost;
use crate::apply::{Compare, CompareResult, CompareTarget, DeleteOp, Op, PutOp, TxnOp};
use crate::storage::RangeQuery;
use crate::types::{KeyRange, KeyValue, LeaseId, RequestError};

/// A range read.
///
/// # Errors
/// `EmptyKey`, `InvalidSortOption`.
pub(crate) fn range(request: pb::RangeRequest) -> Result<RangeQuery, RequestError> {
    if request.key.is_empty() {
        return Err(RequestError::EmptyKey);
    }
    let order = admit::sort_order(request.sort_order)?;
    let target = admit::sort_target(request.sort_target)?;
    Ok(RangeQuery {
        range: KeyRange::from_wire(request.key, request.range_end),
        limit: request.limit,
        revision: request.revision,
        order,
        target,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    })
}

/// A pair as a generated message has it.
pub(crate) fn key_value(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: kv.value,
        lease: kv.lease.get(),
    }
}

/// A put; nothing is checked.
pub(crate) fn put(request: pb::PutRequest) -> PutOp {
    PutOp {
        key: request.key,
        value: request.value,
        lease: LeaseId(request.lease),
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

/// A delete; nothing is checked.
pub(crate) fn delete(request: pb::DeleteRangeRequest) -> DeleteOp {
    DeleteOp { range: KeyRange::from_wire(request.key, request.range_end), prev_kv: request.prev_kv }
}

/// What a transaction may add to the store, in bytes, by its form on the wire: the quota comes before all
/// other checks. As [`crate::apply::cost`] has it, but nested ones, whose depth isn't checked yet, count nothing.
pub(crate) fn txn_cost(request: &pb::TxnRequest) -> u64 {
    let put = |op: &pb::RequestOp| match &op.request {
        Some(Request::RequestPut(put)) => cost::put(put.key.len(), put.value.len()),
        _ => 0,
    };
    let branch = |ops: &[pb::RequestOp]| ops.iter().map(put).sum::<u64>();
    branch(&request.success).max(branch(&request.failure))
}

/// A transaction of at most `ops_max` compares and operations, nested ones counted off the outer one's rest.
///
/// `admit` checks the shape again, and more; here it is done on the way so that what is found first
/// is what etcd finds first, and so that a request out of bounds is not even converted.
///
/// # Errors
/// `TooManyOps`, and what the compares and operations are refused for, first one first. The
/// recursion ends with `ops_max`, since a level takes at least one of them, and with what was decoded.
pub(crate) fn txn(request: pb::TxnRequest, ops_max: usize) -> Result<TxnOp, RequestError> {
    let count = request.compare.len().max(request.success.len()).max(request.failure.len());
    let rest = ops_max.checked_sub(count).ok_or(RequestError::TooManyOps)?;
    Ok(TxnOp {
        compares: request.compare.into_iter().map(compare).collect::<Result<_, _>>()?,
        success: request.success.into_iter().map(|op| operation(op, rest)).collect::<Result<_, _>>()?,
        failure: request.failure.into_iter().map(|op| operation(op, rest)).collect::<Result<_, _>>()?,
    })
}

fn operation(op: pb::RequestOp, rest: usize) -> Result<Op, RequestError> {
    Ok(match op.request.ok_or(RequestError::KeyNotFound)? {
        Request::RequestRange(request) => Op::Range(range(request)?),
        Request::RequestPut(request) => {
            let op = put(request);
            admit::check_put(&op)?;
            Op::Put(op)
        }
        Request::RequestDeleteRange(request) => {
            let op = delete(request);
            admit::check_delete(&op)?;
            Op::Delete(op)
        }
        Request::RequestTxn(request) => Op::Txn(txn(request, rest)?),
    })
}

fn compare(request: pb::Compare) -> Result<Compare, RequestError> {
    if request.key.is_empty() {
        return Err(RequestError::EmptyKey);
    }
    let result = match request.result {
        0 => CompareResult::Equal,
        1 => CompareResult::Greater,
        2 => CompareResult::Less,
        3 => CompareResult::NotEqual,
        _ => CompareResult::Unknown,
    };
    // A union member of another target counts as absent, which is 0 or empty.
    let union = request.target_union;
    let target = match request.target {
        0 => CompareTarget::Version(match union {
            Some(TargetUnion::Version(version)) => version,
            _ => 0,
        }),
        1 => CompareTarget::Create(match union {
            Some(TargetUnion::CreateRevision(revision)) => revision,
            _ => 0,
        }),
        2 => CompareTarget::Mod(match union {
            Some(TargetUnion::ModRevision(revision)) => revision,
            _ => 0,
        }),
        3 => CompareTarget::Value(match union {
            Some(TargetUnion::Value(value)) => value,
            _ => Bytes::new(),
        }),
        4 => CompareTarget::Lease(match union {
            Some(TargetUnion::Lease(lease)) => lease,
            _ => 0,
        }),
        _ => CompareTarget::Unknown,
    };
    Ok(Compare { range: KeyRange::from_wire(request.key, request.range_end), result, target })
}

/// Whether every read of a read-only transaction may be answered from local state.
pub(crate) fn is_serializable(request: &pb::TxnRequest) -> bool {
    request
        .success
        .iter()
        .chain(&request.failure)
        .all(|op| matches!(&op.request, Some(Request::RequestRange(range)) if range.serializable))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put_op(key: &'static str) -> pb::RequestOp {
        pb::RequestOp { request: Some(Request::RequestPut(pb::PutRequest { key: key.into(), ..Default::default() })) }
    }

    fn nested(ops: usize) -> pb::RequestOp {
        let success = (0..ops).map(|_| put_op("k")).collect();
        pb::RequestOp { request: Some(Request::RequestTxn(pb::TxnRequest { success, ..Default::default() })) }
    }

    #[test]
    fn nested_operations_count_off_the_outer_ones_rest() {
        let outer = |inner| pb::TxnRequest { success: vec![put_op("a"), nested(inner)], ..Default::default() };
        assert!(txn(outer(126), 128).is_ok());
        assert_eq!(txn(outer(127), 128), Err(RequestError::TooManyOps));
        let flat =
            |ops: usize| pb::TxnRequest { failure: (0..ops).map(|_| put_op("a")).collect(), ..Default::default() };
        assert!(txn(flat(128), 128).is_ok());
        assert_eq!(txn(flat(129), 128), Err(RequestError::TooManyOps));
    }

    #[test]
    fn an_empty_union_is_a_missing_key_and_unknown_numbers_are_kept() {
        let empty = pb::TxnRequest { success: vec![pb::RequestOp { request: None }], ..Default::default() };
        assert_eq!(txn(empty, 128), Err(RequestError::KeyNotFound));
        let odd = pb::Compare { key: "k".into(), result: 9, target: 9, ..Default::default() };
        let odd = compare(odd).unwrap();
        assert_eq!((odd.result, odd.target), (CompareResult::Unknown, CompareTarget::Unknown));
        let wrong = pb::Compare {
            key: "k".into(),
            target: 0,
            target_union: Some(TargetUnion::ModRevision(7)),
            ..Default::default()
        };
        assert_eq!(compare(wrong).unwrap().target, CompareTarget::Version(0));
    }

    #[test]
    fn the_first_failing_check_is_what_the_client_sees() {
        let both = pb::RangeRequest { sort_order: 9, ..Default::default() };
        assert_eq!(range(both.clone()), Err(RequestError::EmptyKey));
        assert_eq!(range(pb::RangeRequest { key: "k".into(), ..both }), Err(RequestError::InvalidSortOption));
    }
}
