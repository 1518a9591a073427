//! Requests to the apiserver, over one connection that is made again when it broke.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
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

    async fn attempt(
        &mut self,
        sender: Option<SendRequest<Full<Bytes>>>,
        method: Method,
        path: &str,
        object: Value,
    ) -> Result<Answer, String> {
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
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.map_err(text)?.to_bytes();
        self.sender = Some(sender);
        Ok(Answer { status, body })
    }
}
