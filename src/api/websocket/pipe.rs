//! What a client says over a WebSocket as the body of a request.
//!
//! ```text
//! session ─► Feeder ─► one chunk ─► Spoken ─► the gateway, when it wants more
//!      └ reads on only when that was taken, or nobody wants any more
//! ```

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};
use parking_lot::Mutex;

use crate::api::grpc::body::BodyError;

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The two ends.
pub(super) fn pipe() -> (Feeder, Spoken) {
    let shared = Arc::new(Mutex::new(Shared::default()));
    (Feeder(shared.clone()), Spoken(shared))
}

#[derive(Default)]
struct Shared {
    chunk: Option<Bytes>,
    is_cut: bool,
    is_unwanted: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The session's end. When it is dropped the body breaks off.
pub(in crate::api) struct Feeder(Arc<Mutex<Shared>>);

impl Feeder {
    /// Whether there is room for a chunk; if not, the task is woken when there is.
    pub(super) fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut shared = self.0.lock();
        if shared.chunk.is_none() {
            return Poll::Ready(());
        }
        shared.writer = Some(context.waker().clone());
        Poll::Pending
    }

    /// Hands on what there was room for.
    pub(super) fn push(&self, chunk: Vec<u8>) {
        let reader = {
            let mut shared = self.0.lock();
            if shared.is_unwanted || chunk.is_empty() {
                return;
            }
            shared.chunk = Some(chunk.into());
            shared.reader.take()
        };
        wake(reader);
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        let reader = {
            let mut shared = self.0.lock();
            shared.is_cut = true;
            shared.reader.take()
        };
        wake(reader);
    }
}

/// The body.
pub(super) struct Spoken(Arc<Mutex<Shared>>);

impl Body for Spoken {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut shared = self.0.lock();
        if let Some(chunk) = shared.chunk.take() {
            let writer = shared.writer.take();
            drop(shared);
            wake(writer);
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        if shared.is_cut {
            return Poll::Ready(Some(Err("the WebSocket was closed".into())));
        }
        shared.reader = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Spoken {
    fn drop(&mut self) {
        let writer = {
            let mut shared = self.0.lock();
            shared.is_unwanted = true;
            shared.chunk = None;
            shared.writer.take()
        };
        wake(writer);
    }
}
