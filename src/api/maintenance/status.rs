//! `Status`: how this member stands, without asking anyone.

use rusd_proto::etcdserverpb as pb;
use tonic::Status;

use super::alarm::kind_name;
use crate::api::auth::CallContext;
use crate::api::grpc::body::ReplyBody;
use crate::api::reply::Prost;
use crate::api::version;
use crate::types::{MemberId, RequestError};

/// What a database without keys counts as; etcd's is never 0, and tools divide by it.
const EMPTY_BYTES: u64 = 4096;

/// `Status`.
pub(crate) async fn status(call: CallContext, _: pb::StatusRequest) -> Result<ReplyBody, Status> {
    let standing = call.proposer.standing();
    let snapshot = call.reader.snapshot();
    let mut errors = Vec::new();
    if standing.leader.is_none() {
        errors.push(RequestError::NoLeader.to_string());
    }
    for (member, kind) in call.alarms.load().list(None) {
        errors.push(format!("memberID:{} alarm:{}", member.get(), kind_name(kind)));
    }
    let size = signed(snapshot.logical_size().max(EMPTY_BYTES));
    let quota = call.limits.quota_bytes.map_or(-1, signed);
    ReplyBody::message(
        &Prost(pb::StatusResponse {
            header: call.message_header(snapshot.revision()),
            version: version::SERVER.to_owned(),
            // What counts against the quota (06 §1.4); what the engine takes on disk is in `/metrics`.
            db_size: size,
            leader: standing.leader.map_or(0, MemberId::get),
            raft_index: standing.committed.get(),
            raft_term: standing.term.get(),
            raft_applied_index: standing.applied.get(),
            errors,
            db_size_in_use: size,
            is_learner: standing.is_learner,
            storage_version: version::STORAGE.to_owned(),
            db_size_quota: quota,
            downgrade_info: Some(pb::DowngradeInfo { enabled: false, target_version: String::new() }),
        }),
        &call.budgets.answers,
    )
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
