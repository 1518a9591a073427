//! How a plain request becomes a WebSocket, and who asks over it.
//!
//! ```text
//! GET /v3/watch, Upgrade: websocket ─► version, key, origin ─┬► 101
//!                                                            └► 400 · 403 · 405
//! Sec-WebSocket-Protocol: Bearer, TOKEN · Cookie: token=TOKEN ─► authorization: a browser can say no other header
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{
    AUTHORIZATION, CONNECTION, COOKIE, HOST, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use sha1::{Digest, Sha1};

use crate::api::grpc::body::ReplyBody;
use crate::api::http::{self as pages, WebPolicy};

/// What RFC 6455 hashes a client's key with.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes of a key.
const KEY_LEN: usize = 16;
/// The one version that there is.
const VERSION: HeaderValue = HeaderValue::from_static("13");
/// The word before a token among the protocols that a client offers.
const BEARER: &str = "Bearer";
/// A token's cookie.
const TOKEN_COOKIE: &str = "token";
/// What counts before `authorization`, and what is no longer than the call.
const TOKEN: HeaderName = HeaderName::from_static("grpc-metadata-token");
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Whether a request wants to become a WebSocket.
pub(in crate::api) fn is_wanted<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    request.version() == Version::HTTP_11
        && lists(headers, CONNECTION, "upgrade")
        && lists(headers, UPGRADE, "websocket")
}

/// Whether a header's list has a word.
fn lists(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|item| item.trim().eq_ignore_ascii_case(word))
}

/// The answer to who wants one: 101, or why not.
pub(super) fn answer<B>(request: &Request<B>, web: &WebPolicy) -> Response<ReplyBody> {
    let headers = request.headers();
    if request.method() != Method::GET {
        return refused(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map_or(&b""[..], HeaderValue::as_bytes);
    let is_key = BASE64.decode(key).is_ok_and(|key| key.len() == KEY_LEN);
    if !is_key || !lists(headers, SEC_WEBSOCKET_VERSION, "13") {
        return refused(StatusCode::BAD_REQUEST, "Bad Request");
    }
    // No browser asks for leave before, as it does for a plain request of another site's page.
    if let Some(origin) = headers.get(ORIGIN)
        && web.allowed(Some(origin)).is_none()
    {
        return refused(StatusCode::FORBIDDEN, "Forbidden");
    }
    let accepted = BASE64.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize());
    let Ok(accepted) = HeaderValue::try_from(accepted) else {
        return refused(StatusCode::BAD_REQUEST, "Bad Request");
    };
    let mut response = Response::new(ReplyBody::Empty);
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let said = response.headers_mut();
    said.insert(UPGRADE, HeaderValue::from_static("websocket"));
    said.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    said.insert(SEC_WEBSOCKET_ACCEPT, accepted);
    if protocol(headers).is_some_and(|offered| offered.starts_with(BEARER)) {
        said.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(BEARER));
    }
    response
}

fn refused(status: StatusCode, text: &str) -> Response<ReplyBody> {
    let mut response = pages::error(status, text);
    response.headers_mut().insert(SEC_WEBSOCKET_VERSION, VERSION);
    response
}

/// Makes the headers those of the request that is made over the socket: it is of whoever the protocol or the cookie names.
pub(super) fn put_token(headers: &mut HeaderMap) {
    headers.remove(TIMEOUT);
    let offered = protocol(headers).map(|offered| {
        // Whoever offers something else shows a token that is none, as with etcd.
        let token = offered.split_once("Bearer,").map_or("", |(_, token)| token.trim());
        if token.is_empty() { String::new() } else { format!("{BEARER} {token}") }
    });
    let cookie = cookie(headers).map(|token| format!("{BEARER} {token}"));
    if let Some(token) = cookie.or(offered) {
        headers.remove(TOKEN);
        headers.insert(AUTHORIZATION, HeaderValue::try_from(token).unwrap_or(HeaderValue::from_static("")));
    }
}

fn protocol(headers: &HeaderMap) -> Option<&str> {
    headers.get(SEC_WEBSOCKET_PROTOCOL)?.to_str().ok().filter(|offered| !offered.is_empty())
}

/// The token that a cookie shows. A browser sends it whoever's page asks, so it counts for a page of this very host only,
/// and for what is no browser.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    if let Some(origin) = headers.get(ORIGIN) {
        let (_, from) = origin.to_str().ok()?.split_once("://")?;
        headers.get(HOST).filter(|host| host.as_bytes() == from.as_bytes())?;
    }
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == TOKEN_COOKIE).map(|(_, token)| token.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: (&str, &str) = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    const OFFER: [(&str, &str); 3] =
        [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket"), ("sec-websocket-version", "13")];

    fn asked(method: &str, headers: &[(&str, &str)]) -> Request<()> {
        let request = Request::builder().method(method).uri("/v3/watch");
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).unwrap()
    }

    fn answered(method: &str, more: &[(&str, &str)], web: &WebPolicy) -> Response<ReplyBody> {
        let request = asked(method, &[&OFFER[..], more].concat());
        assert!(is_wanted(&request));
        answer(&request, web)
    }

    #[test]
    fn the_keys_answer_is_that_of_the_standard() {
        let response = answered("GET", &[KEY], &WebPolicy::default());
        assert_eq!(response.status(), 101);
        assert_eq!(response.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(!response.headers().contains_key(SEC_WEBSOCKET_PROTOCOL));
        let bearer = answered("GET", &[KEY, ("sec-websocket-protocol", "Bearer, x")], &WebPolicy::default());
        assert_eq!(bearer.headers()[SEC_WEBSOCKET_PROTOCOL], "Bearer");
    }

    #[test]
    fn who_asks_wrongly_or_from_elsewhere_is_refused() {
        let (all, one) = (WebPolicy::default(), WebPolicy::new(vec!["http://a.com".into()], vec![]));
        let status = |method, more: &[(&str, &str)], web| answered(method, more, web).status().as_u16();
        assert_eq!(status("POST", &[KEY], &all), 405);
        assert_eq!(status("GET", &[], &all), 400);
        assert_eq!(status("GET", &[("sec-websocket-key", "c2hvcnQ=")], &all), 400);
        assert_eq!(answer(&asked("GET", &[&OFFER[..2], &[KEY]].concat()), &all).status(), 400, "no version");
        for (origin, by_all, by_one) in [("http://a.com", 101, 101), ("http://b.com", 101, 403), ("null", 101, 403)] {
            let more = [KEY, ("origin", origin)];
            assert_eq!((status("GET", &more, &all), status("GET", &more, &one)), (by_all, by_one), "{origin}");
        }
        assert_eq!(status("GET", &[KEY], &one), 101, "what is no browser names no origin");
        assert!(!is_wanted(&asked("GET", &OFFER[1..])) && !is_wanted(&asked("GET", &OFFER[..1])));
    }

    #[test]
    fn a_token_comes_by_the_protocol_by_a_cookie_or_by_itself() {
        let shown = |headers: &[(&str, &str)]| {
            let mut headers = asked("GET", headers).headers().clone();
            put_token(&mut headers);
            let token = headers.get(AUTHORIZATION).map(|token| token.to_str().unwrap().to_owned());
            (token, headers.contains_key(TOKEN) || headers.contains_key(TIMEOUT))
        };
        let token = |token: &str| (Some(token.to_owned()), false);
        let (protocol, cookie) = ("sec-websocket-protocol", "cookie");
        assert_eq!(shown(&[]), (None, false));
        assert_eq!(shown(&[("authorization", "a"), ("grpc-timeout", "1S")]), token("a"));
        assert_eq!(shown(&[("grpc-metadata-token", "a")]), (None, true));
        assert_eq!(
            shown(&[(protocol, "Bearer, x"), ("authorization", "a"), ("grpc-metadata-token", "a")]),
            token("Bearer x")
        );
        assert_eq!(shown(&[(protocol, "Bearer,x")]), token("Bearer x"));
        assert_eq!(shown(&[(protocol, "chat, Bearer, x")]), token("Bearer x"));
        assert_eq!(shown(&[(protocol, "x")]), token(""));
        assert_eq!(shown(&[(cookie, "a=b; token=\"x\"; c=d"), (protocol, "Bearer, y")]), token("Bearer x"));
        let from = |origin| shown(&[(cookie, "token=x"), ("origin", origin), ("host", "here:2379")]);
        assert_eq!(from("http://here:2379"), token("Bearer x"));
        for elsewhere in ["http://evil.com", "null", "http://here"] {
            assert_eq!(from(elsewhere), (None, false), "a page of another site shows nobody's token");
        }
    }
}
