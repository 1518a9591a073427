//! A call's answer as JSON: gRPC frames in, one object or a line for each message out.
//!
//! ```text
//! refused ─► failure
//! unary   ─► frame ─► Frames ─► the whole object, or (large) piece by piece as the client reads
//! stream  ─► first frame: its end decides the HTTP status ─► Lines: {"result":…} … {"error":…}
//! ```

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderValue, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use rusd_proto::Shape;
use tokio::time::Sleep;
use tonic::{Code, Status};

use super::render::Renderer;
use super::{JSON, failure};
use crate::api::errors;
use crate::api::grpc::body::{BodyError, ReplyBody, kept};
use crate::api::grpc::frame::HEAD_LEN;
use crate::types::{Budget, RequestError};

/// What etcd's gateway says of the call behind it.
const METADATA_TYPE: HeaderName = HeaderName::from_static("grpc-metadata-content-type");

/// When a call's time is over.
pub(super) type Deadline = Pin<Box<Sleep>>;

/// Messages on a gRPC stream as JSON.
struct Frames {
    shape: &'static Shape,
    /// Whether each is a line of its own.
    lines: bool,
    head: [u8; HEAD_LEN],
    head_len: usize,
    /// The message that has begun, and how many bytes of it are to come.
    current: Option<(Renderer, u64)>,
}

impl Frames {
    const fn new(shape: &'static Shape, lines: bool) -> Self {
        Self { shape, lines, head: [0; HEAD_LEN], head_len: 0, current: None }
    }

    fn is_between(&self) -> bool {
        self.current.is_none() && self.head_len == 0
    }

    fn feed(&mut self, mut data: &[u8], out: &mut Vec<u8>) {
        while !data.is_empty() {
            if let Some((renderer, left)) = &mut self.current {
                let len = usize::try_from(*left).unwrap_or(usize::MAX).min(data.len());
                let (now, later) = data.split_at(len);
                renderer.feed(now, out);
                data = later;
                *left -= len as u64;
            } else {
                let len = (HEAD_LEN - self.head_len).min(data.len());
                let (now, later) = data.split_at(len);
                self.head[self.head_len..self.head_len + len].copy_from_slice(now);
                self.head_len += len;
                data = later;
                if self.head_len < HEAD_LEN {
                    return;
                }
                if self.lines {
                    out.extend_from_slice(b"{\"result\":");
                }
                let [_, len @ ..] = self.head;
                let len = u64::from(u32::from_be_bytes(len));
                self.current = Some((Renderer::new(self.shape, len, out), len));
            }
            if self.current.as_ref().is_some_and(|(_, left)| *left == 0) {
                self.current = None;
                self.head_len = 0;
                if self.lines {
                    out.extend_from_slice(b"}\n");
                }
            }
        }
    }
}

/// The answer of a call that has one.
pub(super) async fn unary(answer: Response<ReplyBody>, shape: &'static Shape, budget: &Budget) -> Response<ReplyBody> {
    if let Some(status) = refusal(&answer) {
        return failure::response(&status);
    }
    let mut body = answer.into_body();
    let mut frames = Frames::new(shape, false);
    let mut out = Vec::new();
    match body.frame().await {
        Some(Ok(frame)) => frame.data_ref().into_iter().for_each(|data| frames.feed(data, &mut out)),
        Some(Err(error)) => return failure::response(&Status::unavailable(error.to_string())),
        None => {}
    }
    let first = kept(out.into(), budget);
    let body = if frames.is_between() {
        ReplyBody::Plain(Some(first))
    } else {
        json(Lines::new(first, frames, body, None, budget))
    };
    success(body)
}

/// The answer of a call that has many, by `deadline` if there is one.
pub(super) async fn stream(
    answer: Response<ReplyBody>,
    shape: &'static Shape,
    mut deadline: Option<Deadline>,
    budget: &Budget,
) -> Response<ReplyBody> {
    if let Some(status) = refusal(&answer) {
        return failure::stream_response(&status);
    }
    let mut body = answer.into_body();
    let first = tokio::select! {
        biased;
        first = body.frame() => first,
        () = over(&mut deadline) => return failure::stream_response(&late()),
    };
    let mut frames = Frames::new(shape, true);
    let mut out = Vec::new();
    match first {
        Some(Ok(frame)) => match frame.trailers_ref().and_then(Status::from_header_map) {
            Some(status) if status.code() != Code::Ok => return failure::stream_response(&status),
            _ => frame.data_ref().into_iter().for_each(|data| frames.feed(data, &mut out)),
        },
        Some(Err(error)) => return failure::stream_response(&Status::unavailable(error.to_string())),
        None => {}
    }
    if out.is_empty() && frames.is_between() {
        return Response::new(ReplyBody::Empty);
    }
    let first = kept(out.into(), budget);
    success(json(Lines::new(first, frames, body, deadline, budget)))
}

fn json(lines: Lines) -> ReplyBody {
    let is_at_hand = lines.inner.as_ref().is_some_and(ReplyBody::is_at_hand);
    ReplyBody::Json { body: Box::pin(lines), is_at_hand }
}

fn success(body: ReplyBody) -> Response<ReplyBody> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response.headers_mut().insert(METADATA_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// The status of a call that ended before it answered.
fn refusal(answer: &Response<ReplyBody>) -> Option<Status> {
    Status::from_header_map(answer.headers()).filter(|status| status.code() != Code::Ok)
}

fn late() -> Status {
    errors::status(&RequestError::DeadlineExceeded)
}

async fn over(deadline: &mut Option<Deadline>) {
    match deadline {
        Some(deadline) => deadline.await,
        None => std::future::pending().await,
    }
}

/// The body of an answer that isn't whole with its first frame.
struct Lines {
    first: Option<Bytes>,
    frames: Frames,
    /// `None` once it has ended.
    inner: Option<ReplyBody>,
    deadline: Option<Deadline>,
    budget: Budget,
}

impl Lines {
    fn new(first: Bytes, frames: Frames, inner: ReplyBody, deadline: Option<Deadline>, budget: &Budget) -> Self {
        Self { first: Some(first), frames, inner: Some(inner), deadline, budget: budget.clone() }
    }

    /// The last line of a stream that fails.
    fn fail(&mut self, status: &Status) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.inner = None;
        if self.frames.is_between() {
            return Poll::Ready(Some(Ok(Frame::data(failure::line(status).into()))));
        }
        // Half an object can't be made whole any more.
        Poll::Ready(Some(Err(status.message().into())))
    }
}

impl Body for Lines {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(first) = this.first.take().filter(|first| !first.is_empty()) {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        loop {
            let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
            if this.deadline.as_mut().is_some_and(|deadline| deadline.as_mut().poll(context).is_ready()) {
                return this.fail(&late());
            }
            match ready!(Pin::new(inner).poll_frame(context)) {
                Some(Ok(frame)) => {
                    if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map)
                        && status.code() != Code::Ok
                    {
                        return this.fail(&status);
                    }
                    let mut out = Vec::new();
                    frame.data_ref().into_iter().for_each(|data| this.frames.feed(data, &mut out));
                    if !out.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(kept(out.into(), &this.budget)))));
                    }
                }
                Some(Err(error)) => {
                    this.inner = None;
                    return Poll::Ready(Some(Err(error)));
                }
                None => this.inner = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use rusd_proto::etcdserverpb as pb;
    use rusd_proto::shape;

    use super::*;

    #[test]
    fn each_message_of_a_stream_is_a_line_however_it_is_cut() {
        let mut wire = Vec::new();
        for id in [0, 5, 300] {
            let message = pb::LeaseKeepAliveResponse { id, ..Default::default() }.encode_to_vec();
            wire.push(0);
            wire.extend_from_slice(&(message.len() as u32).to_be_bytes());
            wire.extend_from_slice(&message);
        }
        for step in 1..=wire.len() {
            let mut frames = Frames::new(shape("etcdserverpb.LeaseKeepAliveResponse").unwrap(), true);
            let mut out = Vec::new();
            wire.chunks(step).for_each(|piece| frames.feed(piece, &mut out));
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text, "{\"result\":{}}\n{\"result\":{\"ID\":\"5\"}}\n{\"result\":{\"ID\":\"300\"}}\n");
            assert!(frames.is_between());
        }
    }
}
