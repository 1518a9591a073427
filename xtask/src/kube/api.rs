//! Requests to the apiserver, over one connection that is made again when it broke.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::secure::Dialer;

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A client of its own.
pub(super) struct Api {
    dialer: Dialer,
    to: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
}

/// What was answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl Api {
    pub(super) fn new(dialer: Dialer, to: SocketAddr) -> Self {
        Self { dialer, to, sender: None }
    }

    pub(super) async fn get(&mut self, path: &str) -> Result<Answer, String> {
        self.ask(Method::GET, path, Value::Null).await
    }

    pub(super) async fn post(&mut self, path: &str, object: Value) -> Result<Answer, String> {
        self.ask(Method::POST, path, object).await
    }

    /// A merge patch.
    pub(super) async fn patch(&mut self, path: &str, part: Value) -> Result<Answer, String> {
        self.ask(Method::PATCH, path, part).await
    }

    pub(super) async fn delete(&mut self, path: &str) -> Result<Answer, String> {
        self.ask(Method::DELETE, path, Value::Null).await
    }

    /// One request; after an error nobody knows whether it was done.
    pub(super) async fn ask(&mut self, method: Method, path: &str, object: Value) -> Result<Answer, String> {
        let sender = self.sender.take();
        let asked = tokio::time::timeout(PATIENCE, self.attempt(sender, method, path, object)).await;
        asked.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")))
    }

    /// How many objects a watch with initial events tells of, until it says that these were all; the watch ends then.
    pub(super) async fn initial_events(&mut self, path: &str) -> Result<usize, String> {
        // The connection isn't used again: the watch would go on.
        let sender = self.sender.take();
        let told = tokio::time::timeout(PATIENCE, async {
            let (_sender, mut answer) = self.send(sender, Method::GET, path, Value::Null).await?;
            if !answer.status().is_success() {
                return Err(format!("{path}: {}", answer.status()));
            }
            let mut told = Told::default();
            while let Some(frame) = answer.body_mut().frame().await {
                let frame = frame.map_err(|error| error.to_string())?;
                if let Some(count) = told.take(frame.data_ref().map_or(&[][..], |data| data))? {
                    return Ok(count);
                }
            }
            Err(format!("{path}: ended without a word that these were all"))
        });
        told.await.unwrap_or_else(|_| Err(format!("{path}: not all within {PATIENCE:?}")))
    }

    async fn attempt(
        &mut self,
        sender: Option<SendRequest<Full<Bytes>>>,
        method: Method,
        path: &str,
        object: Value,
    ) -> Result<Answer, String> {
        let (sender, answer) = self.send(sender, method, path, object).await?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        self.sender = Some(sender);
        Ok(Answer { status, body })
    }

    /// An answer whose body is still to come.
    async fn send(
        &self,
        sender: Option<SendRequest<Full<Bytes>>>,
        method: Method,
        path: &str,
        object: Value,
    ) -> Result<(SendRequest<Full<Bytes>>, Response<Incoming>), String> {
        let text = |error: hyper::Error| error.to_string();
        let mut sender = match sender {
            Some(sender) if !sender.is_closed() => sender,
            _ => {
                let stream = self.dialer.dial(self.to).await.map_err(|error| error.to_string())?;
                let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(text)?;
                // It ends with the sender; its error is that of the request.
                tokio::spawn(connection);
                sender
            }
        };
        sender.ready().await.map_err(text)?;
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let body = if object.is_null() { Bytes::new() } else { Bytes::from(object.to_string()) };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, kind)
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        let answer = sender.send_request(request).await.map_err(text)?;
        Ok((sender, answer))
    }
}

/// What a watch has told: one event a line, a line in one piece of the body or in several.
#[derive(Default)]
struct Told {
    line: Vec<u8>,
    count: usize,
}

impl Told {
    /// Takes a piece; all objects' number, once the bookmark says that these were all.
    fn take(&mut self, piece: &[u8]) -> Result<Option<usize>, String> {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if !part.ends_with(b"\n") {
                break;
            }
            let line = std::mem::take(&mut self.line);
            if line.starts_with(br#"{"type":"ADDED""#) {
                self.count += 1;
                continue;
            }
            let text = String::from_utf8_lossy(&line);
            if line.starts_with(br#"{"type":"BOOKMARK""#) && text.contains(r#""k8s.io/initial-events-end":"true""#) {
                return Ok(Some(self.count));
            }
            if line.starts_with(br#"{"type":"ERROR""#) {
                return Err(text.into_owned());
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_counted_line_by_line_however_it_comes() {
        let end = r#"{"type":"BOOKMARK","object":{"metadata":{"annotations":{"k8s.io/initial-events-end":"true"}}}}"#;
        let added = r#"{"type":"ADDED","object":{"data":"BOOKMARK"}}"#;
        let all = format!("{added}\n{{\"type\":\"BOOKMARK\"}}\n{added}\n{end}\n");
        for size in [1, 7, all.len()] {
            let mut told = Told::default();
            let said: Vec<_> = all.as_bytes().chunks(size).map(|piece| told.take(piece)).collect();
            let (last, before) = said.split_last().expect("there are pieces");
            assert!(before.iter().all(|said| *said == Ok(None)), "pieces of {size}");
            assert_eq!(*last, Ok(Some(2)), "pieces of {size}");
        }
        let mut told = Told::default();
        assert!(told.take(b"{\"type\":\"ERROR\",\"object\":{}}\n").is_err());
    }
}
