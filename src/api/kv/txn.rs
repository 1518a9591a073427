//! Txn: one that only reads is answered from one snapshot and never enters the log.

use std::sync::Arc;

use rusd_proto::etcdserverpb as pb;
use tonic::Status;

use super::meter::Meter;
use super::write::{admit, over_quota, propose_permitted, refuse, unexpected};
use super::{compare, read, room};
use crate::admit::is_read_only;
use crate::api::auth::CallContext;
use crate::api::grpc::body::ReplyBody;
use crate::api::grpc::decode::Nesting;
use crate::api::reply::TxnReply;
use crate::api::services::Services;
use crate::api::{convert, errors};
use crate::apply::{Command, Op, OpResult, Response, TxnOp, TxnResult, rights};
use crate::auth::Access;
use crate::storage::{Disk, RangeQuery, ReadError, Scoped, Snapshot, StoreReader};
use crate::types::{Held, KeyRange, RequestError};

/// Keys that the conditions and reads of a transaction may look at when it goes through the log: all
/// writes wait meanwhile. etcd has no such bound, and stands still for as long as it takes.
const TOUCHED_KEYS_MAX: i64 = 4_000_000;

/// `Txn`.
pub(crate) async fn txn(call: CallContext, Nesting(request): Nesting) -> Result<ReplyBody, Status> {
    let answers = &call.budgets.answers;
    match run(&call, request).await.map_err(|error| errors::status(&error))? {
        (reply, Kind::Read(_held)) => ReplyBody::message(&reply, answers),
        (reply, Kind::Write) => ReplyBody::done(&reply, answers),
    }
}

/// What an answer is to.
enum Kind {
    /// Reads only, with what they hold in memory.
    Read(Option<Held>),
    Write,
}

async fn run(call: &CallContext, request: pb::TxnRequest) -> Result<(TxnReply, Kind), RequestError> {
    if let Err(refusal) = over_quota(call, convert::txn_cost(&request)) {
        let txn = convert::txn(request, call.limits.txn_ops_max);
        let may_write = txn.is_ok_and(|txn| call.may(&Command::Txn(txn)));
        return Err(refuse(call, refusal, may_write).await);
    }
    let serializable = convert::is_serializable(&request);
    let txn = convert::txn(request, call.limits.txn_ops_max)?;
    if is_read_only(&txn) {
        read::barrier(call, serializable).await?;
        let txn = Arc::new(txn);
        let check = |access: Access<'_>| rights::txn(&txn, access, &call.lessor);
        let (scoped, held) = call.permitted(check, read_published(call, &txn)).await?;
        call.metrics.txn(&scoped.value);
        return Ok((TxnReply::new(call.header(scoped.revision), scoped.value), Kind::Read(held)));
    }
    let command = Command::Txn(txn);
    admit(call, &command).await?;
    // Only who may read what is counted is told whether there is too much of it.
    let command = call.on_behalf(command).await?;
    if touches_too_much(&call.reader, command.plain()) {
        return Err(RequestError::TooManyOps);
    }
    room::for_answer(&call.budgets.answers, &command)?;
    match propose_permitted(call, command).await? {
        (Response::Txn(result), revision) => Ok((TxnReply::new(call.header(revision), result), Kind::Write)),
        (other, _) => Err(unexpected("a txn", &other)),
    }
}

async fn read_published(
    services: &Services,
    txn: &Arc<TxnOp>,
) -> Result<(Scoped<TxnResult>, Option<Held>), RequestError> {
    let snapshot = services.reader.snapshot();
    let large = is_large(&snapshot, txn);
    let txn = Arc::clone(txn);
    let evaluate = move |snapshot: &Snapshot, disk, meter: &mut Meter| evaluate(snapshot, &txn, disk, meter);
    read::run(services, snapshot, large, evaluate).await
}

fn touches_too_much(reader: &StoreReader, command: &Command) -> bool {
    matches!(command, Command::Txn(txn) if touched(reader, txn) > TOUCHED_KEYS_MAX)
}

/// About how many keys a transaction looks at: ranges that are compared (each once), read, or returned when deleted.
/// It isn't counted on once there are too many.
fn touched(reader: &StoreReader, txn: &TxnOp) -> i64 {
    let (mut keys, mut snapshot) = (0_i64, None);
    add_touched(&mut keys, txn, &mut |range: &KeyRange| {
        if range.is_single() { 1 } else { snapshot.get_or_insert_with(|| reader.snapshot()).count(range) }
    });
    keys
}

fn add_touched(keys: &mut i64, txn: &TxnOp, count: &mut impl FnMut(&KeyRange) -> i64) {
    for (at, compare) in txn.compares.iter().enumerate() {
        if !compare.range.is_single() && !txn.compares[..at].iter().any(|before| before.range == compare.range) {
            *keys = keys.saturating_add(count(&compare.range));
        }
    }
    for op in txn.success.iter().chain(&txn.failure) {
        if *keys > TOUCHED_KEYS_MAX {
            return;
        }
        match op {
            Op::Range(query) if !query.count_only => *keys = keys.saturating_add(count(&query.range)),
            Op::Delete(op) if op.prev_kv => *keys = keys.saturating_add(count(&op.range)),
            Op::Txn(txn) => add_touched(keys, txn, count),
            Op::Range(_) | Op::Put(_) | Op::Delete(_) => {}
        }
    }
}

fn is_large(snapshot: &Snapshot, txn: &TxnOp) -> bool {
    let mut ops = txn.success.iter().chain(&txn.failure);
    txn.compares.iter().any(|compare| read::is_large(snapshot, &RangeQuery::latest(compare.range.clone())))
        || ops.any(|op| matches!(op, Op::Range(query) if read::is_large(snapshot, query)))
}

/// A read-only transaction on one state.
fn evaluate(snapshot: &Snapshot, txn: &TxnOp, disk: Disk, meter: &mut Meter) -> Result<Scoped<TxnResult>, ReadError> {
    let succeeded = compare::all(snapshot, &txn.compares, disk)?;
    let taken = if succeeded { &txn.success } else { &txn.failure };
    for op in taken {
        if let Op::Range(query) = op {
            snapshot.check_in_txn(query.revision)?;
        }
    }
    let mut responses = Vec::new();
    for op in taken {
        // Only reads are here: `is_read_only` looked at both branches.
        if let Op::Range(query) = op {
            let found = snapshot.range_gathered(query, disk, |bytes| meter.add(bytes))?;
            responses.push(OpResult::Range { result: found.value, revision: found.revision });
        }
    }
    Ok(Scoped {
        value: TxnResult { succeeded, responses },
        revision: snapshot.revision(),
        term: snapshot.position().term,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::{Compare, CompareResult, CompareTarget, DeleteOp};
    use crate::storage::{AppliedPosition, Store};
    use crate::types::LeaseId;

    #[test]
    fn what_a_txn_looks_at_is_counted_through_all_levels() {
        let mut store = Store::in_memory();
        for key in 0..100 {
            let mut txn = store.begin();
            txn.put(format!("{key:02}").into(), "v".into(), LeaseId::NONE);
            txn.commit();
        }
        store.publish(AppliedPosition::default()).unwrap();
        let (all, half) = (KeyRange::all(), KeyRange::from_wire("50".into(), [0][..].into()));
        let compare = |range: &KeyRange| Compare {
            range: range.clone(),
            result: CompareResult::Equal,
            target: CompareTarget::Value("v".into()),
        };
        let read = |range: &KeyRange| Op::Range(RangeQuery::latest(range.clone()));
        let compares = TxnOp { compares: [&all, &half, &all].map(compare).into(), ..TxnOp::default() };
        assert_eq!(touched(&store.reader(), &compares), 150, "a range is compared once");
        let delete = |prev_kv| Op::Delete(DeleteOp { range: half.clone(), prev_kv });
        let nested = TxnOp { failure: vec![read(&all), delete(true), delete(false)], ..compares };
        let outer = TxnOp { success: vec![read(&KeyRange::single("1")), Op::Txn(nested)], ..TxnOp::default() };
        assert_eq!(touched(&store.reader(), &outer), 301);
    }
}
