//! What a response is sent as: a whole message, a large range in pieces, or a stream.
//!
//! ```text
//! Unary   [head+message] [trailers]
//! Pieces  [head+header+pairs …] [pairs …] … [tail] [trailers]   only as fast as the client reads
//! Stream  frames of a hand-written or a generated streaming call
//! Plain   an HTTP answer
//! ```

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use super::frame::HEAD_LEN;
use super::guard::CallGuard;
use crate::api::errors;
use crate::api::reply::{RangeReply, Reply};
use crate::api::wire::put_kv_field;
use crate::types::{Budget, Held, RequestError};

/// A range answer above this size is encoded piece by piece, each about this large.
const PIECE_BYTES: usize = 128 * 1024;

/// An error that ends a body early; the connection resets the stream.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A response's body.
#[derive(Default)]
pub(crate) enum ReplyBody {
    /// Nothing at all: the status is in the headers.
    #[default]
    Empty,
    /// One message, then the trailers of success.
    Unary {
        /// The framed message, until it is taken.
        message: Option<Bytes>,
        /// Whether the trailers are still to come.
        trailers: bool,
    },
    /// A large range answer.
    Pieces(Box<RangePieces>),
    /// A streaming call.
    Stream(Pin<Box<dyn Body<Data = Bytes, Error = BodyError> + Send>>, CallGuard),
    /// An HTTP answer.
    Plain(Option<Bytes>),
}

impl ReplyBody {
    /// A unary answer.
    pub(crate) fn unary(reply: &impl Reply) -> Self {
        Self::Unary { message: Some(framed(reply)), trailers: true }
    }

    /// A range answer: at once if it is small, else in pieces.
    ///
    /// # Errors
    /// An answer that no client could take (grpc-go's limit of 2 GiB less one byte), or that would be too much
    /// beside those that clients haven't read yet.
    pub(crate) fn range(reply: RangeReply, budget: &Budget) -> Result<Self, Status> {
        let len = reply.encoded_len();
        if len > i32::MAX as usize {
            return Err(Status::resource_exhausted(format!(
                "grpc: trying to send message larger than max ({len} vs. {})",
                i32::MAX
            )));
        }
        if len <= 2 * PIECE_BYTES {
            return Ok(Self::Unary { message: Some(framed_of_len(&reply, len)), trailers: true });
        }
        let held = budget.take(len).ok_or_else(|| errors::status(&RequestError::TooManyRequests))?;
        Ok(Self::Pieces(Box::new(RangePieces::new(reply, len, held))))
    }

    /// Bytes of the one message that this holds.
    pub(crate) fn message_len(&self) -> usize {
        match self {
            Self::Unary { message, .. } => message.as_ref().map_or(0, |message| message.len() - HEAD_LEN),
            Self::Pieces(pieces) => pieces.len,
            Self::Empty | Self::Stream(..) | Self::Plain(_) => 0,
        }
    }
}

/// A message with its head.
pub(crate) fn framed(reply: &impl Reply) -> Bytes {
    framed_of_len(reply, reply.encoded_len())
}

fn framed_of_len(reply: &impl Reply, len: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD_LEN + len);
    put_head(&mut out, len);
    reply.write(&mut out);
    debug_assert_eq!(out.len(), HEAD_LEN + len, "a reply's length is what it writes");
    out.freeze()
}

/// Appends a message's head: not compressed, `len` bytes.
pub(crate) fn put_head(out: &mut BytesMut, len: usize) {
    out.put_u8(0);
    // `ReplyBody::range` refuses what is larger; nothing else comes near.
    out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
}

/// The trailers of success.
pub(crate) fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    trailers
}

/// A large range answer on its way: pairs are encoded when the client has room for them, and let go after.
pub(crate) struct RangePieces {
    reply: RangeReply,
    next: std::vec::IntoIter<crate::types::KeyValue>,
    len: usize,
    stage: Stage,
    _held: Held,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Pairs,
    Trailers,
    Done,
}

impl RangePieces {
    fn new(mut reply: RangeReply, len: usize, held: Held) -> Self {
        let next = std::mem::take(&mut reply.result.kvs).into_iter();
        Self { reply, next, len, stage: Stage::Head, _held: held }
    }

    fn next_frame(&mut self) -> Option<Frame<Bytes>> {
        let mut out = BytesMut::new();
        if self.stage == Stage::Head {
            out.reserve(PIECE_BYTES + PIECE_BYTES / 8);
            put_head(&mut out, self.len);
            self.reply.write_head(&mut out);
            self.stage = Stage::Pairs;
        }
        match self.stage {
            Stage::Head | Stage::Pairs => {
                out.reserve(PIECE_BYTES + PIECE_BYTES / 8);
                while out.len() < PIECE_BYTES {
                    let Some(kv) = self.next.next() else {
                        self.reply.write_tail(&mut out);
                        self.stage = Stage::Trailers;
                        break;
                    };
                    put_kv_field(&mut out, 2, &kv);
                }
                Some(Frame::data(out.freeze()))
            }
            Stage::Trailers => {
                self.stage = Stage::Done;
                Some(Frame::trailers(ok_trailers()))
            }
            Stage::Done => None,
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Unary { message, trailers } => Poll::Ready(match message.take() {
                Some(message) => Some(Ok(Frame::data(message))),
                None => std::mem::take(trailers).then(|| Ok(Frame::trailers(ok_trailers()))),
            }),
            Self::Pieces(pieces) => Poll::Ready(pieces.next_frame().map(Ok)),
            Self::Stream(body, guard) => {
                let frame = std::task::ready!(body.as_mut().poll_frame(context));
                if let Some(Ok(frame)) = &frame {
                    guard.saw(frame);
                }
                Poll::Ready(frame)
            }
            Self::Plain(data) => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Unary { message, trailers } => message.is_none() && !trailers,
            Self::Pieces(pieces) => pieces.stage == Stage::Done,
            Self::Stream(body, _) => body.is_end_stream(),
            Self::Plain(data) => data.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Plain(data) => SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64)),
            Self::Unary { .. } | Self::Pieces(_) | Self::Stream(..) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::storage::RangeResult;
    use crate::types::KeyValue;

    fn reply(pairs: usize, value: usize) -> RangeReply {
        let kv = KeyValue { key: "k".into(), value: vec![1; value].into(), version: 1, ..KeyValue::default() };
        RangeReply { header: None, result: RangeResult { kvs: vec![kv; pairs], more: false, count: 5 } }
    }

    #[tokio::test]
    async fn a_large_answer_in_pieces_is_the_same_message() {
        let budget = Budget::new(1);
        for (pairs, value) in [(1, 1 << 20), (9, 65_536), (40_000, 3), (3, 300_000)] {
            let whole = framed(&reply(pairs, value));
            let mut body = ReplyBody::range(reply(pairs, value), &budget).unwrap();
            assert!(matches!(body, ReplyBody::Pieces(_)));
            let mut sent = Vec::new();
            let mut trailers = None;
            while let Some(frame) = body.frame().await {
                match frame.unwrap().into_data() {
                    Ok(data) => {
                        assert!(data.len() < 2 * PIECE_BYTES + value, "no piece is much larger than asked for");
                        sent.extend_from_slice(&data);
                    }
                    Err(frame) => trailers = frame.into_trailers().ok(),
                }
            }
            assert!(sent == whole, "{pairs} pairs of {value} bytes");
            assert_eq!(trailers.unwrap()["grpc-status"], "0");
            assert!(body.is_end_stream());
        }
    }

    #[test]
    fn large_answers_that_nobody_reads_are_bounded() {
        let budget = Budget::new(2 << 20);
        let unread = ReplyBody::range(reply(1, 1 << 20), &budget).unwrap();
        let status = ReplyBody::range(reply(1, 1 << 20), &budget).err().unwrap();
        assert_eq!(status.message(), "etcdserver: too many requests");
        assert!(ReplyBody::range(reply(1, 1_000), &budget).is_ok(), "small ones need nothing of it");
        drop(unread);
        assert!(ReplyBody::range(reply(1, 1 << 20), &budget).is_ok());
    }

    #[tokio::test]
    async fn a_small_answer_is_one_frame() {
        let mut body = ReplyBody::range(reply(3, 100), &Budget::new(0)).unwrap();
        assert_eq!(body.message_len(), framed(&reply(3, 100)).len() - HEAD_LEN);
        assert!(body.frame().await.unwrap().unwrap().is_data());
        assert!(body.frame().await.unwrap().unwrap().is_trailers());
        assert!(body.frame().await.is_none());
    }
}
