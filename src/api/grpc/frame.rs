//! One message out of a request's body: frame head, limits, gzip.
//!
//! ```text
//! DATA frames ─► [flag: 1][length: 4][message …] ─► limit ─► gunzip (bounded) ─► Bytes
//! ```
//! Hand-written for two reasons: an oversize message must be refused with etcd's code and with
//! its exact length, and a message that lies in one DATA frame, as nearly all do, is not copied.

use std::io::Read;

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use http_body_util::BodyExt;
use tonic::Status;

use super::body::SMALL_BYTES;
use crate::api::errors;
use crate::types::{Budget, Held, RequestError};

/// Bytes before each message: the compression flag and the length.
pub(crate) const HEAD_LEN: usize = 5;

/// Cuts a stream of DATA frames into messages.
pub(crate) struct Messages {
    buffered: BytesMut,
    whole: Bytes,
    gzip: Encoding,
    max: usize,
    /// Bytes that the last message became when it was unpacked; 0 if it came as it is.
    unpacked: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
    Other(String),
}

impl Messages {
    /// A cutter for a call with these headers that takes messages up to `max` bytes.
    pub(crate) fn new(headers: &HeaderMap, max: usize) -> Self {
        let gzip = match headers.get("grpc-encoding").map(http::HeaderValue::as_bytes) {
            None | Some(b"identity" | b"") => Encoding::Identity,
            Some(b"gzip") => Encoding::Gzip,
            Some(other) => Encoding::Other(String::from_utf8_lossy(other).into_owned()),
        };
        Self { buffered: BytesMut::new(), whole: Bytes::new(), gzip, max, unpacked: 0 }
    }

    /// Takes in one DATA frame.
    pub(crate) fn push(&mut self, data: Bytes) {
        if self.buffered.is_empty() && self.whole.is_empty() {
            self.whole = data;
        } else {
            if !self.whole.is_empty() {
                self.buffered.extend_from_slice(&std::mem::take(&mut self.whole));
            }
            self.buffered.extend_from_slice(&data);
        }
    }

    /// Whether bytes wait that are not a whole message yet.
    pub(crate) fn is_partial(&self) -> bool {
        !self.buffered.is_empty() || !self.whole.is_empty()
    }

    /// Bytes that wait for the rest of their message.
    pub(super) fn waiting(&self) -> usize {
        self.whole.len() + self.buffered.len()
    }

    /// The length that the next message's head says, if the head is there.
    pub(super) fn announced(&self) -> Option<usize> {
        let waiting: &[u8] = if self.buffered.is_empty() { &self.whole } else { &self.buffered };
        let [_, len @ ..] = *waiting.first_chunk::<HEAD_LEN>()?;
        Some(u32::from_be_bytes(len) as usize)
    }

    /// The next whole message, if it is there.
    ///
    /// # Errors
    /// Too large, of an unknown encoding, or not what its encoding says.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let waiting: &[u8] = if self.buffered.is_empty() { &self.whole } else { &self.buffered };
        if let Encoding::Other(name) = &self.gzip {
            let text = format!("grpc: Decompressor is not installed for grpc-encoding \"{name}\"");
            return Err(Status::unimplemented(text));
        }
        let Some((head, rest)) = waiting.split_at_checked(HEAD_LEN) else { return Ok(None) };
        let flag = head[0];
        let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if len > self.max {
            return Err(Status::resource_exhausted(format!(
                "grpc: received message larger than max ({len} vs. {})",
                self.max
            )));
        }
        if flag > 1 {
            return Err(Status::internal(format!("grpc: received unexpected payload format {flag}")));
        }
        if rest.len() < len {
            return Ok(None);
        }
        let message = if self.buffered.is_empty() {
            self.whole.advance(HEAD_LEN);
            self.whole.split_to(len)
        } else {
            self.buffered.advance(HEAD_LEN);
            let message = self.buffered.split_to(len).freeze();
            // What is left shares the message's memory, and would keep it for as long as the stream lives. Behind a large
            // one that is less than a frame.
            if self.buffered.is_empty() {
                self.buffered = BytesMut::new();
            } else if len > SMALL_BYTES {
                self.buffered = BytesMut::from(&self.buffered[..]);
            }
            message
        };
        self.unpacked = 0;
        if flag == 0 {
            return Ok(Some(message));
        }
        let message = self.unpack(&message)?;
        self.unpacked = message.len();
        Ok(Some(message))
    }

    fn unpack(&self, packed: &[u8]) -> Result<Bytes, Status> {
        match &self.gzip {
            Encoding::Gzip => {
                let mut out = Vec::new();
                let limit = self.max as u64 + 1;
                flate2::read::GzDecoder::new(packed).take(limit).read_to_end(&mut out).map_err(|error| {
                    let cut = error.kind() == std::io::ErrorKind::UnexpectedEof;
                    let what = if cut { "unexpected EOF".to_owned() } else { error.to_string() };
                    Status::internal(format!("grpc: failed to decompress the message: {what}"))
                })?;
                if out.len() > self.max {
                    return Err(Status::resource_exhausted(format!(
                        "grpc: received message after decompression larger than max {}",
                        self.max
                    )));
                }
                Ok(out.into())
            }
            Encoding::Identity | Encoding::Other(_) => {
                Err(Status::internal("grpc: compressed flag set with identity or empty encoding"))
            }
        }
    }
}

/// The one message of a unary or server-streaming call; waits for the end of the request.
///
/// What has come of a message that isn't whole with its first frame, or is large once it is unpacked, is held against
/// `budget` while the second value lives.
///
/// # Errors
/// As [`Messages::next`], or the client went away or sent nothing, or the budget is used up.
pub(crate) async fn read_one<B>(
    messages: &mut Messages,
    body: &mut B,
    budget: &Budget,
) -> Result<(Bytes, Option<Held>), Status>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut found = None;
    let mut held = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::cancelled(format!("the request ended early: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if found.is_some() {
            if data.is_empty() {
                continue;
            }
            // What comes after the one message is nobody's.
            break;
        }
        // What came counts, and not what was announced: that costs its client nothing. Refused at once: who waits here
        // would keep the connection's window from those who needn't.
        if let Some(held) = &mut held
            && !budget.grow(held, data.len())
        {
            return Err(too_many());
        }
        messages.push(data);
        found = messages.next()?;
        if found.is_some() {
            hold_unpacked(messages.unpacked, &mut held, budget)?;
            if messages.is_partial() || body.is_end_stream() {
                break;
            }
        } else if held.is_none() {
            held = Some(budget.take(messages.waiting()).ok_or_else(too_many)?);
        }
    }
    let found =
        found.ok_or_else(|| Status::unknown(if messages.announced().is_some() { "unexpected EOF" } else { "EOF" }))?;
    Ok((found, held))
}

/// Holds what a message has become, beside what it came in.
fn hold_unpacked(bytes: usize, held: &mut Option<Held>, budget: &Budget) -> Result<(), Status> {
    if bytes <= SMALL_BYTES {
        return Ok(());
    }
    let holds = match held {
        Some(held) => budget.grow(held, bytes),
        None => {
            *held = budget.take(bytes);
            held.is_some()
        }
    };
    if holds { Ok(()) } else { Err(too_many()) }
}

pub(super) fn too_many() -> Status {
    errors::status(&RequestError::TooManyRequests)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn frame(flag: u8, payload: &[u8]) -> Bytes {
        let mut out = vec![flag];
        out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        out.extend_from_slice(payload);
        out.into()
    }

    fn messages(encoding: &'static str, max: usize) -> Messages {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-encoding", http::HeaderValue::from_static(encoding));
        Messages::new(&headers, max)
    }

    #[test]
    fn messages_come_out_whole_however_they_are_cut() {
        let mut bytes = frame(0, b"one").to_vec();
        bytes.extend_from_slice(&frame(0, b""));
        bytes.extend_from_slice(&frame(0, b"three"));
        for step in 1..=bytes.len() {
            let mut cutter = messages("identity", 16);
            let mut got = Vec::new();
            for part in bytes.chunks(step) {
                cutter.push(Bytes::copy_from_slice(part));
                while let Some(message) = cutter.next().unwrap() {
                    got.push(message);
                }
            }
            assert_eq!(got, [&b"one"[..], b"", b"three"], "step {step}");
            assert!(!cutter.is_partial());
        }
    }

    // Cause: what is left of a buffer that is split keeps all of its memory. Symptom: a stream that once had a large message,
    // and a call that waited for a lock, kept megabytes that nobody counted.
    #[test]
    fn nothing_of_a_message_stays_behind_it() {
        for behind in [0, 3, HEAD_LEN + 1] {
            let mut bytes = frame(0, &[7; 1_000_000]).to_vec();
            bytes.extend_from_slice(&frame(0, b"x")[..behind]);
            let mut cutter = messages("identity", 2_000_000);
            let mut got = None;
            for part in bytes.chunks(16_384) {
                cutter.push(Bytes::copy_from_slice(part));
                got = got.or(cutter.next().unwrap());
            }
            let got = got.expect("it is whole");
            assert!(got.len() == 1_000_000 && got.is_unique(), "{behind} bytes behind it");
            assert_eq!(cutter.next().unwrap().is_some(), behind > HEAD_LEN);
        }
    }

    #[test]
    fn the_limit_is_told_with_the_length() {
        let mut cutter = messages("identity", 4);
        cutter.push(frame(0, b"12345").slice(..5));
        let status = cutter.next().unwrap_err();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        assert_eq!(status.message(), "grpc: received message larger than max (5 vs. 4)");
    }

    fn pack(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    // Cause: only what came in several frames was held. Symptom: two KiB in one frame became two MiB that nobody counted.
    #[tokio::test]
    async fn what_gzip_blows_up_is_held() {
        let budget = Budget::new(2_000_000);
        let packed = frame(1, &pack(&[0; 1_000_000]));
        let read = async |parts: usize| {
            let parts = packed.chunks(packed.len().div_ceil(parts)).map(Bytes::copy_from_slice);
            let frames = parts.map(|data| Ok::<_, std::convert::Infallible>(http_body::Frame::data(data)));
            let mut body = http_body_util::StreamBody::new(futures::stream::iter(frames));
            read_one(&mut messages("gzip", 2_000_000), &mut body, &budget).await
        };
        let (_, one) = read(1).await.unwrap();
        assert_eq!(budget.used(), 1_000_000);
        assert_eq!(read(2).await.unwrap_err().message(), "etcdserver: too many requests");
        assert_eq!(budget.used(), 1_000_000);
        drop(one);
        let (_, cut) = read(2).await.unwrap();
        assert!(budget.used() >= 1_000_000);
        drop(cut);
        assert_eq!(budget.used(), 0);
    }

    // Cause: a message was held with the length that its head announces. Symptom: 64 calls of six bytes each had all that
    // requests may hold, and everybody else's large ones were refused.
    #[tokio::test]
    async fn what_has_come_of_a_message_is_held_and_not_what_is_announced() {
        let budget = Budget::new(1_500);
        let whole = frame(0, &[7; 1_000]);
        let (more, frames) = tokio::sync::mpsc::unbounded_channel();
        let send = |at: std::ops::Range<usize>| {
            more.send(Ok::<_, std::convert::Infallible>(http_body::Frame::data(whole.slice(at)))).unwrap();
        };
        let mut body = http_body_util::StreamBody::new(tokio_stream::wrappers::UnboundedReceiverStream::new(frames));
        let mut cutter = messages("identity", 1_000);
        let mut read = Box::pin(read_one(&mut cutter, &mut body, &budget));
        for (at, came) in [(0..6, 6), (6..9, 9), (9..600, 600)] {
            send(at);
            assert!(futures::poll!(read.as_mut()).is_pending());
            assert_eq!(budget.used(), came);
        }
        let other = budget.take(900).unwrap();
        send(600..1_005);
        assert_eq!(read.await.unwrap_err().message(), "etcdserver: too many requests");
        assert_eq!(budget.used(), 900);
        drop(other);
        let mut body = http_body_util::StreamBody::new(futures::stream::iter(
            [whole.slice(..6), whole.slice(6..)]
                .map(|data| Ok::<_, std::convert::Infallible>(http_body::Frame::data(data))),
        ));
        let (message, held) = read_one(&mut messages("identity", 1_000), &mut body, &budget).await.unwrap();
        assert_eq!((message.len(), budget.used()), (1_000, whole.len()));
        drop(held);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn gzip_is_unpacked_within_the_limit() {
        let mut cutter = messages("gzip", 1000);
        cutter.push(frame(1, &pack(b"hello")));
        assert_eq!(cutter.next().unwrap().unwrap(), &b"hello"[..]);
        cutter.push(frame(1, &pack(&[0; 100_000])));
        assert_eq!(cutter.next().unwrap_err().code(), tonic::Code::ResourceExhausted);

        let mut cutter = messages("snappy", 1000);
        cutter.push(frame(1, b"x"));
        assert_eq!(cutter.next().unwrap_err().code(), tonic::Code::Unimplemented);
    }
}
