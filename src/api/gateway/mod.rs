//! The JSON gateway: etcd's API for whoever speaks HTTP and JSON.
//!
//! ```text
//! POST /v3/kv/range ─► path: which method? ─► head: who asks ─► values ─► parse: JSON ─► a gRPC frame
//!                                                                                          │
//!   JSON ◄─ answer (render, failure) ◄─ a gRPC answer ◄─ grpc::service, as for every other call ◄┘
//! ```
//! It only translates: limits, rights, errors and counters are those of the call that it makes, in this process and
//! without a connection. Messages are known by their shapes (`rusd_proto::shape`), so that a new field needs no code.

mod answer;
mod body;
mod failure;
mod head;
mod nested;
mod number;
mod parse;
mod path;
mod render;
mod scan;
mod text;
mod values;

use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body::Body;
use hyper::body::Incoming;
use rusd_proto::{Route, Shape, shape};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use self::body::Framed;
use self::values::Values;
use super::auth::{Visitor, Whence};
use super::grpc::body::ReplyBody;
use super::grpc::request::{CallBody, Translated};
use super::grpc::service;
use super::services::Services;
use super::{errors, methods};
use crate::types::RequestError;

pub(super) use self::failure::response as refusal;
pub(super) use self::head::metadata;
pub(super) use self::path::{is_login, is_served, method_of};

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// How much longer than a message its text may be.
const TEXT_FACTOR: usize = 2;

/// A request that became a call's message.
struct Asked {
    route: &'static Route,
    path: PathAndQuery,
    metadata: HeaderMap,
    /// When the client's time is over.
    deadline: Option<Instant>,
    /// Whence it comes, where that matters.
    origin: Option<IpAddr>,
    first: Option<Framed>,
}

/// What is refused before the call is made.
enum Refused {
    /// As no request.
    Request(Status),
    /// As a call would have been.
    Stream(Status),
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self::Request(status)
    }
}

/// Serves a request to a path of the gateway.
pub(super) async fn serve(
    services: Arc<Services>,
    shutdown: watch::Receiver<bool>,
    request: Request<Incoming>,
) -> Response<ReplyBody> {
    answered(services, shutdown, request, true).await
}

/// The same for what is said over a WebSocket: a single request ends with its value, since whoever reads on sees its
/// client leave.
pub(super) async fn serve_socket<B>(
    services: Arc<Services>,
    shutdown: watch::Receiver<bool>,
    request: Request<B>,
) -> Response<ReplyBody>
where
    B: Body<Data = Bytes> + Unpin + Send + Sync + 'static,
{
    answered(services, shutdown, request, false).await
}

/// `to_end`: whether a single request is read to its body's end before it is made.
async fn answered<B>(
    services: Arc<Services>,
    shutdown: watch::Receiver<bool>,
    request: Request<B>,
    to_end: bool,
) -> Response<ReplyBody>
where
    B: Body<Data = Bytes> + Unpin + Send + Sync + 'static,
{
    let (parts, incoming) = request.into_parts();
    let text_max = services.message_bytes_max().saturating_mul(TEXT_FACTOR);
    let (arrival_max, budget) = (services.limits.request_arrival_max, services.budgets.requests.clone());
    let mut values = Values::new(incoming, text_max, arrival_max, budget);
    let answer = match asked(&services, &parts, &mut values, to_end).await {
        Ok(asked) => {
            return call(&services, &shutdown, asked, values).await.unwrap_or_else(|status| failure::response(&status));
        }
        Err(Refused::Request(status)) => failure::response(&status),
        Err(Refused::Stream(status)) => failure::stream_response(&status),
    };
    values.discard();
    answer
}

/// Reads what is asked: the whole body, or a stream's first value.
async fn asked<B>(
    services: &Arc<Services>,
    parts: &Parts,
    values: &mut Values<B>,
    to_end: bool,
) -> Result<Asked, Refused>
where
    B: Body<Data = Bytes> + Unpin,
{
    let begun = Instant::now();
    let route = path::route(parts.uri.path()).ok_or_else(|| Status::not_found("Not Found"))?;
    if parts.method != Method::POST {
        return Err(Status::unimplemented("Method Not Allowed").into());
    }
    let deadline = head::timeout(&parts.headers)?.and_then(|timeout| begun.checked_add(timeout));
    let metadata = head::metadata(&parts.headers);
    let path = format!("/{}/{}", route.service, route.method);
    let method = methods::Method::of_path(&path).ok_or_else(|| methods::unknown(&path))?;
    let path = path.parse().map_err(|_| Status::internal("a method's path is none"))?;
    // Whoever may not call it at all has nothing held.
    let foreseen = in_time(deadline, None, service::foresee(services, method, &metadata)).await;
    foreseen.map_err(|status| if route.response_stream { Refused::Stream(status) } else { status.into() })?;
    let limit = (!route.request_stream).then_some(services.limits.request_arrival_max);
    let first = in_time(deadline, limit, async {
        let first = poll_fn(|context| values.poll_next(context)).await.transpose()?;
        if to_end && !route.request_stream {
            // Over HTTP/1.1 nobody sees a client leave whose request goes on.
            values.pass_rest().await?;
        }
        Ok(first)
    });
    // What is wrong with the first value is the answer, also to a stream: etcd's says nothing then, or never ends.
    let mut first = first.await?;
    if !route.request_stream {
        first = first.or_else(|| Some((Bytes::from_static(b"{}"), None)));
    }
    let request = known(route.request)?;
    let first = first.map(|value| body::framed(value, request, services.message_bytes_max())).transpose()?;
    let origin = parts.extensions.get::<Whence>().map(|whence| whence.0);
    Ok(Asked { route, path, metadata, deadline, origin, first })
}

/// What comes within the client's time and, if it has one, a limit of its own.
async fn in_time<T>(
    deadline: Option<Instant>,
    limit: Option<Duration>,
    coming: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let by_limit = limit.and_then(|limit| Some((Instant::now().checked_add(limit)?, service::late(limit))));
    let by_client = deadline.map(|deadline| (deadline, errors::status(&RequestError::DeadlineExceeded)));
    match by_client.into_iter().chain(by_limit).min_by_key(|(until, _)| *until) {
        Some((until, late)) => tokio::time::timeout_at(until, coming).await.unwrap_or(Err(late)),
        None => coming.await,
    }
}

/// Makes the call and translates its answer.
///
/// # Errors
/// A message without a shape.
async fn call<B>(
    services: &Arc<Services>,
    shutdown: &watch::Receiver<bool>,
    asked: Asked,
    values: Values<B>,
) -> Result<Response<ReplyBody>, Status>
where
    B: Body<Data = Bytes> + Unpin + Send + Sync + 'static,
{
    let Asked { route, path, metadata, deadline, origin, first } = asked;
    let (request, response) = (known(route.request)?, known(route.response)?);
    let body: Translated = if route.request_stream {
        Box::pin(body::Many::new(first, values, request, services.message_bytes_max()))
    } else {
        // Whoever speaks over a WebSocket is seen to leave only if all that is said is taken, or wanted by nobody.
        drop(values);
        // Some may wait for hours, and keep no more than a name.
        let waits = matches!(route.method, "Lock" | "Campaign");
        Box::pin(body::Once::new(first.map(|(message, held)| (message, held.filter(|_| !waits)))))
    };
    let mut call = Request::new(CallBody::Translated(body));
    *call.method_mut() = Method::POST;
    *call.uri_mut() = Uri::from(path);
    *call.headers_mut() = metadata;
    let budget = &services.budgets.answers;
    // A certificate counts for nobody who comes this way.
    let visitor = Visitor::default().coming(origin);
    if !route.response_stream {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let answer = service::serve(services, shutdown, &visitor, call, left).await;
        return Ok(answer::unary(answer, response, budget).await);
    }
    let answer = service::serve(services, shutdown, &visitor, call, None);
    match in_time(deadline, None, async { Ok(answer.await) }).await {
        Ok(answer) => {
            let deadline = deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
            Ok(answer::stream(answer, response, deadline, budget).await)
        }
        Err(late) => Ok(failure::stream_response(&late)),
    }
}

/// The shape of a route's message; a test looks that each has one.
fn known(name: &str) -> Result<&'static Shape, Status> {
    shape(name).ok_or_else(|| Status::internal(format!("{name} is not known")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_has_its_shapes_and_its_method() {
        for route in rusd_proto::routes() {
            assert!(known(route.request).is_ok() && known(route.response).is_ok(), "{route:?}");
            let path = format!("/{}/{}", route.service, route.method);
            assert!(crate::api::methods::Method::of_path(&path).is_some(), "{path}");
        }
    }
}
