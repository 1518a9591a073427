//! Bytes to commands; the mirror of `encode`.

use super::source::Source;
use super::{CodecError, auth, kind, op_kind, put_flag, range_flag};
use crate::apply::{
    AlarmKind, AlarmOp, Command, Compare, CompareResult, CompareTarget, DeleteOp, OnBehalf, Op, PutOp, TxnOp,
};
use crate::storage::{RangeQuery, SortOrder, SortTarget};
use crate::types::{KeyRange, LeaseId, MemberId, RangeEnd};

pub(super) fn command(from: &mut Source) -> Result<Command, CodecError> {
    match from.byte("its kind")? {
        kind::AS => {
            let caller = auth::caller(from)?;
            // Not on somebody's behalf again.
            let number = from.byte("its kind")?;
            Ok(Command::As(Box::new(OnBehalf { caller, command: plain(number, from)? })))
        }
        number => plain(number, from),
    }
}

fn plain(number: u8, from: &mut Source) -> Result<Command, CodecError> {
    Ok(match number {
        kind::PUT => Command::Put(put(from)?),
        kind::DELETE_RANGE => Command::DeleteRange(delete(from)?),
        kind::TXN => Command::Txn(txn(from)?),
        kind::COMPACT => Command::Compact { revision: from.signed("a revision")? },
        kind::LEASE_GRANT => Command::LeaseGrant { id: lease_id(from)?, ttl_secs: from.signed("a time to live")? },
        kind::LEASE_REVOKE => Command::LeaseRevoke { id: lease_id(from)? },
        kind::LEASE_EXPIRE => Command::LeaseExpire { ids: from.list("leases", 8, lease_id)? },
        kind::LEASE_CHECKPOINT => Command::LeaseCheckpoint {
            remaining: from.list("leases", 9, |from| Ok((lease_id(from)?, from.signed("a remaining time")?)))?,
        },
        kind::ALARM => Command::Alarm(AlarmOp {
            activate: from.bool("an alarm's action")?,
            member: MemberId(from.fixed("a member id")?),
            kind: match from.byte("an alarm's kind")? {
                0 => None,
                1 => Some(AlarmKind::NoSpace),
                2 => Some(AlarmKind::Corrupt),
                3 => Some(AlarmKind::Diverged),
                number => return Err(CodecError::Unknown { what: "alarm", number }),
            },
        }),
        kind::AUTH => Command::Auth(auth::op(from)?),
        number => return Err(CodecError::Unknown { what: "kind", number }),
    })
}

fn lease_id(from: &mut Source) -> Result<LeaseId, CodecError> {
    Ok(LeaseId(from.fixed("a lease id")? as i64))
}

fn put(from: &mut Source) -> Result<PutOp, CodecError> {
    let known = put_flag::PREV_KV | put_flag::IGNORE_VALUE | put_flag::IGNORE_LEASE | put_flag::LEASE;
    let flags = from.flags("put flags", known)?;
    Ok(PutOp {
        key: from.bytes("a key")?,
        value: from.bytes("a value")?,
        lease: if flags & put_flag::LEASE == 0 { LeaseId::NONE } else { lease_id(from)? },
        prev_kv: flags & put_flag::PREV_KV != 0,
        ignore_value: flags & put_flag::IGNORE_VALUE != 0,
        ignore_lease: flags & put_flag::IGNORE_LEASE != 0,
    })
}

fn delete(from: &mut Source) -> Result<DeleteOp, CodecError> {
    Ok(DeleteOp { prev_kv: from.bool("delete flags")?, range: key_range(from)? })
}

fn txn(from: &mut Source) -> Result<TxnOp, CodecError> {
    from.nested(|from| {
        Ok(TxnOp {
            compares: from.list("compares", 4, compare)?,
            success: from.list("operations", 3, operation)?,
            failure: from.list("operations", 3, operation)?,
        })
    })
}

fn operation(from: &mut Source) -> Result<Op, CodecError> {
    Ok(match from.byte("an operation's kind")? {
        op_kind::RANGE => Op::Range(range(from)?),
        op_kind::PUT => Op::Put(put(from)?),
        op_kind::DELETE => Op::Delete(delete(from)?),
        op_kind::TXN => Op::Txn(txn(from)?),
        number => return Err(CodecError::Unknown { what: "operation", number }),
    })
}

fn compare(from: &mut Source) -> Result<Compare, CodecError> {
    let result = match from.byte("a compare's result")? {
        0 => CompareResult::Equal,
        1 => CompareResult::Greater,
        2 => CompareResult::Less,
        3 => CompareResult::NotEqual,
        4 => CompareResult::Unknown,
        number => return Err(CodecError::Unknown { what: "compare result", number }),
    };
    let target = match from.byte("a compare's target")? {
        0 => CompareTarget::Version(from.signed("a version")?),
        1 => CompareTarget::Create(from.signed("a revision")?),
        2 => CompareTarget::Mod(from.signed("a revision")?),
        3 => CompareTarget::Value(from.bytes("a value")?),
        4 => CompareTarget::Lease(from.signed("a lease id")?),
        5 => CompareTarget::Unknown,
        number => return Err(CodecError::Unknown { what: "compare target", number }),
    };
    Ok(Compare { range: key_range(from)?, result, target })
}

fn range(from: &mut Source) -> Result<RangeQuery, CodecError> {
    let known = range_flag::KEYS_ONLY
        | range_flag::COUNT_ONLY
        | range_flag::LIMIT
        | range_flag::REVISION
        | range_flag::SORT
        | range_flag::FILTERS;
    let flags = from.flags("range flags", known)?;
    let mut query = RangeQuery::latest(key_range(from)?);
    query.keys_only = flags & range_flag::KEYS_ONLY != 0;
    query.count_only = flags & range_flag::COUNT_ONLY != 0;
    if flags & range_flag::LIMIT != 0 {
        query.limit = from.signed("a limit")?;
    }
    if flags & range_flag::REVISION != 0 {
        query.revision = from.signed("a revision")?;
    }
    if flags & range_flag::SORT != 0 {
        query.order = match from.byte("a sort order")? {
            0 => SortOrder::None,
            1 => SortOrder::Ascend,
            2 => SortOrder::Descend,
            number => return Err(CodecError::Unknown { what: "sort order", number }),
        };
        query.target = match from.byte("a sort target")? {
            0 => SortTarget::Key,
            1 => SortTarget::Version,
            2 => SortTarget::Create,
            3 => SortTarget::Mod,
            4 => SortTarget::Value,
            number => return Err(CodecError::Unknown { what: "sort target", number }),
        };
    }
    if flags & range_flag::FILTERS != 0 {
        query.min_mod_revision = from.signed("a revision")?;
        query.max_mod_revision = from.signed("a revision")?;
        query.min_create_revision = from.signed("a revision")?;
        query.max_create_revision = from.signed("a revision")?;
    }
    Ok(query)
}

fn key_range(from: &mut Source) -> Result<KeyRange, CodecError> {
    let end = match from.byte("a range's end")? {
        0 => RangeEnd::Single,
        1 => RangeEnd::Unbounded,
        2 => RangeEnd::Before(from.bytes("a range's end")?),
        number => return Err(CodecError::Unknown { what: "range end", number }),
    };
    Ok(KeyRange { start: from.bytes("a key")?, end })
}
