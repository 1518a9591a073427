//! `Ledger`: which answer in a stream of appends is to which request.
//!
//! ```text
//! openraft ─► Requests ─ noted ─► member ─► answer ─► answered: any request after it that it would count for, too?
//!                 ▲                                     ├─ yes: kept back; the answer to that one will do for both
//!                 └────── stands still, until go_on ◄───┴─ no: told to openraft
//! ```
//! openraft (0.10.0-alpha.37) takes an answer up to an entry for one to each request up to there, and with it the time
//! at which the last of them was sent for a time at which this member still led. A request without entries, sent
//! after the answer had left, would so confirm a lead that a new leader has ended: a stale read.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::{Stream, StreamExt};
use openraft::raft::AppendEntriesRequest;
use parking_lot::Mutex;

use super::super::types::TypeConfig;

type Request = AppendEntriesRequest<TypeConfig>;

/// The requests of one stream that are not answered yet.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Up to which entry each goes; never falling.
    sent: VecDeque<Option<u64>>,
    /// Nothing may be sent while openraft looks at an answer.
    stands_still: bool,
    waker: Option<Waker>,
}

impl Ledger {
    /// Takes the next answer, which is up to `matched`; whether it may be told. Nothing is sent then until
    /// [`Ledger::go_on`].
    pub(super) fn answered(&self, matched: Option<u64>) -> bool {
        let mut inner = self.inner.lock();
        inner.sent.pop_front();
        inner.stands_still = inner.sent.front().is_none_or(|last| *last > matched);
        inner.stands_still
    }

    /// The answer was looked at.
    pub(super) fn go_on(&self) {
        let mut inner = self.inner.lock();
        inner.stands_still = false;
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// openraft's requests on their way, each noted in the moment in which openraft notes it.
pub(super) struct Requests<S> {
    input: S,
    ledger: Arc<Ledger>,
}

impl<S> Requests<S> {
    pub(super) fn new(input: S, ledger: &Arc<Ledger>) -> Self {
        Self { input, ledger: ledger.clone() }
    }
}

impl<S: Stream<Item = Request> + Unpin> Stream for Requests<S> {
    type Item = Request;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Request>> {
        let this = self.get_mut();
        let mut inner = this.ledger.inner.lock();
        if inner.stands_still {
            inner.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let polled = this.input.poll_next_unpin(cx);
        if let Poll::Ready(Some(request)) = &polled {
            let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
            inner.sent.push_back(last.map(|id| id.index));
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::channel::mpsc;
    use openraft::EntryPayload;
    use openraft::vote::RaftLeaderId;

    use super::super::super::types::{Entry, Vote, log_id};
    use super::*;

    fn request(prev: u64, entries: u64) -> Request {
        let entry = |at| Entry { log_id: log_id(1, prev + at), payload: EntryPayload::Blank };
        Request {
            vote: Vote { leader_id: openraft::impls::leader_id_std::LeaderId::new(1, 1), committed: true },
            prev_log_id: Some(log_id(1, prev)),
            leader_commit: None,
            entries: (1..=entries).map(entry).collect(),
        }
    }

    #[test]
    fn an_answer_counts_for_nothing_that_was_sent_after_what_it_answers() {
        let ledger = Arc::new(Ledger::default());
        let (send, input) = mpsc::unbounded();
        let mut requests = Requests::new(input, &ledger);
        // Up to 5; the commit of it, without entries; up to 8.
        for sent in [request(3, 2), request(5, 0), request(5, 3)] {
            send.unbounded_send(sent).expect("taken");
            assert!(requests.next().now_or_never().flatten().is_some());
        }
        assert!(!ledger.answered(Some(5)), "the commit was sent after this answer may have left");
        assert!(ledger.answered(Some(5)));
        send.unbounded_send(request(8, 0)).expect("taken");
        assert!(requests.next().now_or_never().is_none(), "not while the answer is looked at");
        ledger.go_on();
        assert!(requests.next().now_or_never().flatten().is_some());
        assert!(!ledger.answered(Some(8)) && ledger.answered(Some(8)));
        ledger.go_on();
        drop(send);
        assert!(requests.next().now_or_never().flatten().is_none());
    }
}
