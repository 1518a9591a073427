//! The Maintenance service: alarms, status, checksums, snapshots, leadership, downgrade.

mod alarm;
mod downgrade;
mod snapshot;
mod status;

use rusd_proto::etcdserverpb as pb;
use tokio::sync::Semaphore;
use tonic::Status;

use super::auth::CallContext;
use super::errors;
use super::grpc::body::ReplyBody;
use super::kv;
use super::reply::Prost;
use super::services::Services;
use crate::types::{MemberId, RequestError};

pub(crate) use alarm::{alarm, kind_name};
pub(crate) use downgrade::downgrade;
pub(crate) use snapshot::snapshot;
pub(crate) use status::status;

/// Defragmentations at a time: on a full disk each keeps a thread until there is room, though its client has given up.
const DEFRAGMENTS_MAX: usize = 4;
static DEFRAGMENTS: Semaphore = Semaphore::const_new(DEFRAGMENTS_MAX);

/// `Defragment`. The answer has no header.
pub(crate) async fn defragment(call: CallContext, _: pb::DefragmentRequest) -> Result<ReplyBody, Status> {
    let maintain = call.maintain.clone();
    let defragment = move || Ok(maintain.defragment()?);
    kv::blocking_in(&DEFRAGMENTS, defragment).await.map_err(|error| errors::status(&error))?;
    ReplyBody::small(&Prost(pb::DefragmentResponse { header: None }))
}

/// `Hash`: of everything here, not comparable between members.
pub(crate) async fn hash(call: CallContext, _: pb::HashRequest) -> Result<ReplyBody, Status> {
    let maintain = call.maintain.clone();
    let hash = kv::blocking(move || Ok(maintain.hash()?)).await.map_err(|error| errors::status(&error))?;
    let header = call.message_header(call.reader.revision());
    ReplyBody::small(&Prost(pb::HashResponse { header, hash }))
}

/// `HashKV`: of the keys at a revision, the same on every member.
pub(crate) async fn hash_kv(call: CallContext, request: pb::HashKvRequest) -> Result<ReplyBody, Status> {
    let snapshot = call.reader.snapshot();
    let begun = call.env.clock.now();
    let (scoped, _) = kv::run(&call, snapshot, true, move |snapshot, _, _| snapshot.hash_kv(request.revision))
        .await
        .map_err(|error| errors::status(&error))?;
    call.metrics.hashes.observe(call.env.clock.now().saturating_duration_since(begun).as_secs_f64());
    ReplyBody::small(&Prost(pb::HashKvResponse {
        header: call.message_header(scoped.revision),
        hash: scoped.value.hash,
        compact_revision: scoped.value.compact_revision,
        hash_revision: scoped.value.hash_revision,
    }))
}

/// `MoveLeader`: only the leader can, and only to a voter. The answer has no header.
pub(crate) async fn move_leader(call: CallContext, request: pb::MoveLeaderRequest) -> Result<ReplyBody, Status> {
    run_move_leader(&call, MemberId(request.target_id)).await.map_err(|error| errors::status(&error))?;
    ReplyBody::small(&Prost(pb::MoveLeaderResponse { header: None }))
}

async fn run_move_leader(services: &Services, target: MemberId) -> Result<(), RequestError> {
    if services.proposer.standing().leader != Some(services.info.member_id) {
        return Err(RequestError::NotLeader);
    }
    if !services.proposer.members().iter().any(|member| member.id == target && !member.is_learner) {
        return Err(RequestError::BadLeaderTransferee);
    }
    if target == services.info.member_id {
        return Ok(());
    }
    services.proposer.move_leader(target).await
}
