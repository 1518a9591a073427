//! The Cluster service, as far as it is served: who the members are.

use std::sync::Arc;

use rusd_proto::etcdserverpb as pb;
use tonic::Status;

use super::errors;
use super::grpc::body::ReplyBody;
use super::kv;
use super::reply::Prost;
use super::seams::MemberInfo;
use super::services::Services;

/// `MemberList`. Membership has no revision, so the header's is 0.
pub(crate) async fn list(services: Arc<Services>, request: pb::MemberListRequest) -> Result<ReplyBody, Status> {
    kv::barrier(&services, !request.linearizable).await.map_err(|error| errors::status(&error))?;
    let mut members = services.proposer.members();
    members.sort_unstable_by_key(|member| member.id);
    Ok(ReplyBody::unary(&Prost(pb::MemberListResponse {
        header: services.message_header(0),
        members: members.into_iter().map(member).collect(),
    })))
}

fn member(info: MemberInfo) -> pb::Member {
    pb::Member {
        id: info.id.get(),
        name: info.name,
        peer_ur_ls: info.peer_urls,
        client_ur_ls: info.client_urls,
        is_learner: info.is_learner,
    }
}
