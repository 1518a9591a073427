//! What of an HTTP request's head goes along with the call: who asks, what the client wishes, and its time.
//!
//! ```text
//! Authorization ─────────────────────► authorization
//! Grpc-Metadata-Token · -Hasleader … ─► token · hasleader …      nothing else that a client sends
//! Grpc-Timeout ──────────────────────► the call's time
//! ```
//! A client certificate doesn't go along: who comes through the gateway is who the token says, as in etcd.

use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use tonic::Status;

/// What the services look at, and under which name HTTP has it.
const FORWARDED: [(HeaderName, HeaderName); 5] = [
    (HeaderName::from_static("grpc-metadata-token"), HeaderName::from_static("token")),
    (AUTHORIZATION, AUTHORIZATION),
    (HeaderName::from_static("grpc-metadata-authorization"), AUTHORIZATION),
    (HeaderName::from_static("grpc-metadata-hasleader"), HeaderName::from_static("hasleader")),
    (HeaderName::from_static("grpc-metadata-client-api-version"), HeaderName::from_static("client-api-version")),
];

/// The call's metadata.
pub(in crate::api) fn metadata(headers: &HeaderMap) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    for (from, to) in FORWARDED {
        if let (Some(value), false) = (headers.get(from), metadata.contains_key(&to)) {
            metadata.insert(to, value.clone());
        }
    }
    metadata
}

/// The time that the client gives, if it gives one.
///
/// # Errors
/// What isn't a number and a unit, as etcd's gateway says it.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get("grpc-timeout").filter(|value| !value.is_empty()) else { return Ok(None) };
    let text = String::from_utf8_lossy(value.as_bytes());
    parse(&text).ok_or_else(|| Status::invalid_argument(format!("invalid grpc-timeout: {text}")))
}

/// `None` outside for what is no timeout, inside for one of zero, which is none.
fn parse(text: &str) -> Option<Option<Duration>> {
    let (count, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: i64 = if matches!(unit, "H" | "M" | "S" | "m" | "u" | "n") { count.parse().ok()? } else { return None };
    if count == 0 {
        return Some(None);
    }
    // A time before now is one that is over.
    let count = u64::try_from(count).unwrap_or(0);
    Some(Some(match unit {
        "H" => Duration::from_secs(count.saturating_mul(3600)),
        "M" => Duration::from_secs(count.saturating_mul(60)),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        _ => Duration::from_nanos(count),
    }))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_what_is_understood_goes_along() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "a"),
            ("grpc-metadata-authorization", "b"),
            ("grpc-metadata-token", "t"),
            ("grpc-metadata-hasleader", "true"),
            ("grpc-metadata-grpc-encoding", "gzip"),
            ("grpc-metadata-x", "y"),
            ("token", "not this"),
            ("cookie", "nor this"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let metadata = metadata(&headers);
        let found = |name: &str| metadata.get(name).map(|value| value.to_str().unwrap());
        assert_eq!((found("authorization"), found("token"), found("hasleader")), (Some("a"), Some("t"), Some("true")));
        assert_eq!(metadata.len(), 3);
    }

    #[test]
    fn times_are_gateways() {
        for (text, expected) in [
            ("1S", Some(Some(Duration::from_secs(1)))),
            ("+5m", Some(Some(Duration::from_millis(5)))),
            ("0S", Some(None)),
            ("-1S", Some(Some(Duration::ZERO))),
            ("5000000000n", Some(Some(Duration::from_secs(5)))),
            ("5000000000u", Some(Some(Duration::from_secs(5_000)))),
            ("x", None),
            ("5", None),
            ("1s", None),
            ("é", None),
            ("S", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
        assert!(parse("123456789H").unwrap().unwrap() > Duration::from_secs(1 << 30));
        let headers = HeaderMap::from_iter([(HeaderName::from_static("grpc-timeout"), HeaderValue::from_static("xS"))]);
        assert_eq!(timeout(&headers).unwrap_err().message(), "invalid grpc-timeout: xS");
        assert_eq!(timeout(&HeaderMap::new()).unwrap(), None);
    }
}
