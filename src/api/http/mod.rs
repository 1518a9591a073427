//! The HTTP endpoints beside gRPC: health, version, metrics.
//!
//! ```text
//! client URL  ─► policy (host, unless by TLS; CORS) ─► path ─► gateway (/v3/), plain or as a WebSocket · health (/health, /livez, /readyz) · metrics · version · vars ─► 404
//! metrics URL ────────────────────────► path ─► health · metrics ─► 404
//! peer URL    ─► (api::peers) ────────► peer ─► /version · /members ─► 404
//! ```
//! Texts, codes and headers are those of etcd, since probes and operators compare them. The paths
//! are few and fixed, so they are matched here and not by a router.

mod health;
mod pages;
pub(super) mod peer;
mod policy;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CONTENT_TYPE,
    ORIGIN, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use tokio::sync::watch;

use super::conn::Serves;
use super::gateway;
use super::grpc::body::ReplyBody;
use super::services::Services;
use super::websocket::{self, Switch};

pub use policy::WebPolicy;

/// What Go's `http` calls plain text.
pub(super) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What a listener's pages are.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    /// Which of them there are.
    pub(crate) serves: Serves,
    /// Who may call them.
    pub(crate) web: Arc<WebPolicy>,
    /// Whether the JSON gateway is among them.
    pub(crate) gateway: bool,
    /// Whether they are called over TLS.
    pub(crate) is_private: bool,
    /// Where a request leaves what the connection is to become.
    pub(crate) switch: Switch,
}

/// Serves one HTTP request; its body, if it has one, is read by the gateway alone.
pub(crate) async fn serve(
    services: Arc<Services>,
    request: Request<Incoming>,
    pages: Pages,
    shutdown: watch::Receiver<bool>,
) -> Response<ReplyBody> {
    let Pages { serves, web, gateway, is_private, switch } = pages;
    match serves {
        Serves::Metrics => return route(&services, request.method(), request.uri(), false).await,
        Serves::All | Serves::Grpc | Serves::Pages => {}
    }
    // As in etcd: under TLS a name that was bent to this machine fails at the certificate.
    if !is_private && let Some(refusal) = web.refusal(&request) {
        // Who asks for options has proven nothing: no body of theirs waits for a window and holds a place.
        let is_short = request.method() == Method::OPTIONS && request.version() == Version::HTTP_2;
        return if is_short { bodiless(refusal) } else { refusal };
    }
    let origin = web.allowed(request.headers().get(ORIGIN));
    let mut response = if request.method() == Method::OPTIONS {
        plain(StatusCode::OK, None, String::new())
    } else if gateway && gateway::is_served(request.uri().path()) {
        if websocket::is_wanted(&request) {
            return websocket::accept(services, request, &web, shutdown, &switch);
        }
        gateway::serve(services, shutdown, request).await
    } else {
        route(&services, request.method(), request.uri(), true).await
    };
    may_be_read(&mut response, origin);
    response
}

/// The same without a body.
pub(super) fn bodiless(response: Response<ReplyBody>) -> Response<ReplyBody> {
    let (mut head, _) = response.into_parts();
    head.headers.remove(CONTENT_TYPE);
    Response::from_parts(head, ReplyBody::Empty)
}

/// Lets a page of an origin that is allowed read the answer.
pub(super) fn may_be_read(response: &mut Response<ReplyBody>, origin: Option<HeaderValue>) {
    let Some(origin) = origin else { return };
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE"));
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("accept, content-type, authorization"));
}

/// `all` pages, or those of metrics and health.
async fn route(services: &Arc<Services>, method: &Method, uri: &Uri, all: bool) -> Response<ReplyBody> {
    let path = uri.path();
    let (root, check) = match path.strip_prefix('/').and_then(|rest| rest.split_once('/')) {
        Some((root @ ("livez" | "readyz"), check)) => (root, check),
        _ => (path.trim_start_matches('/'), ""),
    };
    let known = (matches!(root, "health" | "livez" | "readyz" | "metrics") || (all && root == "version"))
        && (matches!(root, "livez" | "readyz") || !path[1..].contains('/'));
    if known && method != Method::GET {
        return not_allowed();
    }
    let query = uri.query().unwrap_or_default();
    match (known, root) {
        (true, "health") => health::health(services, query).await,
        (true, "livez") => health::checks(services, "livez", health::LIVE, check, query).await,
        (true, "readyz") => health::checks(services, "readyz", health::READY, check, query).await,
        (true, "version") => pages::version(),
        (true, "metrics") => pages::metrics(services, all),
        _ if all && path == "/debug/vars" => pages::vars(services),
        _ => not_found(),
    }
}

pub(super) fn plain(status: StatusCode, content_type: Option<HeaderValue>, text: String) -> Response<ReplyBody> {
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
pub(super) fn error(status: StatusCode, text: &str) -> Response<ReplyBody> {
    let mut response = plain(status, Some(TEXT), format!("{text}\n"));
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A page that can't be made now.
pub(super) fn unavailable(text: &str) -> Response<ReplyBody> {
    error(StatusCode::SERVICE_UNAVAILABLE, text)
}

fn not_allowed() -> Response<ReplyBody> {
    let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
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
