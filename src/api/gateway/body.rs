//! The bodies of the calls that the gateway makes: requests as gRPC frames.
//!
//! ```text
//! Once  one message, for a call that takes one
//! Many  a message for each JSON value that comes; one that is wrong, or cut, ends the stream and says why
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

/// The message of type `shape`, up to `max` bytes long, that a JSON value means.
///
/// # Errors
/// `InvalidArgument`, in protojson's words; `ResourceExhausted`, with the message's length.
pub(super) fn framed((json, held): Value, shape: &'static Shape, max: usize) -> Result<Framed, Status> {
    let message = parse::to_wire(&json, shape, max).map_err(|fault| Status::invalid_argument(fault.0))?;
    let too_large =
        |len| Status::resource_exhausted(format!("grpc: received message larger than max ({len} vs. {max})"));
    Ok((message.framed().map_err(too_large)?.into(), held))
}

/// One message.
pub(super) struct Once {
    message: Option<Bytes>,
    /// Given back when the call is over: what was read of it may still be there.
    _held: Option<Held>,
}

impl Once {
    pub(super) fn new(message: Option<Framed>) -> Self {
        let (message, held) = message.unzip();
        Self { message, _held: held.flatten() }
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
    message_max: usize,
    is_over: bool,
}

impl<B> Many<B> {
    /// `first` was read of `values` already; without one there is none. Messages have up to `message_max` bytes.
    pub(super) fn new(first: Option<Framed>, values: Values<B>, shape: &'static Shape, message_max: usize) -> Self {
        Self { is_over: first.is_none(), first: first.map(|(message, _)| message), values, shape, message_max }
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
        let (shape, max) = (self.shape, self.message_max);
        let message = next.map(|value| value.and_then(|value| framed(value, shape, max)));
        self.is_over = !matches!(message, Some(Ok(_)));
        // The status goes along as it is: it is the stream's end.
        Poll::Ready(message.map(|message| Ok(Frame::data(message?.0))))
    }
}
