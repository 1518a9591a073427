//! `etcdserverpb.Watch`: the gRPC service over the watch hub, with a response body of its own.
//!
//! ```text
//! HTTP/2 request ─► messages ─► WatchRequest ─► watch::WatchSession ─► WatchBody: many messages a DATA frame
//! ```
//!
//! tonic's encoder would handle each message alone; here the session's bytes, framed already, go to hyper as they
//! are, large events without a copy. The stream's task is hyper's own: no task, no channel for each stream.

mod body;
mod leader;
mod requests;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;

use self::body::WatchBody;
pub use self::leader::end_streams_without_leader;
use self::requests::Requests;
use super::grpc::arrival::Arrivals;
use super::metrics::RpcMetrics;
use crate::types::{Budget, KeyRange, Limits, RequestError};
use crate::watch::{Confirm, HeaderSource, WatchHub, WatchSession};

/// Whether a stream's caller may watch this range; asked when a watch is created, and never again.
pub type CreateCheck = Arc<dyn Fn(&KeyRange) -> Result<(), Status> + Send + Sync>;

/// Whether this member knows a leader.
pub type LeaderCheck = Arc<dyn Fn() -> bool + Send + Sync>;

const METHOD: &str = "/etcdserverpb.Watch/Watch";

/// The Watch service, to be added to tonic's routes.
#[derive(Clone)]
pub struct WatchService {
    hub: WatchHub,
    header: HeaderSource,
    message_bytes_max: usize,
    create_check: Option<CreateCheck>,
    leader_check: Option<LeaderCheck>,
    confirm: Option<Confirm>,
    counted: Option<Arc<RpcMetrics>>,
    /// What half messages hold, and how long they may take.
    pending: Budget,
    arrival_max: Duration,
}

impl WatchService {
    /// The service over a hub; `header` says who answers, `request_bytes_max` is `--max-request-bytes`.
    pub fn new(hub: WatchHub, header: HeaderSource, request_bytes_max: usize) -> Self {
        let message_bytes_max = request_bytes_max + Limits::TRANSPORT_OVERHEAD_BYTES;
        let Limits { requests_pending_bytes_max, request_arrival_max: arrival_max, .. } = Limits::default();
        let pending = Budget::new(requests_pending_bytes_max);
        Self {
            hub,
            header,
            message_bytes_max,
            create_check: None,
            leader_check: None,
            confirm: None,
            counted: None,
            pending,
            arrival_max,
        }
    }

    /// Half messages share `pending` with other requests, and come to their end within `arrival_max`.
    pub(crate) fn within(self, pending: &Budget, arrival_max: Duration) -> Self {
        Self { pending: pending.clone(), arrival_max, ..self }
    }

    /// The hub that its streams are of.
    pub(crate) fn hub(&self) -> &WatchHub {
        &self.hub
    }

    /// Asks `check` at each create.
    pub fn with_create_check(mut self, check: CreateCheck) -> Self {
        self.create_check = Some(check);
        self
    }

    /// Refuses streams with `hasleader: true` while there is no leader. Open ones are ended by
    /// [`end_streams_without_leader`].
    pub fn with_leader_check(mut self, check: LeaderCheck) -> Self {
        self.leader_check = Some(check);
        self
    }

    /// Has requests for progress wait until this member has what was acknowledged before.
    pub fn with_confirm(mut self, confirm: Confirm) -> Self {
        self.confirm = Some(confirm);
        self
    }

    /// Counts the clients' messages.
    pub fn with_metrics(mut self, metrics: Arc<RpcMetrics>) -> Self {
        self.counted = Some(metrics);
        self
    }

    fn serve(&self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        if request.uri().path() != METHOD {
            return Err(Status::unimplemented(""));
        }
        let (parts, body) = request.into_parts();
        let needs_leader = parts.headers.get("hasleader").is_some_and(|value| value == "true");
        if needs_leader && self.leader_check.as_ref().is_some_and(|has_leader| !has_leader()) {
            return Err(Status::unavailable(RequestError::NoLeader.to_string()));
        }
        let messages = Arrivals::new(&parts.headers, self.message_bytes_max, self.arrival_max, &self.pending);
        let requests = Requests::new(messages, body, self.create_check.clone(), self.counted.clone());
        let session = WatchSession::new(&self.hub, Arc::clone(&self.header), requests, needs_leader)
            .confirming(self.confirm.clone());
        let mut response = http::Response::new(Body::new(WatchBody::new(session)));
        let headers = response.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
        Ok(response)
    }
}

impl std::fmt::Debug for WatchService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchService").finish_non_exhaustive()
    }
}

impl NamedService for WatchService {
    const NAME: &'static str = "etcdserverpb.Watch";
}

impl tower::Service<http::Request<Body>> for WatchService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        ready(Ok(self.serve(request).unwrap_or_else(Status::into_http)))
    }
}
