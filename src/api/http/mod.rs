//! The HTTP endpoints beside gRPC: health, version, metrics.
//!
//! ```text
//! request ─► CORS ─► path ─► health (/health, /livez, /readyz) · version · metrics · vars ─► 404
//! ```
//! Texts, codes and headers are those of etcd, since probes and operators compare them. The paths
//! are few and fixed, so they are matched here and not by a router.

mod health;
mod pages;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CONTENT_TYPE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Method, Response, StatusCode, Uri};

use super::grpc::body::ReplyBody;
use super::services::Services;

/// What Go's `http` calls plain text.
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Serves one HTTP request; its body, if it has one, is not read.
pub(crate) async fn serve(services: Arc<Services>, method: Method, uri: Uri) -> Response<ReplyBody> {
    let mut response = if method == Method::OPTIONS {
        plain(StatusCode::OK, None, String::new())
    } else {
        route(&services, &method, &uri).await
    };
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE"));
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("accept, content-type, authorization"));
    response
}

async fn route(services: &Arc<Services>, method: &Method, uri: &Uri) -> Response<ReplyBody> {
    let path = uri.path();
    let (root, check) = match path.strip_prefix('/').and_then(|rest| rest.split_once('/')) {
        Some((root @ ("livez" | "readyz"), check)) => (root, check),
        _ => (path.trim_start_matches('/'), ""),
    };
    let known = matches!(root, "health" | "livez" | "readyz" | "version" | "metrics")
        && (matches!(root, "livez" | "readyz") || !path[1..].contains('/'));
    if known && method != Method::GET {
        let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    let query = uri.query().unwrap_or_default();
    match (known, root) {
        (true, "health") => health::health(services, query).await,
        (true, "livez") => health::checks(services, health::LIVE, check, query).await,
        (true, "readyz") => health::checks(services, health::READY, check, query).await,
        (true, "version") => pages::version(),
        (true, "metrics") => pages::metrics(services),
        _ if path == "/debug/vars" => pages::vars(services),
        _ => not_found(),
    }
}

fn plain(status: StatusCode, content_type: Option<HeaderValue>, text: String) -> Response<ReplyBody> {
    let body = if text.is_empty() { ReplyBody::Empty } else { ReplyBody::Plain(Some(Bytes::from(text))) };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if let Some(content_type) = content_type {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}

/// A text with success.
fn text(text: impl Into<String>) -> Response<ReplyBody> {
    plain(StatusCode::OK, Some(TEXT), text.into())
}

/// An error as Go's `http.Error` writes it: the text and a newline.
fn error(status: StatusCode, text: &str) -> Response<ReplyBody> {
    let mut response = plain(status, Some(TEXT), format!("{text}\n"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn not_found() -> Response<ReplyBody> {
    error(StatusCode::NOT_FOUND, "404 page not found")
}

/// The values of a key in a query string; percent signs are not undone, since no known value has any.
fn query_values<'a>(query: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    query.split('&').filter_map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name == key).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_may_name_a_key_more_than_once() {
        let values: Vec<_> = query_values("exclude=NOSPACE&verbose&exclude=CORRUPT", "exclude").collect();
        assert_eq!(values, ["NOSPACE", "CORRUPT"]);
        assert_eq!(query_values("verbose", "verbose").next(), Some(""));
        assert_eq!(query_values("", "verbose").next(), None);
    }
}
