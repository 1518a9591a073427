//! A streaming answer that ends in words when the server does, instead of being cut with its connection.
//!
//! Watch streams need it not: the hub ends them. A stream whose client takes nothing isn't asked for
//! a frame, so it can't be told; it is cut after the listeners' grace.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::sync::watch;

use super::body::BodyError;
use super::service::StreamBody;
use crate::api::closing::Closing;
use crate::api::errors;
use crate::types::RequestError;

/// The body around another one.
pub(crate) struct Ending {
    inner: StreamBody,
    end: Closing,
    is_over: bool,
}

impl Ending {
    /// `inner` until `shutdown` is true, or its sender is gone.
    pub(crate) fn new(inner: StreamBody, shutdown: watch::Receiver<bool>) -> Self {
        Self { inner, end: Closing::new(shutdown), is_over: false }
    }
}

impl Body for Ending {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let frame = self.inner.as_mut().poll_frame(context);
        let goes_on = match &frame {
            Poll::Pending => true,
            Poll::Ready(Some(Ok(frame))) => frame.is_data(),
            Poll::Ready(_) => false,
        };
        if !goes_on || !self.end.is_over(context) {
            return frame;
        }
        // Frames are whole messages, so the stream can end between any two of them.
        self.is_over = true;
        let mut trailers = HeaderMap::new();
        // It fails only for metadata, of which there is none.
        let _ = errors::status(&RequestError::Stopped).add_header(&mut trailers);
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.inner.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody as FrameStream};

    use super::super::body::ok_trailers;
    use super::*;

    fn endless() -> StreamBody {
        let frames = futures::stream::repeat_with(|| Ok::<_, BodyError>(Frame::data(Bytes::from_static(b"x"))));
        Box::pin(FrameStream::new(frames))
    }

    fn silent() -> StreamBody {
        Box::pin(FrameStream::new(futures::stream::pending::<Result<Frame<Bytes>, BodyError>>()))
    }

    fn code(frame: Option<Result<Frame<Bytes>, BodyError>>) -> (String, String) {
        let trailers = frame.unwrap().unwrap().into_trailers().unwrap();
        let text = |name| trailers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        (text("grpc-status"), text("grpc-message"))
    }

    #[tokio::test]
    async fn a_stream_ends_at_shutdown_whether_it_sends_or_waits() {
        for inner in [endless(), silent()] {
            let (down, shutdown) = watch::channel(false);
            let mut body = Ending::new(inner, shutdown);
            let waiting = tokio::spawn(async move {
                loop {
                    let frame = body.frame().await;
                    if frame.as_ref().is_some_and(|frame| frame.as_ref().is_ok_and(Frame::is_data)) {
                        tokio::task::yield_now().await;
                        continue;
                    }
                    assert!(body.is_end_stream() && body.frame().await.is_none());
                    return frame;
                }
            });
            tokio::task::yield_now().await;
            down.send_replace(true);
            let (status, message) = code(waiting.await.unwrap());
            assert_eq!((status.as_str(), message.contains("server%20stopped")), ("14", true), "{message}");
        }
    }

    #[tokio::test]
    async fn an_end_of_its_own_stays_as_it_is() {
        let (_down, shutdown) = watch::channel(true);
        let frames = [Ok::<Frame<Bytes>, BodyError>(Frame::trailers(ok_trailers()))];
        let body: StreamBody = Box::pin(FrameStream::new(futures::stream::iter(frames)));
        assert_eq!(code(Ending::new(body, shutdown).frame().await).0, "0");
    }
}
