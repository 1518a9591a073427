//! What every call must pass before its message is read: the metadata's wishes and this member's state.

use http::{HeaderMap, HeaderName};
use tonic::Status;

use crate::api::errors;
use crate::api::methods::{Kind, Method};
use crate::api::services::Services;
use crate::types::RequestError;

static CLIENT_API_VERSION: HeaderName = HeaderName::from_static("client-api-version");
static HAS_LEADER: HeaderName = HeaderName::from_static("hasleader");

/// Lets a call in, or says why not; whether it asks for a member that knows a leader.
///
/// # Errors
/// `InvalidClientApiVersion`, `NoLeader` with `hasleader`, `Corrupt`, and what a learner doesn't serve.
pub(crate) fn admit(services: &Services, method: Method, headers: &HeaderMap) -> Result<bool, Status> {
    let streaming = method.parts().2 != Kind::Unary;
    match headers.get(&CLIENT_API_VERSION) {
        None => services.metrics.client_request(streaming, None),
        Some(version) => {
            let version = std::str::from_utf8(version.as_bytes())
                .map_err(|_| errors::status(&RequestError::InvalidClientApiVersion))?;
            services.metrics.client_request(streaming, Some(version));
        }
    }
    look(services, method, headers)
}

/// The same for a call that isn't made yet, and doesn't count.
///
/// # Errors
/// Those of [`admit`], but for the version.
pub(crate) fn look(services: &Services, method: Method, headers: &HeaderMap) -> Result<bool, Status> {
    let standing = services.proposer.standing();
    let needs_leader = headers.get(&HAS_LEADER).is_some_and(|wish| wish == "true");
    if needs_leader && standing.leader.is_none() {
        return Err(errors::status(&RequestError::NoLeader));
    }
    if standing.is_diverged {
        diverged(method)?;
    } else if standing.is_learner {
        learner(method)?;
    }
    Ok(needs_leader)
}

/// A member whose state differs from the others' only says who it is, and lets itself be removed.
fn diverged(method: Method) -> Result<(), Status> {
    match method {
        Method::Status | Method::MemberList | Method::MemberRemove | Method::MoveLeader | Method::Alarm => Ok(()),
        Method::HealthCheck | Method::HealthList | Method::HealthWatch => Ok(()),
        _ => Err(errors::status(&RequestError::Corrupt)),
    }
}

/// A learner answers `Status`, serializable ranges (checked where the request is read) and snapshots.
fn learner(method: Method) -> Result<(), Status> {
    match method {
        Method::KvRange | Method::Status | Method::Snapshot => Ok(()),
        Method::HealthCheck | Method::HealthList | Method::HealthWatch => Ok(()),
        _ => Err(errors::learner()),
    }
}
