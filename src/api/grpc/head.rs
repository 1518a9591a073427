//! What the head of a gRPC request must be, as grpc-go has it, before anyone asks for the method.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{Method as HttpMethod, Request, Response, StatusCode, Version};
use tonic::Status;

use super::body::ReplyBody;
use super::deadline;
use crate::api::methods::Method;

const GRPC: &[u8] = b"application/grpc";

/// What a request's head makes of it.
pub(crate) enum Head {
    /// A call, with the time that its client gives.
    Call(Option<Duration>),
    /// A call that is refused as it stands.
    Refused(Response<ReplyBody>),
    /// Not for the gRPC services.
    Page,
}

/// Looks at a head, at each part of it once.
pub(crate) fn of<B>(request: &Request<B>) -> Head {
    if request.version() != Version::HTTP_2 {
        return Head::Page;
    }
    let content = request.headers().get(CONTENT_TYPE).map_or(&b""[..], http::HeaderValue::as_bytes);
    // A codec may follow; all of them are taken for protobuf, as in etcd.
    if !matches!(content.strip_prefix(GRPC), Some([] | [b'+' | b';', ..])) {
        if Method::of_path(request.uri().path()).is_none() {
            return Head::Page;
        }
        return Head::Refused(not_grpc(request));
    }
    if request.method() != HttpMethod::POST {
        let text = format!("Received a HEADERS frame with :method \"{}\" which should be POST", request.method());
        return refuse(StatusCode::METHOD_NOT_ALLOWED, Status::internal(text));
    }
    match deadline::of(request.headers()) {
        Ok(timeout) => Head::Call(timeout),
        Err(status) => refuse(StatusCode::BAD_REQUEST, status),
    }
}

/// The refusal of what is no gRPC, where nothing else is served; code and text are grpc-go's.
pub(crate) fn not_grpc<B>(request: &Request<B>) -> Response<ReplyBody> {
    let content = request.headers().get(CONTENT_TYPE).map_or(&b""[..], http::HeaderValue::as_bytes);
    let text = format!("invalid gRPC request content-type {:?}", String::from_utf8_lossy(content));
    answer(StatusCode::UNSUPPORTED_MEDIA_TYPE, Status::invalid_argument(text))
}

fn refuse(http_status: StatusCode, status: Status) -> Head {
    Head::Refused(answer(http_status, status))
}

fn answer(http_status: StatusCode, status: Status) -> Response<ReplyBody> {
    let mut response = status.into_http();
    *response.status_mut() = http_status;
    response
}
