//! `/health`, `/livez`, `/readyz`: whether this member can do its work.

use std::sync::Arc;

use http::{Response, StatusCode};

use super::{error, not_found, query_values, text};
use crate::api::grpc::body::ReplyBody;
use crate::api::kv;
use crate::api::maintenance::kind_name;
use crate::api::services::Services;
use crate::apply::AlarmKind;
use crate::storage::RangeQuery;
use crate::types::{KeyRange, RequestError};

/// One of the checks behind `/livez` and `/readyz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

/// What `/livez` asks.
pub(super) const LIVE: &[Check] = &[Check::SerializableRead];

/// What `/readyz` asks.
pub(super) const READY: &[Check] =
    &[Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

impl Check {
    const fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    async fn run(self, services: &Services) -> Result<(), String> {
        match self {
            Self::DataCorruption
                if services.alarms.load().list(None).iter().any(|(_, kind)| *kind == AlarmKind::Corrupt) =>
            {
                Err(format!("alarm activated: {}", kind_name(AlarmKind::Corrupt)))
            }
            Self::DataCorruption if services.proposer.standing().is_diverged => {
                Err("this member's state differs from the others'".into())
            }
            Self::SerializableRead => probe(services, true).await.map_err(|error| error.to_string()),
            Self::LinearizableRead => probe(services, false).await.map_err(|error| error.to_string()),
            Self::NonLearner if services.proposer.standing().is_learner => Err("not supported for learner".into()),
            Self::DataCorruption | Self::NonLearner => Ok(()),
        }
    }
}

/// A read of one key that need not be there.
async fn probe(services: &Services, serializable: bool) -> Result<(), RequestError> {
    let query = RangeQuery { count_only: true, ..RangeQuery::latest(KeyRange::single(&b"health"[..])) };
    kv::read_own(services, query, serializable).await
}

/// `/livez` and `/readyz`, or one check below them.
pub(super) async fn checks(
    services: &Arc<Services>,
    page: &str,
    checks: &[Check],
    only: &str,
    query: &str,
) -> Response<ReplyBody> {
    let chosen: Vec<Check> = checks.iter().copied().filter(|check| only.is_empty() || check.name() == only).collect();
    if chosen.is_empty() {
        return not_found();
    }
    let mut lines = String::new();
    let mut failed = false;
    for check in chosen {
        let name = check.name();
        if query_values(query, "exclude").any(|excluded| excluded == name) {
            lines.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        let result = check.run(services).await;
        services.metrics.check(page, name, result.is_ok());
        match result {
            Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
            Err(reason) => {
                failed = true;
                lines.push_str(&format!("[-]{name} failed: {reason}\n"));
            }
        }
    }
    if failed {
        return error(StatusCode::SERVICE_UNAVAILABLE, &lines);
    }
    if query_values(query, "verbose").next().is_none() {
        lines.clear();
    }
    text(format!("{lines}ok\n"))
}

/// `/health`, the older form.
pub(super) async fn health(services: &Arc<Services>, query: &str) -> Response<ReplyBody> {
    let reason = unhealthy(services, query).await;
    services.metrics.health(reason.is_none());
    match reason {
        None => text(r#"{"health":"true","reason":""}"#),
        Some(reason) => {
            let body = serde_json::json!({ "health": "false", "reason": reason });
            error(StatusCode::SERVICE_UNAVAILABLE, &body.to_string())
        }
    }
}

async fn unhealthy(services: &Services, query: &str) -> Option<String> {
    for (member, kind) in services.alarms.load().list(None) {
        // It stops nobody but the member that differs.
        if kind == AlarmKind::Diverged && member != services.info.member_id {
            continue;
        }
        let name = kind_name(kind);
        if !query_values(query, "exclude").any(|excluded| excluded == name) {
            return Some(format!("ALARM {name}"));
        }
    }
    if services.proposer.standing().is_diverged {
        return Some("DIVERGED".into());
    }
    let serializable = query_values(query, "serializable").any(|value| value == "true");
    if !serializable && services.proposer.standing().leader.is_none() {
        return Some("RAFT NO LEADER".into());
    }
    probe(services, serializable).await.err().map(|error| format!("RANGE ERROR:{error}"))
}
