//! What a response is sent as: a whole message, a large range in pieces, or a stream.
//!
//! ```text
//! Unary   [head+message] [trailers]
//! Large   [piece] [piece] … [trailers]   only as fast as the client reads; let go if it doesn't
//! Stream  frames of a hand-written or a generated streaming call
//! Plain   an HTTP answer
//! Json    one that is made as it is read
//! ```
//! What isn't small is held against a budget until it is written to the connection: a client that asks
//! for much and reads nothing must not fill the memory.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use super::frame::HEAD_LEN;
use super::guard::CallGuard;
use super::large::{self, Large, PIECE_BYTES};
use crate::api::errors;
use crate::api::methods::Method;
use crate::api::reply::{RangeReply, Reply};
use crate::types::{Budget, Held, Limits, RequestError};

/// Messages up to this size aren't counted while they wait for their client.
pub(crate) const SMALL_BYTES: usize = 16 * 1024;

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
    /// A message in pieces.
    Large(Box<Large>),
    /// A streaming call.
    Stream(Pin<Box<dyn Body<Data = Bytes, Error = BodyError> + Send>>, CallGuard),
    /// An HTTP answer.
    Plain(Option<Bytes>),
    /// An HTTP answer made of another one as the client reads it.
    Json {
        /// Makes it.
        body: Pin<Box<dyn Body<Data = Bytes, Error = BodyError> + Send>>,
        /// What [`ReplyBody::is_at_hand`] says of the other one.
        is_at_hand: bool,
    },
}

impl ReplyBody {
    /// An answer that is always small, whatever was asked and whatever there is: it is held against no budget.
    ///
    /// # Errors
    /// An answer that no client could take: there is none.
    pub(crate) fn small(reply: &impl Reply) -> Result<Self, Status> {
        let len = reply.encoded_len();
        debug_assert!(len <= SMALL_BYTES, "{len} bytes are not small: `message` or `done`");
        check_len(len)?;
        Ok(Self::Unary { message: Some(framed_of_len(reply, len)), trailers: true })
    }

    /// A range answer: at once if it is small, else in pieces. `held` is what its pairs hold already.
    ///
    /// # Errors
    /// An answer that no client could take, or that would be too much beside those that clients haven't read yet.
    pub(crate) fn range(reply: RangeReply, held: Option<Held>, budget: &Budget) -> Result<Self, Status> {
        let len = reply.encoded_len();
        if len <= 2 * PIECE_BYTES {
            return Self::message(&reply, budget);
        }
        let held = match held {
            Some(held) => held,
            None => take(len, budget)?,
        };
        check_len(len)?;
        Ok(Self::Large(Box::new(Large::range(reply, len, held))))
    }

    /// Any answer that may be large, of a request that has changed nothing.
    ///
    /// # Errors
    /// As [`ReplyBody::range`].
    pub(crate) fn message(reply: &impl Reply, budget: &Budget) -> Result<Self, Status> {
        let len = reply.encoded_len();
        check_len(len)?;
        if len <= SMALL_BYTES {
            return Ok(Self::Unary { message: Some(framed_of_len(reply, len)), trailers: true });
        }
        // One that is refused isn't made.
        let held = take(len, budget)?;
        Ok(Self::held(framed_of_len(reply, len), held))
    }

    /// The answer to a write that is done: it is sent in any case that a client can take.
    ///
    /// # Errors
    /// An answer that no client could take.
    pub(crate) fn done(reply: &impl Reply, budget: &Budget) -> Result<Self, Status> {
        let len = reply.encoded_len();
        check_len(len)?;
        if len <= SMALL_BYTES {
            return Ok(Self::Unary { message: Some(framed_of_len(reply, len)), trailers: true });
        }
        Ok(Self::held(framed_of_len(reply, len), budget.hold(len)))
    }

    fn held(message: Bytes, held: Held) -> Self {
        if message.len() <= 2 * PIECE_BYTES {
            return Self::Unary { message: Some(large::keeping(message, held)), trailers: true };
        }
        Self::Large(Box::new(Large::message(message, held)))
    }

    /// Whether there is something of it to send until its end: whoever takes nothing of it has it wait. The others may
    /// be silent themselves.
    pub(crate) fn is_at_hand(&self) -> bool {
        match self {
            Self::Unary { .. } | Self::Large(_) | Self::Plain(_) => true,
            Self::Stream(_, guard) => matches!(guard.method(), Method::KvRangeStream | Method::Snapshot),
            Self::Json { is_at_hand, .. } => *is_at_hand,
            Self::Empty => false,
        }
    }

    /// Whether all its data is one frame.
    pub(crate) fn is_one_piece(&self) -> bool {
        matches!(self, Self::Unary { .. } | Self::Plain(_) | Self::Empty)
    }

    /// The one message that this holds, if it is in one piece; the number of its pairs if it is a large range.
    pub(crate) fn content(&self) -> Result<Bytes, usize> {
        match self {
            Self::Unary { message: Some(message), .. } => Ok(message.slice(HEAD_LEN..)),
            Self::Large(large) => Err(large.pairs()),
            Self::Unary { .. } | Self::Empty | Self::Stream(..) | Self::Plain(_) | Self::Json { .. } => Err(0),
        }
    }

    /// Bytes of the one message that this holds.
    pub(crate) fn message_len(&self) -> usize {
        match self {
            Self::Unary { message, .. } => message.as_ref().map_or(0, |message| message.len() - HEAD_LEN),
            Self::Large(large) => large.message_len(),
            Self::Empty | Self::Stream(..) | Self::Plain(_) | Self::Json { .. } => 0,
        }
    }
}

fn check_len(len: usize) -> Result<(), Status> {
    let max = Limits::ANSWER_BYTES_MAX;
    if len > max {
        return Err(errors::status(&RequestError::AnswerTooLarge { bytes: len, max }));
    }
    Ok(())
}

fn take(len: usize, budget: &Budget) -> Result<Held, Status> {
    budget.take(len).ok_or_else(|| errors::status(&RequestError::TooManyRequests))
}

/// The trailers that end a stream with a status.
pub(crate) fn trailers_of(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // It fails only for metadata, of which there is none.
    let _ = status.add_header(&mut trailers);
    trailers
}

/// A message with its head, held against `budget` until it is written if it isn't small. `held` is what it holds already.
///
/// # Errors
/// `TooManyRequests` if it would be too much.
pub(crate) fn framed_within(reply: &impl Reply, held: Option<Held>, budget: &Budget) -> Result<Bytes, RequestError> {
    let len = reply.encoded_len();
    if len <= SMALL_BYTES {
        return Ok(framed_of_len(reply, len));
    }
    let held = match held {
        Some(held) => held,
        None => budget.take(len).ok_or(RequestError::TooManyRequests)?,
    };
    Ok(large::keeping(framed_of_len(reply, len), held))
}

/// `bytes` that are on their way to a client already, held against `budget` until they are written if they aren't
/// few.
pub(crate) fn kept(bytes: Bytes, budget: &Budget) -> Bytes {
    if bytes.len() <= SMALL_BYTES {
        return bytes;
    }
    let held = budget.hold(bytes.len());
    large::keeping(bytes, held)
}

/// The same of what can be refused: `None` if it would be more than `budget` and `reserve` allow.
pub(crate) fn kept_within(bytes: Bytes, budget: &Budget, reserve: usize) -> Option<Bytes> {
    if bytes.len() <= SMALL_BYTES {
        return Some(bytes);
    }
    let held = budget.take_beyond(bytes.len(), reserve)?;
    Some(large::keeping(bytes, held))
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
    // `check_len` refuses what is larger; a stream's messages are as large as a request, or a chunk.
    out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
}

/// The trailers of success.
pub(crate) fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    trailers
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
            Self::Large(large) => Poll::Ready(large.next_frame()),
            Self::Stream(body, guard) => {
                let frame = std::task::ready!(body.as_mut().poll_frame(context));
                if let Some(Ok(frame)) = &frame {
                    guard.saw(frame);
                }
                Poll::Ready(frame)
            }
            Self::Plain(data) => Poll::Ready(data.take().map(|data| Ok(Frame::data(data)))),
            Self::Json { body, .. } => body.as_mut().poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Unary { message, trailers } => message.is_none() && !trailers,
            Self::Large(large) => large.is_done(),
            Self::Stream(body, _) => body.is_end_stream(),
            Self::Plain(data) => data.is_none(),
            Self::Json { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Plain(data) => SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64)),
            Self::Unary { .. } | Self::Large(_) | Self::Stream(..) | Self::Json { .. } => SizeHint::default(),
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
            let mut body = ReplyBody::range(reply(pairs, value), None, &budget).unwrap();
            assert!(matches!(body, ReplyBody::Large(_)));
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

    #[tokio::test]
    async fn large_answers_that_nobody_reads_are_bounded() {
        let budget = Budget::new(2 << 20);
        let unread = ReplyBody::range(reply(1, 1 << 20), None, &budget).unwrap();
        let status = ReplyBody::range(reply(1, 1 << 20), None, &budget).err().unwrap();
        assert_eq!(status.message(), "etcdserver: too many requests");
        assert!(ReplyBody::range(reply(1, 1_000), None, &budget).is_ok(), "small ones need nothing of it");
        drop(unread);
        assert!(ReplyBody::range(reply(1, 1 << 20), None, &budget).is_ok());
    }

    #[tokio::test]
    async fn whatever_is_sent_holds_until_it_is_written() {
        let budget = Budget::new(3 << 20);
        for (pairs, value) in [(1, 20_000), (1, 200_000), (9, 65_536)] {
            let whole = framed(&reply(pairs, value));
            let mut bodies = vec![ReplyBody::done(&reply(pairs, value), &budget).unwrap()];
            bodies.push(ReplyBody::message(&reply(pairs, value), &budget).unwrap());
            bodies.push(ReplyBody::range(reply(pairs, value), None, &budget).unwrap());
            for mut body in bodies {
                assert_eq!(body.message_len(), whole.len() - HEAD_LEN);
                let mut frames = Vec::new();
                while let Some(frame) = body.frame().await {
                    frames.extend(frame.unwrap().into_data());
                }
                drop(body);
                assert_eq!(frames.concat(), whole);
                let last = frames.pop().unwrap();
                drop(frames);
                assert!(budget.used() >= last.len() - HEAD_LEN, "the last piece isn't written yet");
                drop(last);
            }
            assert_eq!(budget.used(), 0);
        }
        let full = budget.hold(4 << 20);
        assert!(ReplyBody::message(&reply(1, 20_000), &budget).is_err());
        assert!(ReplyBody::done(&reply(1, 20_000), &budget).is_ok(), "what is done is told");
        drop(full);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_read_for_long_is_let_go() {
        let budget = Budget::new(1);
        let mut body = ReplyBody::range(reply(20, 65_536), None, &budget).unwrap();
        drop(body.frame().await.unwrap().unwrap());
        assert!(budget.used() > 0);
        tokio::time::sleep(3 * crate::api::unread::PATIENCE).await;
        assert_eq!(budget.used(), 0);
        assert!(body.frame().await.unwrap().is_err(), "the stream is reset");
        assert!(body.is_end_stream());
    }

    // A piece that lies with the protocol is not asked for again while its window is shut.
    #[tokio::test(start_paused = true)]
    async fn a_piece_that_is_stuck_holds_no_more_than_itself() {
        for is_range in [true, false] {
            let budget = Budget::new(64 << 20);
            let answer = reply(400, 65_536);
            let mut body = match is_range {
                true => ReplyBody::range(answer, None, &budget).unwrap(),
                false => ReplyBody::message(&answer, &budget).unwrap(),
            };
            let stuck = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert!(budget.used() >= 25 << 20);
            tokio::time::sleep(3 * crate::api::unread::PATIENCE).await;
            assert_eq!(budget.used(), stuck.len(), "range: {is_range}");
            drop(stuck);
            assert_eq!(budget.used(), 0);
        }
    }

    #[tokio::test]
    async fn a_small_answer_is_one_frame() {
        let mut body = ReplyBody::range(reply(3, 100), None, &Budget::new(0)).unwrap();
        assert_eq!(body.message_len(), framed(&reply(3, 100)).len() - HEAD_LEN);
        assert!(body.frame().await.unwrap().unwrap().is_data());
        assert!(body.frame().await.unwrap().unwrap().is_trailers());
        assert!(body.frame().await.is_none());
    }
}
