//! Whether a transaction may be proposed, and what kind it is.

use super::duplicates;
use super::request::{check_delete, check_put, check_range, key};
use crate::apply::codec::TXN_DEPTH_MAX;
use crate::apply::{Op, TxnOp};
use crate::types::{Limits, RequestError};

/// Checks a transaction with all that is in it, in etcd's order: number of operations, keys of the
/// compares, each operation of both branches, then changes of one key by two operations.
///
/// An operation with no kind never gets here: the api answers `KeyNotFound` (E57).
///
/// # Errors
/// The first refusal found.
pub fn check_txn(op: &TxnOp, limits: &Limits) -> Result<(), RequestError> {
    shape(op, limits.txn_ops_max, 1)?;
    duplicates::check(&op.success)?;
    duplicates::check(&op.failure)
}

/// A nested transaction may have what is left of the budget after the outer one's own operations.
fn shape(op: &TxnOp, budget: usize, depth: usize) -> Result<(), RequestError> {
    let ops = op.compares.len().max(op.success.len()).max(op.failure.len());
    if ops > budget || depth > TXN_DEPTH_MAX {
        return Err(RequestError::TooManyOps);
    }
    op.compares.iter().try_for_each(|compare| key(&compare.range))?;
    for op in op.success.iter().chain(&op.failure) {
        match op {
            Op::Range(query) => check_range(query)?,
            Op::Put(op) => check_put(op)?,
            Op::Delete(op) => check_delete(op)?,
            Op::Txn(op) => shape(op, budget - ops, depth + 1)?,
        }
    }
    Ok(())
}

/// Whether a transaction is answered without the log: only reads stand directly in both branches.
pub fn is_read_only(op: &TxnOp) -> bool {
    op.success.iter().chain(&op.failure).all(|op| matches!(op, Op::Range(_)))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::apply::{Compare, CompareResult, CompareTarget, DeleteOp, PutOp};
    use crate::storage::RangeQuery;
    use crate::types::KeyRange;

    fn put(key: &str) -> Op {
        Op::Put(PutOp { key: Bytes::copy_from_slice(key.as_bytes()), ..PutOp::default() })
    }

    fn puts(count: usize) -> Vec<Op> {
        (0..count).map(|n| put(&format!("k{n}"))).collect()
    }

    fn txn(success: Vec<Op>) -> TxnOp {
        TxnOp { success, ..TxnOp::default() }
    }

    fn check(op: &TxnOp) -> Result<(), RequestError> {
        check_txn(op, &Limits::default())
    }

    fn compare(key: &'static str) -> Compare {
        Compare { range: KeyRange::single(key), result: CompareResult::Equal, target: CompareTarget::Version(0) }
    }

    #[test]
    fn e58_operations_and_compares_are_counted() {
        assert_eq!(check(&txn(puts(128))), Ok(()));
        assert_eq!(check(&txn(puts(129))), Err(RequestError::TooManyOps));
        let compares = TxnOp { compares: vec![compare("k"); 129], ..TxnOp::default() };
        assert_eq!(check(&compares), Err(RequestError::TooManyOps));
        assert_eq!(check(&TxnOp { failure: puts(129), ..TxnOp::default() }), Err(RequestError::TooManyOps));
    }

    #[test]
    fn e59_a_nested_txn_has_what_the_outer_leaves() {
        let nested = |count| txn(vec![put("outer"), Op::Txn(txn(puts(count)))]);
        assert_eq!(check(&nested(126)), Ok(()));
        assert_eq!(check(&nested(127)), Err(RequestError::TooManyOps));
    }

    #[test]
    fn depth_ends_where_the_codec_ends() {
        let nest = |depth: usize| (1..depth).fold(txn(vec![]), |inner, _| txn(vec![Op::Txn(inner)]));
        let limits = Limits { txn_ops_max: 2 * TXN_DEPTH_MAX, ..Limits::default() };
        assert_eq!(check_txn(&nest(TXN_DEPTH_MAX), &limits), Ok(()));
        assert_eq!(check_txn(&nest(TXN_DEPTH_MAX + 1), &limits), Err(RequestError::TooManyOps));
        // By default the budget of operations ends before: the innermost has none.
        assert_eq!(check(&nest(129)), Ok(()));
        assert_eq!(check(&nest(130)), Err(RequestError::TooManyOps));
    }

    #[test]
    fn everything_inside_is_checked_in_both_branches() {
        assert_eq!(
            check(&TxnOp { compares: vec![compare("")], ..TxnOp::default() }),
            Err(RequestError::EmptyKey),
            "E54"
        );
        let bad = [
            (put(""), RequestError::EmptyKey),
            (Op::Range(RangeQuery::latest(KeyRange::single(""))), RequestError::EmptyKey),
            (Op::Delete(DeleteOp { range: KeyRange::all(), prev_kv: false }), RequestError::EmptyKey),
            (
                Op::Put(PutOp { key: "k".into(), value: "v".into(), ignore_value: true, ..PutOp::default() }),
                RequestError::ValueProvided,
            ),
        ];
        for (op, error) in bad {
            assert_eq!(check(&txn(vec![op.clone()])), Err(error.clone()));
            let nested = Op::Txn(TxnOp { failure: vec![op], ..TxnOp::default() });
            assert_eq!(check(&TxnOp { failure: vec![nested], ..TxnOp::default() }), Err(error));
        }
    }

    #[test]
    fn a_nested_txn_is_no_read_only_one() {
        let read = Op::Range(RangeQuery::latest(KeyRange::single("k")));
        let reads = TxnOp { success: vec![read.clone()], failure: vec![read.clone()], ..TxnOp::default() };
        assert!(is_read_only(&reads));
        assert!(!is_read_only(&txn(vec![Op::Txn(txn(vec![read]))])));
        assert!(!is_read_only(&txn(vec![put("k")])));
    }
}
