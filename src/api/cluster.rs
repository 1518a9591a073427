//! The Cluster service: who the members are, and changes of that.
//!
//! ```text
//! MemberAdd, …Update ─► URLs looked at ─► MemberChange ─► the leader ─► the members afterwards
//! ```
//! Membership has no revision, so the headers' is 0.

use std::time::SystemTime;

use rusd_proto::etcdserverpb as pb;
use tonic::Status;

use super::auth::CallContext;
use super::errors;
use super::grpc::body::ReplyBody;
use super::kv;
use super::reply::Prost;
use super::seams::MemberInfo;
use super::services::Services;
use crate::consensus::MemberChange;
use crate::ops::config::Url;
use crate::ops::identity;
use crate::types::{MemberId, RequestError};

/// A member's URLs take no more; a request could bring thousands.
const URLS_MAX: usize = 64;
/// Nor is one of them longer.
const URL_BYTES_MAX: usize = 2_048;

/// `MemberList`.
pub(crate) async fn list(call: CallContext, request: pb::MemberListRequest) -> Result<ReplyBody, Status> {
    kv::barrier(&call, !request.linearizable).await.map_err(|error| errors::status(&error))?;
    let members = shown(call.proposer.members());
    ReplyBody::message(
        &Prost(pb::MemberListResponse { header: call.message_header(0), members }),
        &call.budgets.answers,
    )
}

/// `MemberAdd`. The id is made of the URLs and the time, as etcd makes it.
pub(crate) async fn add(call: CallContext, request: pb::MemberAddRequest) -> Result<ReplyBody, Status> {
    let mut urls = urls(&request.peer_ur_ls).map_err(|error| errors::status(&error))?;
    urls.sort();
    let now = call.env.clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let id = identity::member_id(&urls, "", Some(now.as_secs().cast_signed()));
    let peer_urls = urls.iter().map(ToString::to_string).collect();
    let members = change(&call, MemberChange::Add { id, peer_urls, learner: request.is_learner }).await?;
    let member = members.iter().find(|member| member.id == id.get()).cloned();
    ReplyBody::done(
        &Prost(pb::MemberAddResponse { header: call.message_header(0), member, members }),
        &call.budgets.answers,
    )
}

/// `MemberRemove`.
pub(crate) async fn remove(call: CallContext, request: pb::MemberRemoveRequest) -> Result<ReplyBody, Status> {
    let members = change(&call, MemberChange::Remove { id: MemberId(request.id) }).await?;
    ReplyBody::done(&Prost(pb::MemberRemoveResponse { header: call.message_header(0), members }), &call.budgets.answers)
}

/// `MemberUpdate`. URLs that are none are refused; etcd takes them, and ends.
pub(crate) async fn update(call: CallContext, request: pb::MemberUpdateRequest) -> Result<ReplyBody, Status> {
    let id = MemberId(request.id);
    let urls = urls(&request.peer_ur_ls).map_err(|error| errors::status(&error))?;
    let peer_urls = urls.iter().map(ToString::to_string).collect();
    let members = change(&call, MemberChange::Update { id, peer_urls }).await?;
    ReplyBody::done(&Prost(pb::MemberUpdateResponse { header: call.message_header(0), members }), &call.budgets.answers)
}

/// `MemberPromote`.
pub(crate) async fn promote(call: CallContext, request: pb::MemberPromoteRequest) -> Result<ReplyBody, Status> {
    let promoted = call.proposer.change_members(MemberChange::Promote { id: MemberId(request.id) }).await;
    let members = promoted.map(shown).map_err(|error| {
        call.metrics.promotion_failed(&error);
        errors::status(&error)
    })?;
    ReplyBody::done(
        &Prost(pb::MemberPromoteResponse { header: call.message_header(0), members }),
        &call.budgets.answers,
    )
}

async fn change(services: &Services, change: MemberChange) -> Result<Vec<pb::Member>, Status> {
    let members = services.proposer.change_members(change).await.map_err(|error| errors::status(&error))?;
    Ok(shown(members))
}

/// The URLs of a request, in its order.
///
/// # Errors
/// `BadMemberUrls` if there is none, one is malformed, or there are too many.
fn urls(texts: &[String]) -> Result<Vec<Url>, RequestError> {
    if texts.is_empty() || texts.len() > URLS_MAX || texts.iter().any(|text| text.len() > URL_BYTES_MAX) {
        return Err(RequestError::BadMemberUrls);
    }
    texts.iter().map(|text| text.parse().map_err(|_| RequestError::BadMemberUrls)).collect()
}

fn shown(mut members: Vec<MemberInfo>) -> Vec<pb::Member> {
    members.sort_unstable_by_key(|member| member.id);
    members.into_iter().map(member).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_looked_at() {
        let of = |texts: &[&str]| urls(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&[" http://b:2 ", "unix://a:1"]).expect("well-formed").len(), 2);
        for texts in [&[][..], &["foo"], &["http://a:1", "http://a"], &["http://a:1"; URLS_MAX + 1]] {
            assert_eq!(of(texts), Err(RequestError::BadMemberUrls), "{texts:?}");
        }
        let long = format!("http://{}:1", "a".repeat(URL_BYTES_MAX));
        assert_eq!(of(&[&long]), Err(RequestError::BadMemberUrls));
    }
}
