//! `Riding`: an answer's bytes on their way out, with what is counted of it until they are written.
//!
//! ```text
//! ConnBody ─► Riding ─► the protocol's queue ─ advance … ─► all written ─► its place is free
//!                                                 └► progress, for `Share` to see
//! ```
//! A protocol asks a body for more long before it has sent what the body gave: HTTP/2 takes a whole chunk for one byte
//! of window, and the answer's end behind it. So what is counted goes along as the buffer that the protocol writes
//! from, which costs no allocation.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::grpc::body::{BodyError, ReplyBody};
use super::share::{Asked, Round, Share};

/// Who holds an answer's place.
enum Holder {
    /// Nobody here.
    Nobody,
    /// What is the whole of it.
    One(Asked),
    /// Each of its parts.
    Many(Arc<Asked>),
}

impl Holder {
    fn share(&self) -> Option<&Share> {
        match self {
            Self::Nobody => None,
            Self::One(asked) => Some(asked.share()),
            Self::Many(asked) => Some(asked.share()),
        }
    }
}

/// A response's body as the connection sends it.
pub(super) struct ConnBody {
    body: ReplyBody,
    holder: Holder,
    is_at_hand: bool,
}

impl ConnBody {
    /// The answer to what was asked.
    pub(super) fn new(body: ReplyBody, asked: Asked) -> Self {
        let is_at_hand = body.is_at_hand();
        let holder = if body.is_one_piece() { Holder::One(asked) } else { Holder::Many(Arc::new(asked)) };
        Self { body, holder, is_at_hand }
    }

    /// A refusal: it holds nothing that is counted.
    pub(super) fn refused(body: ReplyBody) -> Self {
        Self { body, holder: Holder::Nobody, is_at_hand: false }
    }

    fn ride(&mut self, data: Bytes) -> Riding {
        let holder = match &mut self.holder {
            Holder::Many(asked) => Holder::Many(asked.clone()),
            one => std::mem::replace(one, Holder::Nobody),
        };
        let waits = self.is_at_hand && !data.is_empty();
        let round = holder.share().filter(|_| waits).map(Share::begin);
        Riding { data, holder, round }
    }
}

impl Body for ConnBody {
    type Data = Riding;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Riding>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(frame.map(|frame| Ok(frame?.map_data(|data| self.ride(data)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes of an answer.
pub(super) struct Riding {
    data: Bytes,
    holder: Holder,
    /// When something of them was last taken, if their client is waited for.
    round: Option<Round>,
}

impl Riding {
    /// Nobody is waited for any more.
    fn end(&mut self) {
        if let (Some(round), Some(share)) = (self.round.take(), self.holder.share()) {
            share.end(round);
        }
    }
}

impl Buf for Riding {
    fn remaining(&self) -> usize {
        self.data.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.data
    }

    fn advance(&mut self, count: usize) {
        self.data.advance(count);
        if let (Some(round), Some(share)) = (&mut self.round, self.holder.share())
            && count > 0
        {
            share.moved(round);
        }
        if self.data.is_empty() {
            // A protocol may keep an empty buffer for a while.
            self.end();
            self.holder = Holder::Nobody;
            self.data = Bytes::new();
        }
    }
}

impl Drop for Riding {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::api::services::Budgets;
    use crate::types::Limits;

    fn unary() -> ReplyBody {
        ReplyBody::Unary { message: Some(Bytes::from_static(b"answer")), trailers: true }
    }

    // Cause: HTTP/2 asks for an answer's end while the answer lies in its queue. Symptom: a client with a window of one
    // byte held any number of answers, and no places.
    #[tokio::test]
    async fn a_place_is_held_until_the_last_byte_is_written() {
        let budgets = Budgets::new(&Limits::default());
        let share = Share::new(&budgets);
        let mut body = ConnBody::new(unary(), share.ask("/", || Ok(())).expect("room"));
        let mut data = body.frame().await.expect("data").expect("data").into_data().ok().expect("data");
        assert!(body.frame().await.expect("trailers").expect("trailers").is_trailers());
        drop(body);
        assert_eq!((budgets.open.taken(), share.unsent()), (1, 1), "the body is gone, its bytes aren't");
        data.advance(5);
        assert_eq!((budgets.open.taken(), share.unsent()), (1, 1));
        data.advance(1);
        assert_eq!((budgets.open.taken(), share.unsent()), (0, 0), "whether the protocol lets go of it or not");
        drop(data);
        assert_eq!((budgets.open.taken(), share.unsent()), (0, 0));
    }

    #[tokio::test]
    async fn what_is_reset_is_given_back_and_is_no_progress() {
        let budgets = Budgets::new(&Limits::default());
        let share = Share::new(&budgets);
        let mut body = ConnBody::new(unary(), share.ask("/", || Ok(())).expect("room"));
        let data = body.frame().await.expect("data").expect("data");
        drop((data, body));
        assert_eq!((budgets.open.taken(), share.unsent(), share.taken()), (0, 0, 0));
    }

    #[tokio::test]
    async fn a_stream_holds_its_place_with_and_without_bytes_on_their_way() {
        let budgets = Budgets::new(&Limits::default());
        let share = Share::new(&budgets);
        let frames = futures::stream::iter(["a", "b"].map(|data| Ok::<_, BodyError>(Frame::data(data.into()))));
        let inner = ReplyBody::Json { body: Box::pin(http_body_util::StreamBody::new(frames)), is_at_hand: false };
        let mut body = ConnBody::new(inner, share.ask("/", || Ok(())).expect("room"));
        let first = body.frame().await.expect("data");
        drop(first);
        assert_eq!(budgets.open.taken(), 1);
        let second = body.frame().await.expect("data");
        drop(body);
        assert_eq!((budgets.open.taken(), share.unsent()), (1, 0), "a watcher isn't waited for");
        drop(second);
        assert_eq!(budgets.open.taken(), 0);
    }
}
