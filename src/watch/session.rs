//! `WatchSession`: drives one stream: polls its requests, its mailbox, its jobs and the time, in one task.
//!
//! ```text
//! requests ─┐
//! mailbox  ─┼─► StreamCore ─► Output ─► chunks of framed gRPC messages
//! jobs, time┘
//! ```
//!
//! A client that asks for progress mostly wants to know when it has seen what it read elsewhere, perhaps at another member.
//! So the request waits until this member has what was acknowledged anywhere before (`confirming`): kube-apiserver asks once in
//! 100 ms, and a list waits for as long if the answer is of a revision before the one that it needs.
//!
//! Nothing is spawned but the blocking jobs: whoever polls for chunks (the HTTP/2 stream's task) runs all of it,
//! and only when the client has begun to take what came before.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, Stream, StreamExt};
use tokio::time::{Instant, Sleep};

use super::hub::WatchHub;
use super::mailbox::StreamEnd;
use super::output::Output;
use super::request::WatchRequest;
use super::stream::{Done, HeaderSource, Job, Step, StreamCore};
use crate::env::unblock;

/// gRPC's number for "unavailable".
const CODE_UNAVAILABLE: i32 = 14;

/// Waits until this member has published what was acknowledged anywhere before, or that can't be known now.
pub type Confirm = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// One watch stream: requests in, bytes out.
pub struct WatchSession<R> {
    core: StreamCore,
    hub: WatchHub,
    /// `None` once the client closed its side; events go on (E98).
    requests: Option<R>,
    out: Output,
    jobs: FuturesUnordered<BoxFuture<'static, Option<Done>>>,
    confirm: Option<Confirm>,
    /// A request for progress that waits for that, and whether another one has come since.
    asking: Option<BoxFuture<'static, ()>>,
    asked_again: bool,
    interval: Duration,
    timer: Pin<Box<Sleep>>,
    /// What the stream did last; `Full` at first, so that it is asked.
    step: Step,
    end: Option<StreamEnd>,
}

impl<R> fmt::Debug for WatchSession<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchSession").field("core", &self.core).finish_non_exhaustive()
    }
}

impl<R: Stream<Item = Result<WatchRequest, StreamEnd>> + Unpin> WatchSession<R> {
    /// Opens a stream. `needs_leader`: the client sent `hasleader`, see [`WatchHub::end_leader_streams`].
    ///
    /// To be called in a tokio runtime.
    pub fn new(hub: &WatchHub, header: HeaderSource, requests: R, needs_leader: bool) -> Self {
        let core = StreamCore::new(hub.clone(), header, needs_leader);
        let interval = jittered(hub.limits().progress_interval, core.mailbox().stream);
        Self {
            core,
            hub: hub.clone(),
            requests: Some(requests),
            out: Output::default(),
            jobs: FuturesUnordered::new(),
            confirm: None,
            asking: None,
            asked_again: false,
            interval,
            timer: Box::pin(tokio::time::sleep(interval)),
            step: Step::Full,
            end: None,
        }
    }

    /// Has requests for progress wait for `confirm`.
    pub fn confirming(self, confirm: Option<Confirm>) -> Self {
        Self { confirm, ..self }
    }

    /// The next bytes: whole and partial gRPC messages one after the other. `Err` is the stream's end and its status.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, StreamEnd>> {
        loop {
            if let Some(chunk) = self.out.take() {
                return Poll::Ready(Ok(chunk));
            }
            if let Some(end) = &self.end {
                return Poll::Ready(Err(end.clone()));
            }
            let mut news = self.poll_requests(cx) | self.poll_asking(cx);
            while self.timer.as_mut().poll(cx).is_ready() {
                self.core.tick();
                self.timer.as_mut().reset(Instant::now() + self.interval);
                news = true;
            }
            while let Poll::Ready(Some(done)) = self.jobs.poll_next_unpin(cx) {
                match done {
                    Some(done) => self.core.finish(done),
                    None => self.end = Some(stopped()),
                }
                news = true;
            }
            // After a chunk was taken there is mostly nothing more: seen without going through the stream again.
            let quiet = match self.step {
                Step::Idle => self.core.mailbox().poll_news(cx).is_pending(),
                Step::Blocked => self.core.mailbox().poll_end(cx).is_pending(),
                Step::Full | Step::End(_) => false,
            };
            if quiet && !news && self.end.is_none() && self.out.is_empty() {
                return Poll::Pending;
            }
            self.step = self.core.advance(&mut self.out);
            while let Some(job) = self.core.take_job() {
                self.jobs.push(run(self.hub.clone(), job));
            }
            if let Step::End(end) = &self.step {
                self.end = Some(end.clone());
            }
        }
    }

    fn request(&mut self, request: WatchRequest) {
        match &self.confirm {
            Some(confirm) if request == WatchRequest::Progress => match &self.asking {
                // What couldn't be answered now isn't answered later.
                _ if !self.core.takes_progress() => {}
                Some(_) => self.asked_again = true,
                None => self.asking = Some(confirm()),
            },
            _ => self.core.request(request, &mut self.out),
        }
    }

    /// Goes on with a request for progress that has waited long enough; whether there was one.
    fn poll_asking(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while let Some(asking) = &mut self.asking
            && asking.as_mut().poll(cx).is_ready()
        {
            self.core.request(WatchRequest::Progress, &mut self.out);
            // It came while the one before was under way, which may have looked before it.
            let again = std::mem::take(&mut self.asked_again);
            self.asking = self.confirm.as_ref().filter(|_| again).map(|confirm| confirm());
            any = true;
        }
        any
    }

    /// Takes requests as long as there is room for their answers; whether any came.
    fn poll_requests(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while !self.out.is_full()
            && let Some(requests) = &mut self.requests
        {
            match requests.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(request))) => {
                    self.request(request);
                    any = true;
                }
                Poll::Ready(Some(Err(end))) => {
                    self.end = Some(end);
                    self.requests = None;
                }
                Poll::Ready(None) => self.requests = None,
                Poll::Pending => break,
            }
        }
        any
    }
}

/// Runs a job on a blocking thread; a round of history waits for one of the hub's slots first.
fn run(hub: WatchHub, job: Job) -> BoxFuture<'static, Option<Done>> {
    async move {
        let slots = hub.replay_slots().clone();
        let slot = if job.needs_slot() { slots.acquire_owned().await.ok() } else { None };
        let done = unblock(move || job.run(&hub)).await.ok();
        drop(slot);
        done
    }
    .boxed()
}

fn stopped() -> StreamEnd {
    StreamEnd { code: CODE_UNAVAILABLE, message: crate::types::RequestError::Stopped.to_string() }
}

/// The interval and up to a tenth more, so that streams opened together don't all speak at once (E100).
fn jittered(interval: Duration, stream: u64) -> Duration {
    // Fibonacci hashing: streams are numbered one after the other.
    let permille = (stream.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % 100;
    interval + interval * permille as u32 / 1000
}
