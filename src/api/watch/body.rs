//! `WatchBody`: a session's bytes as an HTTP body that ends with gRPC's trailers.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tonic::{Code, Status};

use super::requests::Requests;
use crate::watch::{StreamEnd, WatchSession};

/// The response body of one watch stream. Dropped when the client goes away; the session's watchers go with it.
pub(super) struct WatchBody {
    /// `None` once the trailers were given.
    session: Option<WatchSession<Requests>>,
}

impl WatchBody {
    pub(super) fn new(session: WatchSession<Requests>) -> Self {
        Self { session: Some(session) }
    }
}

impl Body for WatchBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(session) = &mut self.session else { return Poll::Ready(None) };
        match session.poll_chunk(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(chunk)) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
            Poll::Ready(Err(end)) => {
                self.session = None;
                Poll::Ready(Some(Ok(Frame::trailers(trailers(end)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.session.is_none()
    }
}

fn trailers(end: StreamEnd) -> http::HeaderMap {
    let mut headers = http::HeaderMap::new();
    let status = Status::new(Code::from_i32(end.code), end.message);
    if status.add_header(&mut headers).is_err() {
        headers.insert("grpc-status", http::HeaderValue::from(end.code));
    }
    headers
}
