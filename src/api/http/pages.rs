//! `/version`, `/metrics`, `/debug/vars`.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};

use super::{JSON, plain, unavailable};
use crate::api::grpc::body::{ReplyBody, kept_within};
use crate::api::services::Services;
use crate::api::{errors, version};
use crate::ops::{command_line, startup};
use crate::types::{Budget, MemberId, RequestError};

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

/// `/metrics`; `for_all` says that clients may ask for it, and not only who has a port of his own for it.
pub(super) fn metrics(services: &Arc<Services>, for_all: bool) -> Response<ReplyBody> {
    within((services.metrics_text)(), for_all, &services.budgets.pages)
}

/// Anybody may ask for it, and read nothing. Those who do so on the clients' port leave room to the other one.
fn within(text: String, for_all: bool, budget: &Budget) -> Response<ReplyBody> {
    let text = Bytes::from(text);
    let reserve = if for_all { 0 } else { budget.max() };
    let Some(text) = kept_within(text, budget, reserve) else {
        return unavailable(errors::status(&RequestError::TooManyRequests).message());
    };
    let mut page = plain(StatusCode::OK, Some(PROMETHEUS), String::new());
    *page.body_mut() = ReplyBody::Plain(Some(text));
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

#[cfg(test)]
mod tests {
    use super::*;

    // Cause: a page was held against the answers' budget and never refused. Symptom: pages that nobody read had no bound, and
    // honest answers no room.
    #[test]
    fn pages_that_nobody_reads_are_bounded_and_leave_room_to_the_port_of_metrics() {
        let budget = Budget::new(100_000);
        let page = |for_all| within("x".repeat(40_000), for_all, &budget);
        let mut unread: Vec<_> = (0..2).map(|_| page(true)).collect();
        assert!(unread.iter().all(|page| page.status() == StatusCode::OK));
        assert_eq!(page(true).status(), StatusCode::SERVICE_UNAVAILABLE);
        unread.extend((0..3).map(|_| page(false)));
        assert!(unread.iter().all(|page| page.status() == StatusCode::OK));
        assert_eq!(page(false).status(), StatusCode::SERVICE_UNAVAILABLE, "that has an end, too");
        assert_eq!((budget.used(), within(String::new(), true, &budget).status()), (200_000, StatusCode::OK));
        drop(unread);
        assert_eq!((budget.used(), page(true).status()), (0, StatusCode::OK));
    }
}
