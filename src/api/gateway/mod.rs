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

use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, Uri};
use hyper::body::Incoming;
use rusd_proto::{Route, Shape, shape};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

use self::values::Values;
use super::grpc::body::ReplyBody;
use super::grpc::request::CallBody;
use super::grpc::service;
use super::services::Services;

pub(super) use self::path::is_served;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// How much longer than a message its text may be.
const TEXT_FACTOR: usize = 2;

/// Serves a request to a path of the gateway.
pub(super) async fn serve(
    services: Arc<Services>,
    shutdown: watch::Receiver<bool>,
    request: Request<Incoming>,
) -> Response<ReplyBody> {
    let Some(route) = path::route(request.uri().path()) else {
        return failure::response(&Status::not_found("Not Found"));
    };
    if request.method() != Method::POST {
        return failure::response(&Status::unimplemented("Method Not Allowed"));
    }
    match call(&services, &shutdown, route, request).await {
        Ok(response) => response,
        Err(status) => failure::response(&status),
    }
}

/// Makes the call and translates its answer.
///
/// # Errors
/// What is refused before the call is made.
async fn call(
    services: &Arc<Services>,
    shutdown: &watch::Receiver<bool>,
    route: &Route,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Status> {
    let (parts, incoming) = request.into_parts();
    let timeout = head::timeout(&parts.headers)?;
    let text_max = services.message_bytes_max().saturating_mul(TEXT_FACTOR);
    let mut values = Values::new(incoming, text_max, services.budgets.requests.clone());
    // What is wrong with the first value is the answer, also to a stream: etcd's says nothing then, or never ends.
    let first = std::future::poll_fn(|context| values.poll_next(context));
    let first = if route.request_stream {
        first.await
    } else {
        let limit = services.limits.request_arrival_max;
        tokio::time::timeout(limit, first).await.map_err(|_| service::late(limit))?
    };
    let first = first.transpose()?;
    let (request, response) = (known(route.request)?, known(route.response)?);
    let body = if route.request_stream {
        let first = first.map(|value| body::framed(value, request)).transpose()?;
        CallBody::Translated(Box::pin(body::Many::new(first, values, request)))
    } else {
        drop(values);
        let value = first.unwrap_or((bytes::Bytes::from_static(b"{}"), None));
        let (message, held) = body::framed(value, request)?;
        // These may wait for hours, and keep no more than a name.
        let held = held.filter(|_| !matches!(route.method, "Lock" | "Campaign"));
        CallBody::Translated(Box::pin(body::Once::new((message, held))))
    };
    let mut call = Request::new(body);
    *call.method_mut() = Method::POST;
    let path: PathAndQuery = format!("/{}/{}", route.service, route.method)
        .parse()
        .map_err(|_| Status::internal("a method's path is none"))?;
    *call.uri_mut() = Uri::from(path);
    *call.headers_mut() = head::metadata(&parts.headers);
    let budget = &services.budgets.answers;
    if !route.response_stream {
        let answer = service::serve(services, shutdown, call, timeout).await;
        return Ok(answer::unary(answer, response, budget).await);
    }
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let deadline = deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
    let answer = service::serve(services, shutdown, call, None).await;
    Ok(answer::stream(answer, response, deadline, budget).await)
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
