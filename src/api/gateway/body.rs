//! The bodies of the calls that the gateway makes: requests as gRPC frames.
//!
//! ```text
//! Once  one message, for a call that takes one
//! Many  a message for each JSON value that comes; one that is wrong ends the client's half, as in etcd
//! ```

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use rusd_proto::Shape;
use tonic::Status;

use super::parse;
use super::values::{Value, Values};
use crate::api::grpc::body::BodyError;
use crate::types::Held;

/// A framed message, and what its text holds of the budget.
pub(super) type Framed = (Bytes, Option<Held>);

/// The message of type `shape` that a JSON value means.
///
/// # Errors
/// `InvalidArgument`, in protojson's words.
pub(super) fn framed((json, held): Value, shape: &'static Shape) -> Result<Framed, Status> {
    let message = parse::to_wire(&json, shape).map_err(|fault| Status::invalid_argument(fault.0))?;
    Ok((message.into(), held))
}

/// One message.
pub(super) struct Once {
    message: Option<Bytes>,
    /// Given back when the call is over: what was read of it may still be there.
    _held: Option<Held>,
}

impl Once {
    pub(super) fn new((message, held): Framed) -> Self {
        Self { message: Some(message), _held: held }
    }
}

impl Body for Once {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(self.message.take().map(|message| Ok(Frame::data(message))))
    }

    fn is_end_stream(&self) -> bool {
        self.message.is_none()
    }
}

/// A message for each value of a body.
pub(super) struct Many<B> {
    first: Option<Bytes>,
    values: Values<B>,
    shape: &'static Shape,
    is_over: bool,
}

impl<B> Many<B> {
    /// `first` was read of `values` already; without one there is none.
    pub(super) fn new(first: Option<Framed>, values: Values<B>, shape: &'static Shape) -> Self {
        Self { is_over: first.is_none(), first: first.map(|(message, _)| message), values, shape }
    }
}

impl<B> Body for Many<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if self.is_over {
            return Poll::Ready(None);
        }
        let next = ready!(self.values.poll_next(context));
        let shape = self.shape;
        let message = next.map(|value| value.and_then(|value| framed(value, shape))).transpose();
        let message = message.unwrap_or_else(|status| {
            tracing::debug!(error = status.message(), "a value on a stream of the gateway is no request");
            None
        });
        self.is_over = message.is_none();
        Poll::Ready(message.map(|(message, _)| Ok(Frame::data(message))))
    }
}
