//! A transaction's compares on a published state, after the rules of etcd's `Compare`.
//!
//! A missing key has version, revisions and lease 0; a value compare on it never holds. Over a
//! range the compare must hold for each key.

use std::cmp::Ordering;

use crate::apply::{Compare, CompareResult, CompareTarget};
use crate::storage::{Disk, RangeQuery, ReadError, Snapshot};
use crate::types::{KeyValue, LeaseId};

/// Whether every compare holds.
///
/// # Errors
/// `NeedsDisk`; anything else that fails in a compare's read makes it false, as in etcd.
pub(super) fn all_hold(snapshot: &Snapshot, compares: &[Compare], disk: Disk) -> Result<bool, ReadError> {
    for compare in compares {
        if !holds(snapshot, compare, disk)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn holds(snapshot: &Snapshot, compare: &Compare, disk: Disk) -> Result<bool, ReadError> {
    let by_value = matches!(compare.target, CompareTarget::Value(_));
    if compare.range.is_single() && !by_value {
        let pair = snapshot.meta_of(&compare.range.start).map_or_else(KeyValue::default, |meta| KeyValue {
            create_revision: meta.create,
            mod_revision: meta.modified.main,
            version: meta.version,
            lease: meta.lease,
            ..KeyValue::default()
        });
        return Ok(pair_holds(compare, &pair));
    }
    // Leases are left out of answers with keys only, so such an answer won't do for them.
    let keys_only = !by_value && !matches!(compare.target, CompareTarget::Lease(_));
    let query = RangeQuery { keys_only, ..RangeQuery::latest(compare.range.clone()) };
    match snapshot.range(&query, disk) {
        Err(ReadError::NeedsDisk) => Err(ReadError::NeedsDisk),
        Err(ReadError::Request(_)) => Ok(false),
        Ok(found) if found.value.kvs.is_empty() => Ok(!by_value && pair_holds(compare, &KeyValue::default())),
        Ok(found) => Ok(found.value.kvs.iter().all(|pair| pair_holds(compare, pair))),
    }
}

fn pair_holds(compare: &Compare, pair: &KeyValue) -> bool {
    let order = match &compare.target {
        CompareTarget::Version(version) => pair.version.cmp(version),
        CompareTarget::Create(revision) => pair.create_revision.cmp(revision),
        CompareTarget::Mod(revision) => pair.mod_revision.cmp(revision),
        CompareTarget::Value(value) => pair.value.cmp(value),
        CompareTarget::Lease(lease) => pair.lease.cmp(&LeaseId(*lease)),
        CompareTarget::Unknown => Ordering::Equal,
    };
    match compare.result {
        CompareResult::Equal => order.is_eq(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
        CompareResult::Unknown => true,
    }
}
