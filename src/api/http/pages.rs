//! `/version`, `/metrics`, `/debug/vars`.

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode};

use super::{JSON, plain};
use crate::api::grpc::body::{ReplyBody, kept};
use crate::api::services::Services;
use crate::api::version;
use crate::ops::{command_line, startup};
use crate::types::MemberId;

/// What Prometheus calls its text form.
const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// `/version`.
pub(super) fn version() -> Response<ReplyBody> {
    let body = format!(
        r#"{{"etcdserver":"{}","etcdcluster":"{}","storage":"{}"}}"#,
        version::SERVER,
        version::CLUSTER,
        version::STORAGE
    );
    plain(StatusCode::OK, Some(JSON), body)
}

/// `/metrics`.
pub(super) fn metrics(services: &Arc<Services>) -> Response<ReplyBody> {
    let mut page = plain(StatusCode::OK, Some(PROMETHEUS), (services.metrics_text)());
    if let ReplyBody::Plain(Some(text)) = page.body_mut() {
        *text = kept(std::mem::take(text), &services.budgets.answers);
    }
    page
}

/// `/debug/vars`: what Go's expvar shows, as far as it means anything here. Anybody may
/// ask for it, so that the command line is without its passwords.
pub(super) fn vars(services: &Arc<Services>) -> Response<ReplyBody> {
    let standing = services.proposer.standing();
    let body = serde_json::json!({
        "cmdline": command_line::shown(),
        "file_descriptor_limit": startup::open_files_max(),
        "memstats": {},
        "raft.status": {
            "id": services.info.member_id.to_string(),
            "lead": standing.leader.map_or(0, MemberId::get).to_string(),
            "term": standing.term.get(),
            "commit": standing.committed.get(),
            "applied": standing.applied.get(),
        },
    });
    plain(StatusCode::OK, Some(HeaderValue::from_static("application/json; charset=utf-8")), body.to_string())
}
