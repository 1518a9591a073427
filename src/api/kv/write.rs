//! Put, DeleteRange and Compact: checked, proposed, answered.

use rusd_proto::etcdserverpb as pb;
use tonic::Status;

use super::room;
use crate::admit::{self, Refusal};
use crate::api::auth::CallContext;
use crate::api::grpc::body::ReplyBody;
use crate::api::reply::{DeleteReply, Prost, PutReply};
use crate::api::services::Services;
use crate::api::{convert, errors};
use crate::apply::{AlarmKind, AlarmOp, Command, Response};
use crate::types::RequestError;

/// `Put`.
pub(crate) async fn put(call: CallContext, request: pb::PutRequest) -> Result<ReplyBody, Status> {
    let reply = run_put(&call, request).await.map_err(|error| errors::status(&error))?;
    ReplyBody::done(&reply, &call.budgets.answers)
}

async fn run_put(call: &CallContext, request: pb::PutRequest) -> Result<PutReply, RequestError> {
    match submit_told(call, Command::Put(convert::put(request))).await? {
        (Response::Put(result), revision) => Ok(PutReply { header: call.header(revision), result }),
        (other, _) => Err(unexpected("a put", &other)),
    }
}

/// `DeleteRange`.
pub(crate) async fn delete_range(call: CallContext, request: pb::DeleteRangeRequest) -> Result<ReplyBody, Status> {
    let reply = run_delete(&call, request).await.map_err(|error| errors::status(&error))?;
    ReplyBody::done(&reply, &call.budgets.answers)
}

async fn run_delete(call: &CallContext, request: pb::DeleteRangeRequest) -> Result<DeleteReply, RequestError> {
    match submit_told(call, Command::DeleteRange(convert::delete(request))).await? {
        (Response::DeleteRange(result), revision) => Ok(DeleteReply { header: call.header(revision), result }),
        (other, _) => Err(unexpected("a delete", &other)),
    }
}

/// `Compact`; with `physical` it answers when the space is free.
pub(crate) async fn compact(call: CallContext, request: pb::CompactionRequest) -> Result<ReplyBody, Status> {
    let (_, revision) =
        submit(&call, Command::Compact { revision: request.revision }).await.map_err(|error| errors::status(&error))?;
    if request.physical {
        let mut reclaimed = call.reader.reclaimed();
        // The store is gone only when the server ends.
        reclaimed
            .wait_for(|done| *done >= request.revision)
            .await
            .map_err(|_| errors::status(&RequestError::Stopped))?;
    }
    let header = call.message_header(revision);
    ReplyBody::small(&Prost(pb::CompactionResponse { header }))
}

/// Checks a command in etcd's order and gets it through the log.
pub(crate) async fn submit(call: &CallContext, command: Command) -> Result<(Response, i64), RequestError> {
    admit(call, &command).await?;
    propose(call, command).await
}

/// The same for one whose whole answer goes to the client.
async fn submit_told(call: &CallContext, command: Command) -> Result<(Response, i64), RequestError> {
    admit(call, &command).await?;
    let command = call.on_behalf(command).await?;
    room::for_answer(&call.budgets.answers, &command)?;
    propose_permitted(call, command).await
}

/// Checks a command in etcd's order: quota, shape, size, alarms. At the quota's end the alarm is raised.
pub(crate) async fn admit(call: &CallContext, command: &Command) -> Result<(), RequestError> {
    let size = call.reader.logical_size();
    match admit::command(command, &call.limits, size, &call.alarms) {
        Ok(()) => Ok(()),
        Err(refusal) => Err(refuse(call, refusal, call.may(command)).await),
    }
}

/// Whether the quota is at its end for a request that isn't a command yet and may add `cost` bytes.
pub(super) fn over_quota(services: &Services, cost: u64) -> Result<(), Refusal> {
    admit::quota_for(cost, &services.limits, services.reader.logical_size())
}

/// What a refused request is answered with. The alarm stops all writers, so only who may write raises it.
pub(super) async fn refuse(services: &Services, refusal: Refusal, may_write: bool) -> RequestError {
    match refusal {
        Refusal::Request(error) => error,
        Refusal::OverQuota if !may_write => RequestError::NoSpace,
        Refusal::OverQuota => {
            let alarm = AlarmOp { activate: true, member: services.info.member_id, kind: Some(AlarmKind::NoSpace) };
            if !services.alarms.load().list(alarm.kind).contains(&(alarm.member, AlarmKind::NoSpace)) {
                // The request is refused whether or not the alarm comes through; the next one tries again.
                let alarm = Command::Alarm(alarm).by_member(&services.auth.view);
                if let Err(error) = propose_permitted(services, alarm).await {
                    tracing::warn!(%error, "the alarm that space is used up could not be raised");
                }
            }
            RequestError::NoSpace
        }
    }
}

/// Gets a command through the log if its caller may do it; its answer and the revision for the header.
pub(crate) async fn propose(call: &CallContext, command: Command) -> Result<(Response, i64), RequestError> {
    let command = call.on_behalf(command).await?;
    propose_permitted(call, command).await
}

/// The same for a command that has its caller with it.
pub(crate) async fn propose_permitted(services: &Services, command: Command) -> Result<(Response, i64), RequestError> {
    let outcome = services.proposer.propose(command).await?;
    Ok((outcome.result?, outcome.revision))
}

/// An answer of another command's kind: a fault in this program, reported and not panicked on.
pub(crate) fn unexpected(command: &str, response: &Response) -> RequestError {
    RequestError::Storage(format!("the answer to {command} is of another kind: {response:?}"))
}
