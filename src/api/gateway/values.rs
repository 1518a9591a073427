//! `Values`: the JSON values of a request's body, one after the other.
//!
//! ```text
//! DATA frames ─► Scanner ─► one value ─┬► whole in its frame: a slice of it
//!                                      └► gathered, held against the requests' budget, bounded
//! ```
//! Values stand one behind the other, with or without space between them, as Go's decoder takes them. One that has
//! begun has its time to come to its end, whether or not anybody asks for it meanwhile; between two there is all the
//! time in the world, and nothing is held.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::Sleep;
use tonic::Status;

use super::scan::{Ending, Scanner};
use crate::api::errors;
use crate::api::grpc::service;
use crate::api::unread::Unread;
use crate::types::{Budget, Held, RequestError};

/// Longest time that a value may have; more is as good as none.
const ARRIVAL_CEILING: Duration = Duration::from_secs(365 * 86_400);

/// How much of a refused request is read on, so that its client, who still writes, gets to read the refusal; and how
/// long that may take.
const DISCARDED_MAX: usize = 256 * 1024;
const DISCARDED_TIME: Duration = Duration::from_secs(5);

/// A value's bytes, and what they hold of the budget.
pub(super) type Value = (Bytes, Option<Held>);

/// The values of a body.
pub(super) struct Values<B> {
    /// `None` once it has ended, in order or not.
    body: Option<B>,
    /// Whether a value was none.
    is_over: bool,
    scanner: Scanner,
    gathering: Option<Gathering>,
    /// What came behind the last value.
    rest: Bytes,
    max: usize,
    arrival_max: Duration,
    budget: Budget,
}

/// The beginning of a value whose end is still to come.
struct Gathering {
    /// Let go by itself, too: nobody may ask for the end of a value, as the client reads no answers.
    part: Unread<Part>,
    len: usize,
    deadline: Pin<Box<Sleep>>,
}

struct Part {
    bytes: BytesMut,
    held: Held,
}

impl<B> Values<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Of values up to `max` bytes, which come within `arrival_max` and share `budget`.
    pub(super) fn new(body: B, max: usize, arrival_max: Duration, budget: Budget) -> Self {
        Self {
            body: Some(body),
            is_over: false,
            scanner: Scanner::default(),
            gathering: None,
            rest: Bytes::new(),
            max,
            arrival_max: arrival_max.min(ARRIVAL_CEILING),
            budget,
        }
    }

    /// The next value; `None` at the end. After an error there is none.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no JSON and for a body that breaks off, `ResourceExhausted` for too much,
    /// `DeadlineExceeded` for what takes too long, and what the budget says.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Value, Status>>> {
        loop {
            if !self.rest.is_empty() && !self.is_over {
                let data = std::mem::take(&mut self.rest);
                match self.take(data) {
                    Ok(Some(value)) => return Poll::Ready(Some(Ok(value))),
                    Ok(None) => {}
                    Err(status) => return Poll::Ready(Some(Err(self.give_up(status)))),
                }
            }
            let (Some(body), false) = (&mut self.body, self.is_over) else { return Poll::Ready(None) };
            match Pin::new(body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => self.rest = frame.into_data().unwrap_or_default(),
                Poll::Ready(Some(Err(_))) => {
                    self.body = None;
                    return Poll::Ready(Some(Err(self.give_up(cut()))));
                }
                Poll::Ready(None) => {
                    self.body = None;
                    let last = match self.scanner.end() {
                        Ending::Nothing => return Poll::Ready(None),
                        Ending::Whole => self.whole(Bytes::new()),
                        Ending::Cut => Err(cut()),
                    };
                    return Poll::Ready(Some(last.map_err(|status| self.give_up(status))));
                }
                Poll::Pending => {
                    let deadline = self.gathering.as_mut().map(|gathering| gathering.deadline.as_mut());
                    if deadline.is_none_or(|deadline| deadline.poll(context).is_pending()) {
                        return Poll::Pending;
                    }
                    self.body = None;
                    return Poll::Ready(Some(Err(self.give_up(service::late(self.arrival_max)))));
                }
            }
        }
    }

    /// Passes by what is behind the last value, up to the body's end.
    ///
    /// # Errors
    /// `InvalidArgument` for a body that breaks off, `ResourceExhausted` for more than a value may have.
    pub(super) async fn pass_rest(&mut self) -> Result<(), Status> {
        let mut passed = std::mem::take(&mut self.rest).len();
        while let Some(body) = &mut self.body {
            if passed > self.max {
                return Err(Status::resource_exhausted(format!("more than {} bytes follow the request", self.max)));
            }
            match body.frame().await {
                Some(Ok(frame)) => passed += frame.data_ref().map_or(0, Bytes::len),
                None => self.body = None,
                Some(Err(_)) => {
                    self.body = None;
                    return Err(cut());
                }
            }
        }
        Ok(())
    }

    /// Reads on a little beside the refusal that is given.
    pub(super) fn discard(self)
    where
        B: Send + 'static,
    {
        let Some(mut body) = self.body.filter(|body| !body.is_end_stream()) else { return };
        tokio::spawn(tokio::time::timeout(DISCARDED_TIME, async move {
            let mut passed = 0;
            while passed <= DISCARDED_MAX
                && let Some(Ok(frame)) = body.frame().await
            {
                passed += frame.data_ref().map_or(0, Bytes::len);
            }
        }));
    }

    /// Takes in a frame, and keeps what is behind the value's end for the next one.
    fn take(&mut self, mut data: Bytes) -> Result<Option<Value>, Status> {
        if self.gathering.is_none() {
            // Space between values costs nothing, however much it is.
            let space = data.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
            if self.scanner.end() == Ending::Nothing && space == data.len() {
                return Ok(None);
            }
        }
        let ended = self.scanner.feed(&data).map_err(|syntax| Status::invalid_argument(syntax.0))?;
        let len = ended.unwrap_or(data.len());
        let total = self.gathering.as_ref().map_or(0, |gathering| gathering.len) + len;
        if total > self.max {
            let text = format!("grpc: received message larger than max ({total} vs. {})", self.max);
            return Err(Status::resource_exhausted(text));
        }
        if ended.is_none() {
            return self.gather(&data).map(|()| None);
        }
        let last = data.split_to(len);
        self.rest = data;
        self.whole(last).map(Some)
    }

    /// Adds to a value whose end is still to come.
    fn gather(&mut self, data: &[u8]) -> Result<(), Status> {
        let refused = || errors::status(&RequestError::TooManyRequests);
        let Some(gathering) = &mut self.gathering else {
            let held = self.budget.take(data.len()).ok_or_else(refused)?;
            let part = Unread::new(Part { bytes: BytesMut::from(data), held }, self.arrival_max);
            let deadline = Box::pin(tokio::time::sleep(self.arrival_max));
            self.gathering = Some(Gathering { part, len: data.len(), deadline });
            return Ok(());
        };
        let mut part = gathering.part.take().ok_or_else(|| service::late(self.arrival_max))?;
        if !self.budget.grow(&mut part.held, data.len()) {
            return Err(refused());
        }
        part.bytes.extend_from_slice(data);
        gathering.len += data.len();
        gathering.part.put(part);
        Ok(())
    }

    /// The value that ends with `last`.
    fn whole(&mut self, last: Bytes) -> Result<Value, Status> {
        self.scanner = Scanner::default();
        let Some(gathering) = self.gathering.take() else { return Ok((last, None)) };
        let Part { mut bytes, held } = gathering.part.take().ok_or_else(|| service::late(self.arrival_max))?;
        bytes.extend_from_slice(&last);
        Ok((bytes.freeze(), Some(held)))
    }

    fn give_up(&mut self, status: Status) -> Status {
        self.is_over = true;
        self.gathering = None;
        status
    }
}

/// What is said of a body that isn't whole.
fn cut() -> Status {
    Status::invalid_argument("unexpected EOF")
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body::Frame;
    use http_body_util::StreamBody;

    use super::*;

    fn values(pieces: Vec<Bytes>, max: usize, budget: &Budget) -> Values<impl Body<Data = Bytes> + Unpin + use<>> {
        let frames = pieces.into_iter().map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
        Values::new(StreamBody::new(futures::stream::iter(frames)), max, ARRIVAL_CEILING, budget.clone())
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
    #[tokio::test]
    async fn who_is_alone_may_gather_beyond_the_budget() {
        let budget = Budget::new(1);
        assert_eq!(all(values(cut("{\"a\":[1]}", 3), 100, &budget)).await, [Ok(Bytes::from("{\"a\":[1]}"))]);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn a_body_that_breaks_has_not_ended() {
        let budget = Budget::new(100);
        for (text, whole) in [("", 0), ("{}", 1), ("{} 17", 1), ("{\"a\"", 0)] {
            let frames = [Ok(Frame::data(Bytes::from(text))), Err(std::io::Error::other("broken"))];
            let body = || {
                StreamBody::new(futures::stream::iter(frames.iter().map(|frame| match frame {
                    Ok(frame) => Ok(Frame::data(frame.data_ref().unwrap().clone())),
                    Err(error) => Err(error.kind()),
                })))
            };
            let found = all(Values::new(body(), 100, ARRIVAL_CEILING, budget.clone())).await;
            assert_eq!((found.len(), found.last()), (whole + 1, Some(&Err("unexpected EOF".to_owned()))), "{text}");
            if whole > 0 {
                let mut values = Values::new(body(), 100, ARRIVAL_CEILING, budget.clone());
                std::future::poll_fn(|context| values.poll_next(context)).await.unwrap().unwrap();
                assert_eq!(values.pass_rest().await.unwrap_err().message(), "unexpected EOF");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_has_its_time_and_no_value_all_time() {
        let budget = Budget::new(100);
        let (limit, hour) = (Duration::from_secs(9), Duration::from_secs(3_600));
        let (sender, receiver) = futures::channel::mpsc::unbounded();
        let frames =
            futures::StreamExt::map(receiver, |text: &'static str| Ok::<_, Infallible>(Frame::data(text.into())));
        let mut values = Values::new(StreamBody::new(frames), 100, limit, budget.clone());
        sender.unbounded_send("{} \n").unwrap();
        assert!(std::future::poll_fn(|context| values.poll_next(context)).await.unwrap().is_ok());
        let next = std::future::poll_fn(|context| values.poll_next(context));
        assert!(tokio::time::timeout(hour, next).await.is_err());
        for part in ["[", "1", "2"] {
            sender.unbounded_send(part).unwrap();
            let next = std::future::poll_fn(|context| values.poll_next(context));
            let waited = tokio::time::timeout(Duration::from_secs(4), next).await;
            match waited {
                Err(_) => assert!(budget.used() > 0),
                Ok(late) => {
                    assert_eq!((part, late.unwrap().unwrap_err().code()), ("2", tonic::Code::DeadlineExceeded));
                }
            }
        }
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_that_nobody_asks_for_is_let_go() {
        let budget = Budget::new(100);
        let frames = futures::StreamExt::chain(
            futures::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from("[")))]),
            futures::stream::pending(),
        );
        let mut values = Values::new(StreamBody::new(frames), 100, Duration::from_secs(9), budget.clone());
        assert!(futures::poll!(std::future::poll_fn(|context| values.poll_next(context))).is_pending());
        assert_eq!(budget.used(), 1);
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!(budget.used(), 0);
        assert!(std::future::poll_fn(|context| values.poll_next(context)).await.unwrap().is_err());
    }
}
