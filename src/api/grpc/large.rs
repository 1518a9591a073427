//! `Large`: a message on its way in pieces, made or cut only when the client has begun to take the one before.
//!
//! ```text
//! range    [head+header+pairs …] [pairs …] … [tail] [trailers]   pairs are encoded late and let go after
//! message  [head+bytes …] [bytes …] … [trailers]
//! ```
//! Every piece holds its own bytes until they are written, so that what a client doesn't go on with for long can be let
//! go but for the piece that it was given.

use bytes::{Buf, Bytes, BytesMut};
use http_body::Frame;

use super::body::{BodyError, ok_trailers, put_head};
use super::frame::HEAD_LEN;
use crate::api::reply::RangeReply;
use crate::api::unread::{PATIENCE, Unread};
use crate::api::wire::put_kv_field;
use crate::types::{Held, KeyValue};

/// About how large a piece is.
pub(crate) const PIECE_BYTES: usize = 128 * 1024;

/// A message in pieces.
pub(crate) struct Large {
    rest: Unread<Rest>,
    len: usize,
    pairs: usize,
    done: bool,
}

/// What is still to be sent; the trailers when it is empty.
struct Rest {
    content: Content,
    held: Held,
}

enum Content {
    Range(Box<RangePieces>),
    /// Pieces are copied: as slices they would keep the whole in memory.
    Message(Bytes),
}

struct RangePieces {
    reply: RangeReply,
    next: std::vec::IntoIter<KeyValue>,
    len: usize,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Pairs,
    Sent,
}

/// Bytes that keep something held until they are dropped.
struct Keeping {
    bytes: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Keeping {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// `bytes`, with `held` kept until they are written.
pub(super) fn keeping(bytes: Bytes, held: Held) -> Bytes {
    Bytes::from_owner(Keeping { bytes, _held: held })
}

impl Large {
    /// A range answer of `len` bytes.
    pub(super) fn range(mut reply: RangeReply, len: usize, held: Held) -> Self {
        let next = std::mem::take(&mut reply.result.kvs).into_iter();
        let pairs = next.len();
        let pieces = RangePieces { reply, next, len, stage: Stage::Head };
        Self { pairs, ..Self::new(Content::Range(Box::new(pieces)), len, held) }
    }

    /// A message with its head.
    pub(super) fn message(framed: Bytes, held: Held) -> Self {
        let len = framed.len() - HEAD_LEN;
        Self::new(Content::Message(framed), len, held)
    }

    fn new(content: Content, len: usize, held: Held) -> Self {
        Self { rest: Unread::new(Rest { content, held }, PATIENCE), len, pairs: 0, done: false }
    }

    /// Bytes of the message.
    pub(super) fn message_len(&self) -> usize {
        self.len
    }

    /// Pairs of a range in it.
    pub(super) fn pairs(&self) -> usize {
        self.pairs
    }

    /// Whether there is nothing more.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// The next piece, or the trailers.
    pub(super) fn next_frame(&mut self) -> Option<Result<Frame<Bytes>, BodyError>> {
        if self.done {
            return None;
        }
        let Some(mut rest) = self.rest.take() else {
            self.done = true;
            return Some(Err("the answer was not read for too long".into()));
        };
        let Some(piece) = rest.next_piece() else {
            self.done = true;
            return Some(Ok(Frame::trailers(ok_trailers())));
        };
        self.rest.put(rest);
        Some(Ok(Frame::data(piece)))
    }
}

impl Rest {
    fn next_piece(&mut self) -> Option<Bytes> {
        match &mut self.content {
            // Its pairs are gone from here.
            Content::Range(pieces) => pieces.next_piece().map(|piece| {
                let held = self.held.split(piece.len());
                keeping(piece, held)
            }),
            Content::Message(message) if message.is_empty() => None,
            Content::Message(message) => {
                let len = message.len().min(PIECE_BYTES);
                let piece = Bytes::copy_from_slice(&message[..len]);
                message.advance(len);
                Some(keeping(piece, self.held.beside(len)))
            }
        }
    }
}

impl RangePieces {
    fn next_piece(&mut self) -> Option<Bytes> {
        if self.stage == Stage::Sent {
            return None;
        }
        let mut out = BytesMut::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
        if self.stage == Stage::Head {
            put_head(&mut out, self.len);
            self.reply.write_head(&mut out);
            self.stage = Stage::Pairs;
        }
        while out.len() < PIECE_BYTES {
            let Some(kv) = self.next.next() else {
                self.reply.write_tail(&mut out);
                self.stage = Stage::Sent;
                break;
            };
            put_kv_field(&mut out, 2, &kv);
        }
        Some(out.freeze())
    }
}
