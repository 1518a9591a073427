//! The JSON gateway over WebSockets: a browser can't send and hear at a time otherwise.
//!
//! ```text
//! GET /v3/watch, Upgrade ─► handshake ─► 101 ─► Upgrade (left in the connection's `Switch`)
//!                                                 │ HTTP ends
//! client ─► frames ─► pipe ─► gateway, as a POST whose body goes on ─► lines ─► frames ─► client   (`Session`)
//! ```
//! Each message is JSON as the body of such a POST has it, and each line of the answer is a message. What is asked, who
//! may, and how much of it there may be is the gateway's; a socket holds its request's place until it ends.

mod frames;
mod handshake;
mod pipe;
mod session;

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;

use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::gateway;
use super::grpc::body::ReplyBody;
use super::http::WebPolicy;
use super::services::Services;
use super::share::Asked;

pub(super) use handshake::is_wanted;
pub(super) use session::Session;

/// The answer that the gateway gives, to come.
type Call = Pin<Box<dyn Future<Output = Response<ReplyBody>> + Send>>;

/// A socket that HTTP has let go of, or is about to.
pub(super) struct Upgrade {
    on: OnUpgrade,
    feeder: pipe::Feeder,
    call: Call,
    /// The request's places.
    asked: Option<Asked>,
    /// Set when the server ends.
    shutdown: watch::Receiver<bool>,
}

/// Where a connection finds what it is to become when HTTP has ended.
#[derive(Clone, Default)]
pub(super) struct Switch(Arc<Mutex<Option<Upgrade>>>);

impl Switch {
    /// What it is to become, if anything.
    pub(super) fn take(&self) -> Option<Upgrade> {
        self.0.lock().take()
    }

    /// Has the socket hold its request's places.
    pub(super) fn hold(&self, asked: Asked) {
        if let Some(upgrade) = &mut *self.0.lock() {
            upgrade.asked = Some(asked);
        }
    }
}

impl std::fmt::Debug for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Switch")
    }
}

/// The headers by which the gateway goes, whether or not a request wants to become a WebSocket.
pub(super) fn said<B>(request: &Request<B>) -> Cow<'_, HeaderMap> {
    let mut headers = Cow::Borrowed(request.headers());
    if is_wanted(request) {
        handshake::put_token(headers.to_mut());
    }
    headers
}

/// Answers a request that wants to become a WebSocket, and leaves in `switch` what comes then.
pub(super) fn accept(
    services: Arc<Services>,
    mut request: Request<Incoming>,
    web: &WebPolicy,
    shutdown: watch::Receiver<bool>,
    switch: &Switch,
) -> Response<ReplyBody> {
    let answer = handshake::answer(&request, web);
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let on = hyper::upgrade::on(&mut request);
        let (mut parts, _) = request.into_parts();
        parts.method = Method::POST;
        handshake::put_token(&mut parts.headers);
        let (feeder, spoken) = pipe::pipe();
        let call = gateway::serve_socket(services, shutdown.clone(), Request::from_parts(parts, spoken));
        *switch.0.lock() = Some(Upgrade { on, feeder, call: Box::pin(call), asked: None, shutdown });
    }
    answer
}
