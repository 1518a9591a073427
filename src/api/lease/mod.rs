//! The Lease service.
//!
//! ```text
//! grant, revoke ─► log                       a lease's being is replicated
//! keep-alive    ─► Lessor::renew, in memory  its deadline is the leader's alone
//! ```

mod keep_alive;

use rusd_proto::etcdserverpb as pb;
use tonic::Status;

use super::auth::CallContext;
use super::grpc::body::ReplyBody;
use super::reply::Prost;
use super::{errors, kv};
use crate::admit;
use crate::apply::{Command, Response, rights};
use crate::auth::Access;
use crate::storage::ReadError;
use crate::types::{LeaseId, RequestError};

pub(crate) use keep_alive::keep_alive;

/// Leases that are listed on the spot; more are left to a thread that may take its time.
const LISTED_HERE_MAX: usize = 10_000;

/// `LeaseGrant`.
pub(crate) async fn grant(call: CallContext, request: pb::LeaseGrantRequest) -> Result<ReplyBody, Status> {
    let (id, ttl_secs, revision) = run_grant(&call, &request).await.map_err(|error| errors::status(&error))?;
    ReplyBody::small(&Prost(pb::LeaseGrantResponse {
        header: call.message_header(revision),
        id: id.get(),
        ttl: ttl_secs,
        error: String::new(),
    }))
}

/// Grants a lease; its id, its time to live in seconds and the header's revision.
pub(super) async fn run_grant(
    call: &CallContext,
    request: &pb::LeaseGrantRequest,
) -> Result<(LeaseId, i64, i64), RequestError> {
    let mut id = LeaseId(request.id);
    while id.is_none() || (request.id == 0 && call.lessor.contains(id)) {
        id = LeaseId((call.env.rng.next_u64() >> 1).cast_signed());
    }
    let ttl_secs = admit::lease_ttl(request.ttl, &call.limits);
    // The quota is looked at first, as everywhere; a TTL that is refused costs the same.
    let command = Command::LeaseGrant { id, ttl_secs: ttl_secs.clone().unwrap_or_default() };
    kv::admit(call, &command).await?;
    ttl_secs?;
    // Those under way aren't counted yet: there may be as many more as proposals may wait.
    if call.lessor.len() >= call.budgets.leases.max() {
        call.budgets.leases.refuse();
        return Err(RequestError::TooManyRequests);
    }
    match kv::propose(call, command).await? {
        (Response::LeaseGrant { id, ttl_secs }, revision) => Ok((id, ttl_secs, revision)),
        (other, _) => Err(kv::unexpected("a lease grant", &other)),
    }
}

/// `LeaseRevoke`.
pub(crate) async fn revoke(call: CallContext, request: pb::LeaseRevokeRequest) -> Result<ReplyBody, Status> {
    let revision = run_revoke(&call, LeaseId(request.id)).await.map_err(|error| errors::status(&error))?;
    ReplyBody::small(&Prost(pb::LeaseRevokeResponse { header: call.message_header(revision) }))
}

async fn run_revoke(call: &CallContext, id: LeaseId) -> Result<i64, RequestError> {
    let command = Command::LeaseRevoke { id };
    kv::admit(call, &command).await?;
    // Who may not end it doesn't disturb it either.
    let command = call.on_behalf(command).await?;
    end(call, id, command).await
}

/// Ends a lease that was granted to nobody but a call at this member, which needs it no more.
pub(super) async fn revoke_own(call: &CallContext, id: LeaseId) -> Result<(), RequestError> {
    let command = Command::LeaseRevoke { id };
    kv::admit(call, &command).await?;
    end(call, id, command.by_member(&call.auth.view)).await.map(drop)
}

/// Gets the end of a lease through the log, if it may be had; the header's revision.
async fn end(call: &CallContext, id: LeaseId, command: Command) -> Result<i64, RequestError> {
    // From here on no renewal may succeed, or its client would count on a lease that is about to go.
    call.lessor.begin_revoke(id, call.env.clock.now());
    match kv::propose_permitted(call, command).await {
        Ok((_, revision)) => Ok(revision),
        Err(error) => {
            let surely_lives = matches!(
                error,
                RequestError::TooManyRequests
                    | RequestError::Corrupt
                    | RequestError::UserEmpty
                    | RequestError::PermissionDenied
                    | RequestError::AuthRevisionOld
            );
            if surely_lives {
                call.lessor.release(&[id], call.env.clock.now());
            }
            Err(error)
        }
    }
}

/// `LeaseTimeToLive`: the leader's clock knows; an unknown lease has −1 and no error.
pub(crate) async fn time_to_live(call: CallContext, request: pb::LeaseTimeToLiveRequest) -> Result<ReplyBody, Status> {
    let seen = kv::barrier(&call, false).await;
    seen.map_err(|error| errors::status(&kv::if_leaderless(&call, error, RequestError::NoLeader)))?;
    let id = LeaseId(request.id);
    call.check_known().map_err(|error| errors::status(&error))?;
    let left = call.proposer.lease_left(id).await.map_err(|error| errors::status(&error))?;
    let keys = if request.keys { call.lessor.keys(id).unwrap_or_default() } else { Vec::new() };
    if !keys.is_empty() {
        // A key is seen here once it is applied, which is before the rights are that were changed ahead of it.
        call.catch_up_with_rights().await.map_err(|error| errors::status(&error))?;
        call.permit(|access| keys.iter().try_for_each(|key| access.read_key(key)))
            .map_err(|error| errors::status(&error))?;
    }
    ReplyBody::message(
        &Prost(pb::LeaseTimeToLiveResponse {
            header: call.message_header(call.reader.revision()),
            id: request.id,
            ttl: left.map_or(-1, |(_, remaining_secs)| remaining_secs),
            granted_ttl: left.map_or(0, |(granted_secs, _)| granted_secs),
            keys,
        }),
        &call.budgets.answers,
    )
}

/// `LeaseLeases`: local state, those first that end first.
pub(crate) async fn leases(call: CallContext, _: pb::LeaseLeasesRequest) -> Result<ReplyBody, Status> {
    // All of them are gathered and sorted: not for nobody.
    call.check_known().map_err(|error| errors::status(&error))?;
    if call.lessor.len() <= LISTED_HERE_MAX {
        return listed(&call).map_err(|error| errors::status(&error))?;
    }
    let turn = call.large_reads.clone().acquire_owned().await;
    let list = kv::blocking(move || {
        let _turn = turn;
        listed(&call).map_err(ReadError::Request)
    });
    list.await.map_err(|error| errors::status(&error))?
}

/// The answer, or that there is no room for it; an error for who may not have it.
fn listed(call: &CallContext) -> Result<Result<ReplyBody, Status>, RequestError> {
    let ids = call.lessor.ids();
    may_list(call, &ids)?;
    let leases = ids.into_iter().map(|id| pb::LeaseStatus { id: id.get() }).collect();
    let header = call.message_header(call.reader.revision());
    Ok(ReplyBody::message(&Prost(pb::LeaseLeasesResponse { header, leases }), &call.budgets.answers))
}

/// Whether the keys of all these leases may be read.
fn may_list(call: &CallContext, ids: &[LeaseId]) -> Result<(), RequestError> {
    // The first look is over by now.
    call.check_known()?;
    let may_all = |access: Access<'_>| if access.is_full() { Ok(()) } else { Err(RequestError::PermissionDenied) };
    if call.permit(may_all).is_ok() {
        return Ok(());
    }
    if !ids.iter().any(|id| call.lessor.has_keys(*id)) {
        return Ok(());
    }
    call.permit(|access| ids.iter().try_for_each(|id| rights::read_attached(*id, access, &call.lessor))).map(drop)
}
