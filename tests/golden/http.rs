//! HTTP requests as text, and what a server answers to them as lines: how the JSON gateway is spoken to.
//!
//! ```text
//! "POST /v3/kv/put {…}" ─► request ─► hyper ─► status, headers, body ─► masked text
//! ```
//! Answers are compared as they are written, so that the order of fields and the spelling count; what differs from
//! run to run is masked as in `render`.

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use crate::render::{Known, MASKED};

/// Longer texts are cut in answers.
const SHOWN_MAX: usize = 1500;

/// A request that isn't sent yet.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    method: Method,
    path: String,
    body: Bytes,
}

/// The request that a step's text means; `None` if it is none of HTTP.
pub(crate) fn parse(text: &str) -> Option<Asked> {
    let (method, rest) = text.split_once(' ')?;
    let methods = ["POST", "GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"];
    let method = methods.contains(&method).then(|| method.parse().ok())??;
    let (path, body) = rest.split_once(' ').unwrap_or((rest, ""));
    Some(Asked { method, path: path.to_owned(), body: bytes_of(body) })
}

/// A text's bytes; `${byte ff}` has become a character that stands for that byte.
fn bytes_of(text: &str) -> Bytes {
    let mut out = Vec::with_capacity(text.len());
    for character in text.chars() {
        match u32::from(character) {
            code @ 0xe000..0xe100 => out.push((code - 0xe000) as u8),
            _ => out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.into()
}

/// Sends a request to `url` and gives the answer once its head is there.
///
/// # Errors
/// No connection, or no answer.
pub(crate) async fn send(url: &str, asked: &Asked, headers: &[(String, String)]) -> Result<Response<Incoming>, String> {
    let address = url.trim_start_matches("http://");
    let socket = tokio::net::TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let mut request = Request::builder().method(asked.method.clone()).uri(&asked.path);
    if headers.iter().all(|(name, _)| !name.eq_ignore_ascii_case("host")) {
        request = request.header("Host", address);
    }
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(asked.body.clone())).map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    // The connection lives as long as somebody could ask on it.
    let (parts, body) = answer.into_parts();
    Ok(Response::from_parts(parts, body))
}

/// An answer's lines, awaited to its end.
pub(crate) async fn lines(known: &Known, answer: Response<Incoming>, shown: &[String]) -> (Vec<String>, String) {
    let mut lines = head(&answer, shown);
    let text = match answer.into_body().collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(error) => format!("broken: {error}"),
    };
    let mut rest = text.lines().map(|line| masked(known, line));
    if let Some(first) = rest.next() {
        lines[0].push(' ');
        lines[0].push_str(&first);
    }
    lines.extend(rest.map(|line| format!("|   {line}")));
    (lines, text)
}

/// Status, and the headers that are asked for.
pub(crate) fn head(answer: &Response<Incoming>, shown: &[String]) -> Vec<String> {
    let value = |name: &str| answer.headers().get(name).map_or("", |value| value.to_str().unwrap_or("?"));
    let mut first = format!("< {}", answer.status().as_u16());
    let kind = value("content-type");
    if kind != "application/json" && !kind.is_empty() {
        first.push_str(&format!(" ({kind})"));
    }
    let mut lines = vec![first];
    lines.extend(shown.iter().map(|name| format!("|   {name}: {}", value(name))));
    lines
}

/// A line of an answer without what differs from run to run.
pub(crate) fn masked(known: &Known, line: &str) -> String {
    // Go's protojson leaves a space that doesn't break here or there, depending on how it was built.
    let mut text = line.replace('\u{a0}', " ");
    for name in MASKED.iter().copied().chain(known.masked.iter().map(String::as_str)) {
        text = mask(&text, name);
    }
    for (name, value) in known.variables.iter().filter(|(_, value)| value.len() > 6) {
        text = text.replace(value.as_str(), &format!("${{{name}}}"));
    }
    text = text.replace(r#""cluster_id":"${cluster}","member_id":"${self}","#, "ids,");
    if text.len() > SHOWN_MAX {
        let cut = (0..=SHOWN_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text = format!("{}… {} bytes", &text[..cut], text.len());
    }
    text
}

/// `"name":value` as `"name":~`, wherever it stands.
fn mask(text: &str, name: &str) -> String {
    let key = format!("\"{name}\":");
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(&key) {
        let (before, value) = rest.split_at(at + key.len());
        let len = match value.strip_prefix('"') {
            Some(string) => string.find('"').map_or(value.len(), |end| end + 2),
            None => value.find([',', '}', ']']).unwrap_or(value.len()),
        };
        out.push_str(before);
        out.push('~');
        rest = &value[len..];
    }
    out.push_str(rest);
    out
}

/// The value of the first field of that name in an answer.
pub(crate) fn value_of(text: &str, field: &str) -> Option<String> {
    let (_, value) = text.split_once(&format!("\"{field}\":"))?;
    Some(match value.strip_prefix('"') {
        Some(string) => string.split('"').next()?.to_owned(),
        None => value.split([',', '}', ']']).next()?.to_owned(),
    })
}

#[test]
fn what_differs_is_masked() {
    let mut known = Known::default();
    known.variables.insert("self".into(), "7654321".into());
    known.variables.insert("cluster".into(), "1234567".into());
    let line = r#"{"header":{"cluster_id":"1234567","member_id":"7654321","revision":"2","raft_term":"5"},"hash":7,"ID":"7654321"}"#;
    assert_eq!(masked(&known, line), r#"{"header":{ids,"revision":"2","raft_term":~},"hash":~,"ID":"${self}"}"#);
    assert_eq!(value_of(line, "revision").as_deref(), Some("2"));
    assert_eq!(value_of(line, "hash").as_deref(), Some("7"));
    assert_eq!(bytes_of("a\u{e0ff}é"), &b"a\xff\xc3\xa9"[..]);
}
