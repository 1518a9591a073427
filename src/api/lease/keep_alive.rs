//! `LeaseKeepAlive`: a body that reads renewals and makes the answers, with no task and no channel.
//!
//! ```text
//! request frames ─► messages ─► renew each ─► one frame with all answers
//!                                └► takes time (the leader is asked, a lease is ending): wait for it
//! ```
//! On a member that isn't the only voter the answers wait for one confirmation of leadership that
//! begins after the renewals: a leader that was paused and replaced must not answer for leases that
//! its successor has ended (etcd 3.7.1 does). What another member told of the end of a lease is applied by then: a
//! lease that is gone is asked about again, and the others' answers stand.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures::future::try_join_all;
use http::{HeaderMap, Request};
use http_body::{Body, Frame};
use rusd_proto::etcdserverpb as pb;
use tonic::Status;

use crate::api::auth::CallContext;
use crate::api::errors;
use crate::api::grpc::arrival::Arrivals;
use crate::api::grpc::body::{BodyError, ok_trailers, put_head};
use crate::api::grpc::decode::decode_streamed;
use crate::api::grpc::frame::HEAD_LEN;
use crate::api::grpc::request::CallBody;
use crate::api::grpc::service::StreamBody;
use crate::api::methods::Method;
use crate::api::seams::Waiting;
use crate::api::wire::{Header, int_len, put_int};
use crate::apply::rights;
use crate::lease::Renewal;
use crate::types::{LeaseId, RequestError, Term};

/// The most answers in one frame, of which each has some 50 bytes.
const ANSWERS_MAX: usize = 512;

/// `LeaseKeepAlive`.
pub(crate) fn keep_alive(call: CallContext, request: Request<CallBody>) -> Result<StreamBody, Status> {
    let (max, limit) = (call.message_bytes_max(), call.limits.request_arrival_max);
    let messages = Arrivals::new(request.headers(), max, limit, &call.budgets.requests);
    Ok(Box::pin(KeepAlive {
        call,
        messages,
        requests: Some(request.into_body()),
        answers: Vec::new(),
        renewing: None,
        led_in: None,
        confirming: None,
        asking_again: None,
        end: None,
        done: false,
    }))
}

struct KeepAlive {
    call: CallContext,
    messages: Arrivals,
    /// `None` after the client's half is closed.
    requests: Option<CallBody>,
    /// What the next frame says.
    answers: Vec<Answer>,
    /// An answer that takes time; those behind it wait for it, as the order is the requests'.
    renewing: Option<Renewing>,
    /// The term in which answers that wait here were given by this member's clock.
    led_in: Option<Term>,
    /// The confirmation, for those answers, that this member still leads.
    confirming: Option<Waiting<Result<(), RequestError>>>,
    /// The answers anew for leases that were gone when it came.
    asking_again: Option<Waiting<Result<Vec<i64>, RequestError>>>,
    /// The trailers to come, once nothing more is to be answered.
    end: Option<HeaderMap>,
    done: bool,
}

struct Answer {
    id: LeaseId,
    /// For its header.
    revision: i64,
    ttl_secs: i64,
    stands: Stands,
}

/// Whether an answer may be told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stands {
    Surely,
    /// By this member's clock: if it still leads, and the lease is there.
    IfConfirmed,
    /// The lease was gone when that was confirmed.
    NoMore,
}

struct Renewing {
    id: LeaseId,
    /// For the answer's header.
    revision: i64,
    ttl_secs: Waiting<Result<i64, RequestError>>,
}

impl KeepAlive {
    /// Handles one message: answers it, or begins to wait.
    fn handle(&mut self, message: Bytes) -> Result<(), Status> {
        self.call.metrics.received(Method::LeaseKeepAlive, message.len());
        let request: pb::LeaseKeepAliveRequest = decode_streamed(message)?;
        let id = LeaseId(request.id);
        self.check(id).map_err(|error| errors::status(&error))?;
        // etcd takes the header's revision before it renews.
        let revision = self.call.reader.revision();
        // Taken before: a term that begins meanwhile makes the confirmation fail.
        let term = self.call.proposer.standing().term;
        match self.call.lessor.renew(id, self.call.env.clock.now()) {
            Renewal::Renewed { ttl_secs, reset_checkpoint: false } => {
                self.led_in.get_or_insert(term);
                self.answers.push(Answer { id, revision, ttl_secs, stands: Stands::IfConfirmed });
            }
            // Another member may have told of a lease that isn't applied here yet.
            Renewal::Unknown if self.call.proposer.confirm_lead(term).is_none() => self.answer(id, revision, 0),
            Renewal::NotLeading | Renewal::Unknown | Renewal::Renewed { .. } | Renewal::Ending => {
                let ttl_secs = self.call.proposer.renew_lease(id);
                self.renewing = Some(Renewing { id, revision, ttl_secs });
            }
        }
        Ok(())
    }

    /// Whether the caller may renew a lease: whoever may write all its keys.
    fn check(&self, id: LeaseId) -> Result<(), RequestError> {
        if !self.call.lessor.has_keys(id) {
            return self.call.check_known();
        }
        self.call.permit(|access| rights::write_attached(id, access, &self.call.lessor)).map(drop)
    }

    fn answer(&mut self, id: LeaseId, revision: i64, ttl_secs: i64) {
        self.answers.push(Answer { id, revision, ttl_secs, stands: Stands::Surely });
    }

    /// The frame with all answers, which are none afterwards.
    fn frame(&mut self) -> Bytes {
        let mut frame = BytesMut::new();
        for Answer { id, revision, ttl_secs, .. } in std::mem::take(&mut self.answers) {
            let header: Header = self.call.header(revision);
            let len = header.field_len() + int_len(id.get()) + int_len(ttl_secs);
            frame.reserve(HEAD_LEN + len);
            put_head(&mut frame, len);
            header.put_field(&mut frame);
            put_int(&mut frame, 2, id.get());
            put_int(&mut frame, 3, ttl_secs);
        }
        frame.freeze()
    }

    fn fail(&mut self, status: &Status) {
        let mut trailers = HeaderMap::new();
        // It fails only for metadata, of which there is none.
        let _ = status.add_header(&mut trailers);
        self.end = Some(trailers);
        self.requests = None;
        // Nothing is answered behind one that can't be.
        self.renewing = None;
    }

    /// Reads and handles until there is a frame to send, an end, or nothing to do.
    fn poll_answers(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            while self.renewing.is_none() && self.end.is_none() && self.answers.len() < ANSWERS_MAX {
                match self.messages.next() {
                    Ok(Some(message)) => {
                        if let Err(status) = self.handle(message) {
                            self.fail(&status);
                        }
                    }
                    Ok(None) => break,
                    Err(status) => self.fail(&status),
                }
            }
            if let Some(renewing) = &mut self.renewing {
                // What is answered already must not wait for it.
                let Poll::Ready(ttl_secs) = renewing.ttl_secs.as_mut().poll(context) else {
                    return if self.answers.is_empty() { Poll::Pending } else { Poll::Ready(()) };
                };
                let (id, revision) = (renewing.id, renewing.revision);
                self.renewing = None;
                match ttl_secs {
                    Ok(ttl_secs) => self.answer(id, revision, ttl_secs),
                    Err(error) => self.fail(&errors::status(&error)),
                }
                continue;
            }
            if self.end.is_some() || self.answers.len() >= ANSWERS_MAX {
                return Poll::Ready(());
            }
            let Some(requests) = &mut self.requests else {
                if self.messages.is_partial() {
                    self.fail(&Status::internal("unexpected EOF"));
                    return Poll::Ready(());
                }
                self.end = Some(ok_trailers());
                return Poll::Ready(());
            };
            match Pin::new(requests).poll_frame(context) {
                Poll::Pending => match self.messages.poll_late(context) {
                    Poll::Ready(status) => self.fail(&status),
                    Poll::Pending => return if self.answers.is_empty() { Poll::Pending } else { Poll::Ready(()) },
                },
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.messages.push(data);
                    }
                }
                Poll::Ready(Some(Err(error))) => match error.downcast::<Status>() {
                    // What the gateway can't make a message of.
                    Ok(status) => self.fail(&status),
                    Err(_) => self.requests = None,
                },
                // The client's half is over.
                Poll::Ready(None) => self.requests = None,
            }
        }
    }

    /// Until what is answered may be told, or can't be.
    fn poll_sure(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(confirming) = &mut self.confirming {
            let confirmed = ready!(confirming.as_mut().poll(context));
            self.confirming = None;
            if let Err(error) = confirmed {
                self.answers.clear();
                self.fail(&errors::status(&error));
                return Poll::Ready(());
            }
            // Another member may have told of the end of one that wasn't applied here yet, and is now.
            let mut again = Vec::new();
            for answer in &mut self.answers {
                if answer.stands == Stands::IfConfirmed && !self.call.lessor.contains(answer.id) {
                    answer.stands = Stands::NoMore;
                    again.push(self.call.proposer.renew_lease(answer.id));
                }
            }
            if !again.is_empty() {
                self.asking_again = Some(Box::pin(try_join_all(again)));
            }
        }
        if let Some(asking) = &mut self.asking_again {
            let asked = ready!(asking.as_mut().poll(context));
            self.asking_again = None;
            let gone = self.answers.iter_mut().filter(|answer| answer.stands == Stands::NoMore);
            match asked {
                Ok(ttls_secs) => gone.zip(ttls_secs).for_each(|(answer, ttl_secs)| answer.ttl_secs = ttl_secs),
                Err(error) => {
                    // The order is the requests': what comes before the first of them can be told.
                    let first = self.answers.iter().position(|answer| answer.stands == Stands::NoMore);
                    self.answers.truncate(first.unwrap_or_default());
                    self.fail(&errors::status(&error));
                }
            }
        }
        Poll::Ready(())
    }
}

impl Body for KeepAlive {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if this.done {
            return Poll::Ready(None);
        }
        if this.confirming.is_none() && this.asking_again.is_none() {
            ready!(this.poll_answers(context));
            if let Some(term) = this.led_in.take() {
                this.confirming = this.call.proposer.confirm_lead(term);
            }
        }
        ready!(this.poll_sure(context));
        if !this.answers.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(this.frame()))));
        }
        this.done = true;
        match this.end.take() {
            Some(trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            None => Poll::Ready(None),
        }
    }
}
