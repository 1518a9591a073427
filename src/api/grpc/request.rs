//! `CallBody`: what a call reads its messages from.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::body::BodyError;

/// Frames that something in this process makes.
pub(crate) type Translated = Pin<Box<dyn Body<Data = Bytes, Error = BodyError> + Send + Sync>>;

/// A request's body: gRPC frames.
pub(crate) enum CallBody {
    /// As they come from a client.
    Wire(Incoming),
    /// As they are made of what a client says otherwise.
    Translated(Translated),
    /// Nobody reads on.
    LetGo,
}

impl CallBody {
    /// Nobody reads on: what a client sends nevertheless isn't kept. What is translated stays, as it holds what its text
    /// does.
    pub(super) fn let_go(&mut self) {
        if matches!(self, Self::Wire(_)) {
            *self = Self::LetGo;
        }
    }
}

impl Body for CallBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Wire(incoming) => Pin::new(incoming).poll_frame(context).map_err(BodyError::from),
            Self::Translated(body) => body.as_mut().poll_frame(context),
            Self::LetGo => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Wire(incoming) => incoming.is_end_stream(),
            Self::Translated(body) => body.is_end_stream(),
            Self::LetGo => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Wire(incoming) => incoming.size_hint(),
            Self::Translated(_) | Self::LetGo => SizeHint::default(),
        }
    }
}
