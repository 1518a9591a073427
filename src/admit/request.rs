//! Checks of single requests, and all checks of a command in etcd's order.

use super::txn::check_txn;
use crate::apply::{AlarmView, Command, DeleteOp, PutOp, codec, cost};
use crate::storage::RangeQuery;
use crate::types::{KeyRange, Limits, RequestError};

/// Why a command is not proposed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Answer with this.
    Request(RequestError),
    /// Answer with `NoSpace`, and raise that alarm for this member: its quota is used up.
    OverQuota,
}

impl From<RequestError> for Refusal {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl From<Refusal> for RequestError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Request(error) => error,
            Refusal::OverQuota => Self::NoSpace,
        }
    }
}

/// All checks of a command, in etcd's order: quota, shape, size, alarms.
///
/// `logical_size` is the published store's. Apply checks the alarms again, since they may change
/// while the command waits; here they spare the log entries that would do nothing.
///
/// # Errors
/// The first refusal.
pub fn command(command: &Command, limits: &Limits, logical_size: u64, alarms: &AlarmView) -> Result<(), Refusal> {
    quota(command, limits, logical_size)?;
    match command {
        Command::Put(op) => check_put(op)?,
        Command::DeleteRange(op) => check_delete(op)?,
        Command::Txn(op) => check_txn(op, limits)?,
        _ => {}
    }
    check_size(command, limits)?;
    Ok(alarms.check(command)?)
}

/// Whether there is room for what a command may add.
///
/// # Errors
/// `OverQuota` if the size with the command's cost would reach the quota.
pub fn quota(command: &Command, limits: &Limits, logical_size: u64) -> Result<(), Refusal> {
    quota_for(cost::of(command), limits, logical_size)
}

/// Whether there is room for `cost` bytes more.
///
/// # Errors
/// As [`quota`].
pub fn quota_for(cost: u64, limits: &Limits, logical_size: u64) -> Result<(), Refusal> {
    match limits.quota_bytes {
        Some(quota) if cost > 0 && logical_size.saturating_add(cost) >= quota => Err(Refusal::OverQuota),
        _ => Ok(()),
    }
}

/// Whether a command is small enough for the log.
///
/// # Errors
/// `RequestTooLarge`.
pub fn check_size(command: &Command, limits: &Limits) -> Result<(), RequestError> {
    if codec::encoded_len(command) > limits.request_bytes_max { Err(RequestError::RequestTooLarge) } else { Ok(()) }
}

/// Whether a put makes sense by itself.
///
/// # Errors
/// `EmptyKey`, `ValueProvided`, `LeaseProvided`.
pub fn check_put(op: &PutOp) -> Result<(), RequestError> {
    if op.key.is_empty() {
        return Err(RequestError::EmptyKey);
    }
    if op.ignore_value && !op.value.is_empty() {
        return Err(RequestError::ValueProvided);
    }
    if op.ignore_lease && !op.lease.is_none() {
        return Err(RequestError::LeaseProvided);
    }
    Ok(())
}

/// Whether a delete makes sense by itself.
///
/// # Errors
/// `EmptyKey`.
pub fn check_delete(op: &DeleteOp) -> Result<(), RequestError> {
    key(&op.range)
}

/// Whether a read makes sense by itself; its sort numbers are checked by [`super::sort_order`] and [`super::sort_target`].
///
/// # Errors
/// `EmptyKey`, even with a range end.
pub fn check_range(query: &RangeQuery) -> Result<(), RequestError> {
    key(&query.range)
}

pub(super) fn key(range: &KeyRange) -> Result<(), RequestError> {
    if range.start.is_empty() { Err(RequestError::EmptyKey) } else { Ok(()) }
}

/// The time to live that is granted for a wished one, in seconds.
///
/// # Errors
/// `LeaseTtlTooLarge` above the longest; shorter ones than the shortest are raised to it.
pub fn lease_ttl(wished_secs: i64, limits: &Limits) -> Result<i64, RequestError> {
    if wished_secs > limits.lease_ttl_secs_max {
        return Err(RequestError::LeaseTtlTooLarge);
    }
    Ok(wished_secs.max(limits.lease_ttl_secs_min))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::LeaseId;

    fn put(key: &'static str, len: usize) -> PutOp {
        PutOp { key: key.into(), value: vec![0; len].into(), ..PutOp::default() }
    }

    #[test]
    fn a_put_keeps_or_gives_but_not_both() {
        assert_eq!(check_put(&put("", 0)), Err(RequestError::EmptyKey));
        assert_eq!(check_put(&PutOp { ignore_value: true, ..put("k", 1) }), Err(RequestError::ValueProvided));
        let lease = PutOp { ignore_lease: true, lease: LeaseId(5), ..put("k", 1) };
        assert_eq!(check_put(&lease), Err(RequestError::LeaseProvided));
        assert_eq!(check_put(&PutOp { ignore_value: true, ignore_lease: true, ..put("k", 0) }), Ok(()));
    }

    #[test]
    fn an_empty_key_is_refused_even_with_an_end() {
        let all = KeyRange::from_wire(Bytes::new(), Bytes::from_static(&[0]));
        assert_eq!(check_range(&RangeQuery::latest(all.clone())), Err(RequestError::EmptyKey));
        assert_eq!(check_delete(&DeleteOp { range: all, prev_kv: false }), Err(RequestError::EmptyKey));
    }

    #[test]
    fn sizes_are_those_of_e33() {
        let limits = Limits::default();
        assert_eq!(check_size(&Command::Put(put("k", 1_572_000)), &limits), Ok(()));
        assert_eq!(check_size(&Command::Put(put("k", 1_572_864)), &limits), Err(RequestError::RequestTooLarge));
    }

    #[test]
    fn the_quota_comes_first_and_counts_the_cost() {
        let limits = Limits { quota_bytes: Some(1000), ..Limits::default() };
        let alarms = AlarmView::default();
        let fits = Command::Put(put("k", 42));
        assert_eq!(command(&fits, &limits, 700, &alarms), Ok(()));
        assert_eq!(command(&fits, &limits, 701, &alarms), Err(Refusal::OverQuota), "700 + 299 < 1000 only");
        assert_eq!(command(&Command::Put(put("", 0)), &limits, 900, &alarms), Err(Refusal::OverQuota));
        assert_eq!(command(&Command::Compact { revision: 1 }, &limits, 5000, &alarms), Ok(()));
        let off = Limits { quota_bytes: None, ..Limits::default() };
        assert_eq!(command(&fits, &off, u64::MAX, &alarms), Ok(()));
        assert_eq!(RequestError::from(Refusal::OverQuota), RequestError::NoSpace);
    }

    #[test]
    fn short_leases_are_raised_and_long_ones_refused() {
        let limits = Limits::default();
        for wished in [i64::MIN, -5, 0, 1, 2] {
            assert_eq!(lease_ttl(wished, &limits), Ok(2));
        }
        assert_eq!(lease_ttl(9_000_000_000, &limits), Ok(9_000_000_000));
        assert_eq!(lease_ttl(9_000_000_001, &limits), Err(RequestError::LeaseTtlTooLarge));
    }
}
