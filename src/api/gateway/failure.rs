//! A refusal as etcd's gateway writes it: `{"code":…,"message":…}` with the HTTP status that belongs to the code.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use tonic::{Code, Status};

use super::JSON;
use super::render::escape;
use crate::api::grpc::body::ReplyBody;

/// The HTTP status of a code.
pub(super) fn http_status(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A status as JSON.
pub(super) fn json(status: &Status) -> Vec<u8> {
    let mut out = format!("{{\"code\":{}", i32::from(status.code())).into_bytes();
    if !status.message().is_empty() {
        out.extend_from_slice(b",\"message\":\"");
        escape(status.message().as_bytes(), &mut out);
        out.push(b'"');
    }
    out.push(b'}');
    out
}

/// The refusal of a call with one answer.
pub(in crate::api) fn response(status: &Status) -> Response<ReplyBody> {
    let mut response = plain(status, json(status));
    if status.code() == Code::Unauthenticated
        && let Ok(message) = HeaderValue::from_str(status.message())
    {
        response.headers_mut().insert(WWW_AUTHENTICATE, message);
    }
    response
}

/// The refusal of a call that would have answered with a stream: its only line.
pub(super) fn line(status: &Status) -> Vec<u8> {
    [b"{\"error\":", &json(status)[..], b"}\n"].concat()
}

/// The same as a response.
pub(super) fn stream_response(status: &Status) -> Response<ReplyBody> {
    plain(status, line(status))
}

fn plain(status: &Status, body: Vec<u8>) -> Response<ReplyBody> {
    let mut response = Response::new(ReplyBody::Plain(Some(Bytes::from(body))));
    *response.status_mut() = http_status(status.code());
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_code_and_words() {
        let status = Status::invalid_argument("a \"b\"\n");
        assert_eq!(json(&status), br#"{"code":3,"message":"a \"b\"\n"}"#);
        assert_eq!(json(&Status::unknown("")), br#"{"code":2}"#);
        assert_eq!(line(&status), b"{\"error\":{\"code\":3,\"message\":\"a \\\"b\\\"\\n\"}}\n");
        for (code, expected) in
            [(3, 400), (16, 401), (7, 403), (5, 404), (8, 429), (1, 499), (2, 500), (12, 501), (14, 503), (4, 504)]
        {
            assert_eq!(http_status(Code::from_i32(code)).as_u16(), expected, "{code}");
        }
    }
}
