//! The same calls through the JSON gateway: a message as JSON, an answer as a status.
//!
//! ```text
//! method, text ─► DynamicMessage ─► JSON ─► POST /v3/… ─► first object ─► ok · code and text
//! ```

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost_reflect::{DynamicMessage, MethodDescriptor, Value};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Code, Status};

/// The path of a method, if it has one.
pub(crate) fn path_of(method: &MethodDescriptor) -> Option<&'static str> {
    let service = method.parent_service();
    let of = |route: &&rusd_proto::Route| route.service == service.full_name() && route.method == method.name();
    rusd_proto::routes().iter().find(of).map(|route| route.path)
}

/// Sends a message of the method's type to its path, and gives the answer or what it begins with.
pub(crate) async fn ask(
    url: &str,
    path: &str,
    method: &MethodDescriptor,
    message: Bytes,
    token: Option<&str>,
) -> Result<serde_json::Value, Status> {
    let message = DynamicMessage::decode(method.input(), message).expect("a message of its type");
    let body = object(&message).to_string();
    let address = url.trim_start_matches("http://");
    let mut socket = tokio::net::TcpStream::connect(address).await.expect("a serving server accepts connections");
    let authorization = token.map(|token| format!("Authorization: {token}\r\n")).unwrap_or_default();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\n{authorization}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    socket.write_all(format!("{head}{body}").as_bytes()).await.expect("a request is taken");
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer);
        if let Some((_, body)) = text.split_once("\r\n\r\n")
            && let Some(start) = body.find('{')
            && let Some(Ok(first)) = serde_json::Deserializer::from_str(&body[start..]).into_iter().next()
        {
            let status = text.split(' ').nth(1).unwrap_or_default();
            return outcome(status, first);
        }
        if socket.read_buf(&mut answer).await.expect("an answer comes") == 0 {
            // A stream that has nothing to say.
            return Ok(json!({}));
        }
    }
}

/// What an object with that HTTP status means.
fn outcome(http_status: &str, object: serde_json::Value) -> Result<serde_json::Value, Status> {
    let error = object.get("error").unwrap_or(&object);
    if http_status == "200" && object.get("error").is_none() {
        return Ok(object.get("result").cloned().unwrap_or(object));
    }
    let code = error["code"].as_i64().and_then(|code| i32::try_from(code).ok()).unwrap_or_default();
    Err(Status::new(Code::from_i32(code), error["message"].as_str().unwrap_or_default()))
}

fn object(message: &DynamicMessage) -> serde_json::Value {
    message.fields().map(|(field, value)| (field.name().to_owned(), value_of(value))).collect()
}

fn value_of(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(value) => json!(value),
        Value::I32(value) | Value::EnumNumber(value) => json!(value),
        Value::U32(value) => json!(value),
        Value::I64(value) => json!(value.to_string()),
        Value::U64(value) => json!(value.to_string()),
        Value::String(value) => json!(value),
        Value::Bytes(value) => json!(STANDARD.encode(value)),
        Value::Message(message) => object(message),
        Value::List(values) => values.iter().map(value_of).collect(),
        other => panic!("no request has {other:?}"),
    }
}
