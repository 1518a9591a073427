//! Lock and Unlock.

use bytes::Bytes;
use rusd_proto::v3lockpb as pb;
use tonic::Status;

use super::{Waiting, contend, session, unknown, wait_first};
use crate::api::auth::CallContext;
use crate::api::grpc::body::ReplyBody;
use crate::api::kv;
use crate::api::reply::Prost;
use crate::apply::{Command, DeleteOp};
use crate::storage::RangeQuery;
use crate::types::KeyRange;

/// What a waiter is told whose key went while it waited, as its lease has ended.
const EXPIRED: &str = "mutex: session is expired";

/// `Lock`: answers when the lock is held.
pub(crate) async fn lock(call: CallContext, request: pb::LockRequest) -> Result<ReplyBody, Status> {
    let lease = session(&call, request.lease).await.map_err(|error| unknown(&error))?;
    let place = contend(&call, &request.name, lease, Bytes::new()).await.map_err(|error| unknown(&error))?;
    if place.is_first {
        return Ok(answer(&call, place.header, place.key));
    }
    let waiting = Waiting::new(&call, &place);
    wait_first(&call, &place.prefix, place.revision).await.map_err(|error| unknown(&error))?;
    let own = RangeQuery::latest(KeyRange::single(place.key.clone()));
    let (reply, _) = kv::read_range(&call, own, false).await.map_err(|error| unknown(&error))?;
    waiting.done();
    if reply.result.kvs.is_empty() {
        return Err(Status::unknown(EXPIRED));
    }
    Ok(answer(&call, reply.header.map_or(0, |header| header.revision), place.key))
}

fn answer(call: &CallContext, revision: i64, key: Bytes) -> ReplyBody {
    ReplyBody::unary(&Prost(pb::LockResponse { header: call.message_header(revision), key }))
}

/// `Unlock`: a plain delete; a key that isn't there is no error.
pub(crate) async fn unlock(call: CallContext, request: pb::UnlockRequest) -> Result<ReplyBody, Status> {
    let delete = DeleteOp { range: KeyRange::single(request.key), prev_kv: false };
    let (_, revision) = kv::submit(&call, Command::DeleteRange(delete)).await.map_err(|error| unknown(&error))?;
    Ok(ReplyBody::unary(&Prost(pb::UnlockResponse { header: call.message_header(revision) })))
}
