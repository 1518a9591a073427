//! `Values`: the JSON values of a request's body, one after the other.
//!
//! ```text
//! DATA frames ─► Scanner ─► one value ─┬► whole in its frame: a slice of it
//!                                      └► gathered, held against the requests' budget, bounded
//! ```
//! Values stand one behind the other, with or without space between them, as Go's decoder takes them.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::Body;
use tonic::Status;

use super::scan::{Ending, Scanner};
use crate::api::errors;
use crate::types::{Budget, Held, RequestError};

/// A value's bytes, and what they hold of the budget.
pub(super) type Value = (Bytes, Option<Held>);

/// The values of a body.
pub(super) struct Values<B> {
    /// `None` once it has ended, or a value was none.
    body: Option<B>,
    scanner: Scanner,
    /// The beginning of a value whose end is still to come.
    gathered: BytesMut,
    held: Option<Held>,
    /// What came behind the last value.
    rest: Bytes,
    max: usize,
    budget: Budget,
}

impl<B> Values<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Of values up to `max` bytes, which share `budget`.
    pub(super) fn new(body: B, max: usize, budget: Budget) -> Self {
        Self {
            body: Some(body),
            scanner: Scanner::default(),
            gathered: BytesMut::new(),
            held: None,
            rest: Bytes::new(),
            max,
            budget,
        }
    }

    /// The next value; `None` at the end. After an error there is none.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no JSON, `ResourceExhausted` for too much, and what the budget says.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Value, Status>>> {
        loop {
            if !self.rest.is_empty() {
                let data = std::mem::take(&mut self.rest);
                match self.take(data) {
                    Ok(Some(value)) => return Poll::Ready(Some(Ok(value))),
                    Ok(None) => {}
                    Err(status) => return Poll::Ready(Some(Err(self.give_up(status)))),
                }
            }
            let Some(body) = &mut self.body else { return Poll::Ready(None) };
            match ready!(Pin::new(body).poll_frame(context)) {
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
                // The client's half is over, in order or with its connection.
                None | Some(Err(_)) => {
                    self.body = None;
                    return Poll::Ready(match self.scanner.end() {
                        Ending::Nothing => None,
                        Ending::Whole => Some(Ok(self.whole(Bytes::new()))),
                        Ending::Cut => Some(Err(self.give_up(Status::invalid_argument("unexpected EOF")))),
                    });
                }
            }
        }
    }

    /// Takes in a frame, and keeps what is behind the value's end for the next one.
    fn take(&mut self, mut data: Bytes) -> Result<Option<Value>, Status> {
        if self.gathered.is_empty() {
            // Space between values costs nothing, however much it is.
            let space = data.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
            if self.scanner.end() == Ending::Nothing && space == data.len() {
                return Ok(None);
            }
        }
        let ended = self.scanner.feed(&data).map_err(|syntax| Status::invalid_argument(syntax.0))?;
        let len = ended.unwrap_or(data.len());
        let total = self.gathered.len() + len;
        if total > self.max {
            let text = format!("grpc: received message larger than max ({total} vs. {})", self.max);
            return Err(Status::resource_exhausted(text));
        }
        if ended.is_some() {
            let value = data.split_to(len);
            self.rest = data;
            return Ok(Some(self.whole(value)));
        }
        let more = self.budget.take(len).ok_or_else(|| errors::status(&RequestError::TooManyRequests))?;
        match &mut self.held {
            Some(held) => held.merge(more),
            held => *held = Some(more),
        }
        self.gathered.extend_from_slice(&data);
        Ok(None)
    }

    /// The value that ends with `last`.
    fn whole(&mut self, last: Bytes) -> Value {
        self.scanner = Scanner::default();
        if self.gathered.is_empty() {
            return (last, self.held.take());
        }
        let mut value = std::mem::take(&mut self.gathered);
        value.extend_from_slice(&last);
        (value.freeze(), self.held.take())
    }

    fn give_up(&mut self, status: Status) -> Status {
        self.body = None;
        self.gathered = BytesMut::new();
        self.held = None;
        status
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    fn values(pieces: Vec<Bytes>, max: usize, budget: &Budget) -> Values<impl Body<Data = Bytes> + Unpin + use<>> {
        let frames = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
        Values::new(StreamBody::new(futures::stream::iter(frames)), max, budget.clone())
    }

    async fn all(mut values: Values<impl Body<Data = Bytes> + Unpin>) -> Vec<Result<Bytes, String>> {
        let mut all = Vec::new();
        while let Some(next) = std::future::poll_fn(|context| values.poll_next(context)).await {
            all.push(next.map(|(bytes, _)| bytes).map_err(|status| status.message().to_owned()));
        }
        all
    }

    fn cut(text: &str, step: usize) -> Vec<Bytes> {
        text.as_bytes().chunks(step).map(Bytes::copy_from_slice).collect()
    }

    #[tokio::test]
    async fn values_come_out_whole_however_they_are_cut() {
        let budget = Budget::new(1_000);
        let text = " {\"a\":[1]}{}\n\n\"x\"  17";
        for step in 1..=text.len() {
            let found = all(values(cut(text, step), 100, &budget)).await;
            let found: Vec<_> = found.iter().map(|value| value.as_ref().unwrap().trim_ascii()).collect();
            assert_eq!(found, [&b"{\"a\":[1]}"[..], b"{}", b"\"x\"", b"17"], "by {step}");
            assert_eq!(budget.used(), 0);
        }
        assert!(all(values(cut(" \n ", 1), 100, &budget)).await.is_empty());
    }

    #[tokio::test]
    async fn after_a_fault_there_is_nothing() {
        let budget = Budget::new(1_000);
        for (text, fault) in
            [("{} x {}", "invalid character 'x' looking for beginning of value"), ("{} {\"a\"", "unexpected EOF")]
        {
            for step in 1..=text.len() {
                let found = all(values(cut(text, step), 100, &budget)).await;
                assert_eq!(found[1..], [Err(fault.to_owned())], "{text} by {step}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_gathered_is_bounded_and_held() {
        let budget = Budget::new(60);
        let long = format!("\"{}\"", "a".repeat(50));
        let found = all(values(cut(&long, 7), 40, &budget)).await;
        assert_eq!(found, [Err("grpc: received message larger than max (42 vs. 40)".to_owned())]);
        let other = budget.take(50).unwrap();
        let found = all(values(cut(&long, 7), 100, &budget)).await;
        assert_eq!(found, [Err("etcdserver: too many requests".to_owned())]);
        drop(other);
        assert_eq!(budget.used(), 0);
        assert_eq!(all(values(cut(&long, 60), 100, &budget)).await.len(), 1, "one frame holds nothing");
    }
}
