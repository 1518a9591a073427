//! Campaign, Proclaim, Leader and Resign.

use bytes::Bytes;
use rusd_proto::v3electionpb as pb;
use tonic::Status;

use super::{
    Session, Waiting, begin, contend, created_at, give_up, oldest, own, prefix, room, txn, unknown, wait_first,
};
use crate::api::auth::CallContext;
use crate::api::convert;
use crate::api::grpc::body::ReplyBody;
use crate::api::kv;
use crate::api::reply::Prost;
use crate::apply::{Op, PutOp, TxnOp};
use crate::types::{KeyRange, LeaseId};

const NO_LEADER: &str = "election: no leader";
const NOT_LEADER: &str = "election: not leader";
const LEADER_MISSING: &str = "\"leader\" field must be provided";

/// `Campaign`: answers when this candidate leads. Who campaigns again with another value proclaims it.
pub(crate) async fn campaign(mut call: CallContext, request: pb::CampaignRequest) -> Result<ReplyBody, Status> {
    let pb::CampaignRequest { name: named, lease, value } = request;
    let arrived = call.take_message_held();
    room::for_answer(&call, 2 * named.len()).map_err(|error| unknown(&error))?;
    let (session, room) = begin(&call, &named, lease).await.map_err(|error| unknown(&error))?;
    let place = contend(&call, &named, session.lease, value.clone(), room).await;
    let mut place = place.map_err(|error| unknown(&error))?;
    if place.has_other_value {
        put_if_created(&call, &place.key, place.revision, place.lease, value.clone()).await?;
    }
    // As parts of the message they would keep all of it.
    let name = place.key.slice(..named.len());
    drop((named, value, arrived));
    if place.is_first {
        session.keep();
    } else {
        let mut waiting = Waiting::begin(&call, &mut place, session);
        let waited = wait_first(&call, &place, &mut waiting).await;
        let seen = match waited {
            Ok(()) => own(&call, &place).await,
            Err(error) => Err(error),
        };
        // Whoever is told of an error comes again with the same lease, and keeps his place as with etcd.
        if matches!(seen, Ok(Some(_))) {
            waiting.keep()
        } else {
            waiting.keep_for_caller()
        }
        // etcd doesn't look: one whose lease ended while it waited is told that it leads, and so is the next one.
        seen.map_err(|error| unknown(&error))?.ok_or_else(|| Status::unknown(NOT_LEADER))?;
    }
    let leader = pb::LeaderKey { name, key: place.key, rev: place.revision, lease: place.lease.get() };
    let header = call.message_header(place.header);
    ReplyBody::done(&Prost(pb::CampaignResponse { header, leader: Some(leader) }), &call.budgets.answers)
}

/// `Proclaim`: another value of who leads.
pub(crate) async fn proclaim(call: CallContext, request: pb::ProclaimRequest) -> Result<ReplyBody, Status> {
    let leader = request.leader.ok_or_else(|| Status::unknown(LEADER_MISSING))?;
    let session = Session::open(&call, leader.lease).await.map_err(|error| unknown(&error))?;
    let revision = put_if_created(&call, &leader.key, leader.rev, session.lease, request.value).await?;
    session.keep();
    ReplyBody::small(&Prost(pb::ProclaimResponse { header: call.message_header(revision) }))
}

async fn put_if_created(
    call: &CallContext,
    key: &Bytes,
    revision: i64,
    lease: LeaseId,
    value: Bytes,
) -> Result<i64, Status> {
    let put = Op::Put(PutOp { key: key.clone(), value, lease, ..PutOp::default() });
    let compares = vec![created_at(KeyRange::single(key.clone()), revision)];
    let put = TxnOp { compares, success: vec![put], failure: Vec::new() };
    let (result, header) = txn(call, put).await.map_err(|error| unknown(&error))?;
    if result.succeeded { Ok(header) } else { Err(Status::unknown(NOT_LEADER)) }
}

/// `Leader`: who leads now, with what it proclaimed.
pub(crate) async fn leader(call: CallContext, request: pb::LeaderRequest) -> Result<ReplyBody, Status> {
    let query = oldest(KeyRange::prefix(prefix(&request.name)));
    let (reply, _) = kv::read_range(&call, query, false).await.map_err(|error| unknown(&error))?;
    let Some(kv) = reply.result.kvs.into_iter().next() else { return Err(Status::unknown(NO_LEADER)) };
    let header = call.message_header(reply.header.map_or(0, |header| header.revision));
    let response = pb::LeaderResponse { header, kv: Some(convert::key_value(kv)) };
    ReplyBody::message(&Prost(response), &call.budgets.answers)
}

/// `Resign`: no error for who doesn't lead any more.
pub(crate) async fn resign(call: CallContext, request: pb::ResignRequest) -> Result<ReplyBody, Status> {
    let leader = request.leader.ok_or_else(|| Status::unknown(LEADER_MISSING))?;
    let revision = give_up(&call, leader.key, leader.rev).await.map_err(|error| unknown(&error))?;
    ReplyBody::small(&Prost(pb::ResignResponse { header: call.message_header(revision) }))
}
