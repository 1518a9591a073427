//! The Lease service.
//!
//! ```text
//! grant, revoke ─► log                       a lease's being is replicated
//! keep-alive    ─► Lessor::renew, in memory  its deadline is the leader's alone
//! ```

mod keep_alive;

use std::sync::Arc;

use rusd_proto::etcdserverpb as pb;
use tonic::Status;

use super::grpc::body::ReplyBody;
use super::reply::Prost;
use super::services::Services;
use super::{errors, kv};
use crate::admit;
use crate::apply::{Command, Response};
use crate::types::{LeaseId, RequestError};

pub(crate) use keep_alive::keep_alive;

/// `LeaseGrant`.
pub(crate) async fn grant(services: Arc<Services>, request: pb::LeaseGrantRequest) -> Result<ReplyBody, Status> {
    let (id, ttl_secs, revision) = run_grant(&services, &request).await.map_err(|error| errors::status(&error))?;
    Ok(ReplyBody::unary(&Prost(pb::LeaseGrantResponse {
        header: services.message_header(revision),
        id: id.get(),
        ttl: ttl_secs,
        error: String::new(),
    })))
}

/// Grants a lease; its id, its time to live in seconds and the header's revision.
pub(super) async fn run_grant(
    services: &Services,
    request: &pb::LeaseGrantRequest,
) -> Result<(LeaseId, i64, i64), RequestError> {
    let mut id = LeaseId(request.id);
    while id.is_none() || (request.id == 0 && services.lessor.contains(id)) {
        id = LeaseId((services.env.rng.next_u64() >> 1).cast_signed());
    }
    let ttl_secs = admit::lease_ttl(request.ttl, &services.limits);
    // The quota is looked at first, as everywhere; a TTL that is refused costs the same.
    let command = Command::LeaseGrant { id, ttl_secs: ttl_secs.clone().unwrap_or_default() };
    kv::admit(services, &command).await?;
    ttl_secs?;
    match kv::propose(services, command).await? {
        (Response::LeaseGrant { id, ttl_secs }, revision) => Ok((id, ttl_secs, revision)),
        (other, _) => Err(kv::unexpected("a lease grant", &other)),
    }
}

/// `LeaseRevoke`.
pub(crate) async fn revoke(services: Arc<Services>, request: pb::LeaseRevokeRequest) -> Result<ReplyBody, Status> {
    let revision = run_revoke(&services, LeaseId(request.id)).await.map_err(|error| errors::status(&error))?;
    Ok(ReplyBody::unary(&Prost(pb::LeaseRevokeResponse { header: services.message_header(revision) })))
}

async fn run_revoke(services: &Services, id: LeaseId) -> Result<i64, RequestError> {
    let command = Command::LeaseRevoke { id };
    kv::admit(services, &command).await?;
    // From here on no renewal may succeed, or its client would count on a lease that is about to go.
    services.lessor.begin_revoke(id, services.env.clock.now());
    match kv::propose(services, command).await {
        Ok((_, revision)) => Ok(revision),
        Err(error) => {
            if matches!(error, RequestError::TooManyRequests | RequestError::Corrupt) {
                services.lessor.release(&[id], services.env.clock.now());
            }
            Err(error)
        }
    }
}

/// `LeaseTimeToLive`: the leader's clock knows; an unknown lease has −1 and no error.
pub(crate) async fn time_to_live(
    services: Arc<Services>,
    request: pb::LeaseTimeToLiveRequest,
) -> Result<ReplyBody, Status> {
    kv::barrier(&services, false).await.map_err(|error| errors::status(&error))?;
    let id = LeaseId(request.id);
    let left = services.proposer.lease_left(id).await.map_err(|error| errors::status(&error))?;
    let keys = if request.keys { services.lessor.keys(id).unwrap_or_default() } else { Vec::new() };
    Ok(ReplyBody::unary(&Prost(pb::LeaseTimeToLiveResponse {
        header: services.message_header(services.reader.revision()),
        id: request.id,
        ttl: left.map_or(-1, |(_, remaining_secs)| remaining_secs),
        granted_ttl: left.map_or(0, |(granted_secs, _)| granted_secs),
        keys,
    })))
}

/// `LeaseLeases`: local state, those first that end first.
pub(crate) async fn leases(services: Arc<Services>, _: pb::LeaseLeasesRequest) -> Result<ReplyBody, Status> {
    let leases = services.lessor.ids().into_iter().map(|id| pb::LeaseStatus { id: id.get() }).collect();
    let header = services.message_header(services.reader.revision());
    Ok(ReplyBody::unary(&Prost(pb::LeaseLeasesResponse { header, leases })))
}
