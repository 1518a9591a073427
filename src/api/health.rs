//! `grpc.health.v1`: the whole server (the empty name) serves; no other name is known.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use rusd_proto::health as pb;
use rusd_proto::health::health_check_response::ServingStatus;
use tonic::Status;

use super::auth::CallContext;
use super::grpc::body::{BodyError, ReplyBody, framed};
use super::grpc::service::StreamBody;
use super::reply::Prost;

fn response(status: ServingStatus) -> pb::HealthCheckResponse {
    pb::HealthCheckResponse { status: status.into() }
}

/// `Check`.
pub(crate) async fn check(_: CallContext, request: pb::HealthCheckRequest) -> Result<ReplyBody, Status> {
    if !request.service.is_empty() {
        return Err(Status::not_found("unknown service"));
    }
    ReplyBody::small(&Prost(response(ServingStatus::Serving)))
}

/// `List`.
pub(crate) async fn list(_: CallContext, _: pb::HealthListRequest) -> Result<ReplyBody, Status> {
    let statuses = [(String::new(), response(ServingStatus::Serving))].into();
    ReplyBody::small(&Prost(pb::HealthListResponse { statuses }))
}

/// `Watch`: the status now, and the stream stays open for changes, of which there are none.
pub(crate) async fn watch(_: CallContext, request: pb::HealthCheckRequest) -> Result<StreamBody, Status> {
    let status = if request.service.is_empty() { ServingStatus::Serving } else { ServingStatus::ServiceUnknown };
    Ok(Box::pin(Held { first: Some(framed(&Prost(response(status)))) }))
}

/// One message, then silence until the client goes.
struct Held {
    first: Option<Bytes>,
}

impl Body for Held {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.first.take() {
            Some(message) => Poll::Ready(Some(Ok(Frame::data(message)))),
            // The connection drops this body when the client leaves; `grpc::ending` ends it with the server.
            None => Poll::Pending,
        }
    }
}
