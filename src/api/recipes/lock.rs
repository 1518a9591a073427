//! Lock and Unlock.

use bytes::Bytes;
use rusd_proto::v3lockpb as pb;
use tonic::Status;

use super::{Waiting, begin, contend, own, room, unknown, wait_first};
use crate::api::auth::CallContext;
use crate::api::grpc::body::ReplyBody;
use crate::api::kv;
use crate::api::reply::Prost;
use crate::apply::{Command, DeleteOp};
use crate::types::KeyRange;

/// What a waiter is told whose key went while it waited, as its lease has ended.
const EXPIRED: &str = "mutex: session is expired";

/// `Lock`: answers when the lock is held.
pub(crate) async fn lock(mut call: CallContext, request: pb::LockRequest) -> Result<ReplyBody, Status> {
    let arrived = call.take_message_held();
    room::for_answer(&call, request.name.len()).map_err(|error| unknown(&error))?;
    let (session, room) = begin(&call, &request.name, request.lease).await.map_err(|error| unknown(&error))?;
    let place = contend(&call, &request.name, session.lease, Bytes::new(), room).await;
    let mut place = place.map_err(|error| unknown(&error))?;
    // It is a part of the message, and keeps all of it.
    drop((request, arrived));
    if place.is_first {
        session.keep();
        return answer(&call, place.header, place.key);
    }
    let mut waiting = Waiting::begin(&call, &mut place, session);
    wait_first(&call, &place, &mut waiting).await.map_err(|error| unknown(&error))?;
    let seen = own(&call, &place).await.map_err(|error| unknown(&error))?;
    let Some(revision) = seen else {
        waiting.keep_for_caller();
        return Err(Status::unknown(EXPIRED));
    };
    waiting.keep();
    answer(&call, revision, place.key)
}

fn answer(call: &CallContext, revision: i64, key: Bytes) -> Result<ReplyBody, Status> {
    ReplyBody::done(&Prost(pb::LockResponse { header: call.message_header(revision), key }), &call.budgets.answers)
}

/// `Unlock`: a plain delete; a key that isn't there is no error.
pub(crate) async fn unlock(call: CallContext, request: pb::UnlockRequest) -> Result<ReplyBody, Status> {
    let delete = DeleteOp { range: KeyRange::single(request.key), prev_kv: false };
    let (_, revision) = kv::submit(&call, Command::DeleteRange(delete)).await.map_err(|error| unknown(&error))?;
    ReplyBody::small(&Prost(pb::UnlockResponse { header: call.message_header(revision) }))
}
