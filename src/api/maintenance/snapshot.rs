//! `Snapshot`: the state's file in small messages, and its SHA-256 as the last one.
//!
//! The file is read in stretches on a thread that may block, each only when the client has room
//! for it: a client that doesn't read holds a file open and nothing else.

use std::io::{self, Read};

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use http_body_util::StreamBody as FrameStream;
use sha2::{Digest, Sha256};
use tonic::Status;

use rusd_proto::etcdserverpb as pb;

use crate::api::auth::CallContext;
use crate::api::errors;
use crate::api::grpc::body::{BodyError, ok_trailers, put_head, trailers_of};
use crate::api::grpc::frame::HEAD_LEN;
use crate::api::grpc::service::StreamBody;
use crate::api::kv;
use crate::api::unread::{PATIENCE, Unread};
use crate::api::version;
use crate::api::wire::{bytes_len, put_bytes, put_uint, uint_len};
use crate::types::RequestError;

/// Bytes of the file in one message.
const BLOB_BYTES: usize = 32 * 1024;

/// Messages read at a time.
const BLOBS_AT_A_TIME: usize = 16;

/// `Snapshot`.
pub(crate) async fn snapshot(call: CallContext, _: pb::SnapshotRequest) -> Result<StreamBody, Status> {
    let maintain = call.maintain.clone();
    let (file, len) =
        kv::blocking(move || Ok(maintain.snapshot_file()?)).await.map_err(|error| errors::status(&error))?;
    // The state in it may be later than the look that let the call in.
    call.check_admin_here().map_err(|error| errors::status(&error))?;
    let sender = Sender { file, remaining: len, hash: Sha256::new(), stage: Stage::Blobs };
    let unread = Unread::new(sender, PATIENCE);
    let frames = futures::stream::unfold(Some(unread), |unread| async move {
        let unread = unread?;
        let Some(sender) = unread.take() else {
            let status = Status::deadline_exceeded("rusd: the snapshot was not read for too long");
            return Some((Ok(Frame::trailers(trailers_of(&status))), None));
        };
        let (frame, sender) = next_frame(sender).await;
        let unread = sender.map(|sender| {
            unread.put(sender);
            unread
        });
        Some((Ok::<_, BodyError>(frame?), unread))
    });
    Ok(Box::pin(FrameStream::new(frames)))
}

struct Sender {
    file: Box<dyn Read + Send>,
    remaining: u64,
    hash: Sha256,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Blobs,
    Trailers,
}

async fn next_frame(mut sender: Sender) -> (Option<Frame<Bytes>>, Option<Sender>) {
    if sender.stage == Stage::Trailers {
        return (Some(Frame::trailers(ok_trailers())), None);
    }
    let read = kv::blocking(move || {
        let data = sender.read().map_err(|error| RequestError::Storage(format!("the snapshot: {error}")))?;
        Ok((data, sender))
    });
    match read.await {
        Ok((data, sender)) => (Some(Frame::data(data)), Some(sender)),
        Err(error) => (Some(Frame::trailers(trailers_of(&errors::status(&error)))), None),
    }
}

impl Sender {
    /// The next messages; with the last stretch of the file comes the digest.
    fn read(&mut self) -> io::Result<Bytes> {
        let mut out = BytesMut::with_capacity(BLOBS_AT_A_TIME * (BLOB_BYTES + 64));
        let mut blob = vec![0; BLOB_BYTES];
        for _ in 0..BLOBS_AT_A_TIME {
            if self.remaining == 0 {
                let digest = std::mem::take(&mut self.hash).finalize();
                put_message(&mut out, 0, &digest);
                self.stage = Stage::Trailers;
                break;
            }
            let len = BLOB_BYTES.min(usize::try_from(self.remaining).unwrap_or(BLOB_BYTES));
            self.file.read_exact(&mut blob[..len])?;
            self.hash.update(&blob[..len]);
            self.remaining -= len as u64;
            put_message(&mut out, self.remaining, &blob[..len]);
        }
        Ok(out.freeze())
    }
}

/// Appends a framed `SnapshotResponse` without a header.
fn put_message(out: &mut BytesMut, remaining: u64, blob: &[u8]) {
    let len = uint_len(remaining) + bytes_len(blob.len()) + bytes_len(version::STORAGE.len());
    out.reserve(HEAD_LEN + len);
    put_head(out, len);
    put_uint(out, 2, remaining);
    put_bytes(out, 3, blob);
    put_bytes(out, 4, version::STORAGE.as_bytes());
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn the_last_message_is_the_digest_of_the_others() {
        let data: Vec<u8> = (0..3 * BLOB_BYTES + 17).map(|at| at as u8).collect();
        let mut sender = Sender {
            file: Box::new(io::Cursor::new(data.clone())),
            remaining: data.len() as u64,
            hash: Sha256::new(),
            stage: Stage::Blobs,
        };
        let mut bytes = sender.read().unwrap();
        assert!(sender.stage == Stage::Trailers);
        let mut messages = Vec::new();
        while !bytes.is_empty() {
            let head = bytes.split_to(HEAD_LEN);
            let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            messages.push(pb::SnapshotResponse::decode(bytes.split_to(len)).unwrap());
        }
        let last = messages.pop().unwrap();
        let sent: Vec<u8> = messages.iter().flat_map(|message| message.blob.iter().copied()).collect();
        assert_eq!(sent, data);
        assert_eq!(last.blob, Sha256::digest(&data).as_slice());
        assert_eq!(messages.iter().map(|message| message.remaining_bytes).collect::<Vec<_>>(), [65553, 32785, 17, 0]);
        assert!(messages.iter().all(|message| message.version == "3.7.0" && message.header.is_none()));
    }

    #[test]
    fn a_file_shorter_than_it_said_is_an_error() {
        let file = Box::new(io::Cursor::new(vec![0; 10]));
        let mut sender = Sender { file, remaining: 11, hash: Sha256::new(), stage: Stage::Blobs };
        assert!(sender.read().is_err());
    }
}
