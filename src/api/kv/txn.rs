//! Txn: one that only reads is answered from one snapshot and never enters the log.

use std::sync::Arc;

use rusd_proto::etcdserverpb as pb;
use tonic::Status;

use super::write::{submit, unexpected};
use super::{compare, read};
use crate::admit;
use crate::api::grpc::body::ReplyBody;
use crate::api::reply::TxnReply;
use crate::api::services::Services;
use crate::api::{convert, errors};
use crate::apply::{Command, Op, OpResult, Response, TxnOp, TxnResult};
use crate::storage::{Disk, RangeQuery, ReadError, Scoped, Snapshot};
use crate::types::RequestError;

/// `Txn`.
pub(crate) async fn txn(services: Arc<Services>, request: pb::TxnRequest) -> Result<ReplyBody, Status> {
    run(&services, request).await.map(|reply| ReplyBody::unary(&reply)).map_err(|error| errors::status(&error))
}

async fn run(services: &Services, request: pb::TxnRequest) -> Result<TxnReply, RequestError> {
    let serializable = convert::is_serializable(&request);
    let txn = convert::txn(request, services.limits.txn_ops_max)?;
    if admit::is_read_only(&txn) {
        read::barrier(services, serializable).await?;
        let snapshot = services.reader.snapshot();
        let large = is_large(&snapshot, &txn);
        let scoped = read::run(services, snapshot, large, move |snapshot, disk| evaluate(snapshot, &txn, disk)).await?;
        services.metrics.txn(&scoped.value);
        return Ok(TxnReply::new(services.header(scoped.revision), scoped.value));
    }
    match submit(services, Command::Txn(txn)).await? {
        (Response::Txn(result), revision) => {
            services.metrics.txn(&result);
            Ok(TxnReply::new(services.header(revision), result))
        }
        (other, _) => Err(unexpected("a txn", &other)),
    }
}

fn is_large(snapshot: &Snapshot, txn: &TxnOp) -> bool {
    let mut ops = txn.success.iter().chain(&txn.failure);
    txn.compares.iter().any(|compare| read::is_large(snapshot, &RangeQuery::latest(compare.range.clone())))
        || ops.any(|op| matches!(op, Op::Range(query) if read::is_large(snapshot, query)))
}

/// A read-only transaction on one state.
fn evaluate(snapshot: &Snapshot, txn: &TxnOp, disk: Disk) -> Result<Scoped<TxnResult>, ReadError> {
    let succeeded = compare::all_hold(snapshot, &txn.compares, disk)?;
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
            let found = snapshot.range(query, disk)?;
            responses.push(OpResult::Range { result: found.value, revision: found.revision });
        }
    }
    Ok(Scoped {
        value: TxnResult { succeeded, responses },
        revision: snapshot.revision(),
        term: snapshot.position().term,
    })
}
