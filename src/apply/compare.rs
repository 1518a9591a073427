//! Whether a transaction's condition holds (02 §5).

use std::cmp::Ordering;

use bytes::Bytes;

use super::{Compare, CompareResult, CompareTarget};
use crate::storage::{KeyMeta, WriteTxn};
use crate::types::{LeaseId, RequestError, Revision};

/// What a missing key counts as.
const MISSING: KeyMeta =
    KeyMeta { create: 0, modified: Revision { main: 0, sub: 0 }, version: 0, lease: LeaseId::NONE };

/// Whether `compare` holds for every key of its range.
///
/// With no key there, numbers are compared with 0 and a value never holds, not even "not equal".
///
/// # Errors
/// Only the disk's, under a value.
pub(super) fn holds(txn: &WriteTxn<'_>, compare: &Compare) -> Result<bool, RequestError> {
    if let CompareTarget::Value(given) = &compare.target {
        return value_holds(txn, compare, given);
    }
    if compare.range.is_single() {
        let meta = txn.meta_of(&compare.range.start).unwrap_or(MISSING);
        return Ok(number_holds(compare, &meta));
    }
    let (mut any, mut all) = (false, true);
    txn.visit(&compare.range, |meta, _| {
        any = true;
        all = all && number_holds(compare, meta);
    });
    Ok(if any { all } else { number_holds(compare, &MISSING) })
}

fn number_holds(compare: &Compare, meta: &KeyMeta) -> bool {
    let order = match compare.target {
        CompareTarget::Version(given) => meta.version.cmp(&given),
        CompareTarget::Create(given) => meta.create.cmp(&given),
        CompareTarget::Mod(given) => meta.modified.main.cmp(&given),
        CompareTarget::Lease(given) => meta.lease.get().cmp(&given),
        CompareTarget::Unknown | CompareTarget::Value(_) => Ordering::Equal,
    };
    result_holds(compare.result, order)
}

fn value_holds(txn: &WriteTxn<'_>, compare: &Compare, given: &Bytes) -> Result<bool, RequestError> {
    let mut keys = Vec::new();
    if compare.range.is_single() {
        keys.push(compare.range.start.clone());
    } else {
        txn.visit(&compare.range, |_, key| keys.push(Bytes::copy_from_slice(key)));
    }
    let mut any = false;
    for key in keys {
        let Some(pair) = txn.value_of(&key)? else { continue };
        if !result_holds(compare.result, pair.value.cmp(given)) {
            return Ok(false);
        }
        any = true;
    }
    Ok(any)
}

fn result_holds(result: CompareResult, order: Ordering) -> bool {
    match result {
        CompareResult::Equal => order.is_eq(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
        CompareResult::Unknown => true,
    }
}
