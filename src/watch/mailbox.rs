//! `Mailbox`: what waits for one stream between the hub and the stream's task, in bounded bytes.
//!
//! ```text
//! hub ─ push ─► [queue ≤ bytes_max] ─ drain ─► stream ─ release (once written) ─► budget
//!          └─ full: only the first lost revision is remembered; the stream reads on in history from there
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use super::event::Matched;
use super::metrics::WatchMetrics;
use crate::env::sync::{Mutex, MutexGuard};

/// Why and how a stream is ended from outside: a gRPC status without gRPC's types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEnd {
    /// The gRPC code's number.
    pub code: i32,
    /// Its message.
    pub message: String,
}

/// Events for one of the hub's groups.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) group: u32,
    pub(crate) matched: Arc<Matched>,
}

/// What a stream takes out at once.
#[derive(Debug, Default)]
pub(crate) struct Drained {
    pub(crate) deliveries: Vec<Delivery>,
    /// Events from this revision on were not kept; everything before it is in `deliveries` or was taken before.
    pub(crate) lost_from: Option<i64>,
}

#[derive(Debug, Default)]
struct Inner {
    queue: Vec<Delivery>,
    /// Charged: in the queue, or drained and not yet released.
    bytes: usize,
    lost_from: Option<i64>,
    end: Option<StreamEnd>,
    nudged: bool,
    waker: Option<Waker>,
}

impl Inner {
    fn has_news(&self) -> bool {
        !self.queue.is_empty() || self.lost_from.is_some() || self.end.is_some() || self.nudged
    }
}

/// A stream's mailbox.
#[derive(Debug)]
pub(crate) struct Mailbox {
    /// The stream's number in the hub.
    pub(crate) stream: u64,
    bytes_max: usize,
    metrics: Arc<WatchMetrics>,
    inner: Mutex<Inner>,
}

impl Mailbox {
    pub(crate) fn new(stream: u64, bytes_max: usize, metrics: Arc<WatchMetrics>) -> Self {
        Self { stream, bytes_max, metrics, inner: Mutex::default() }
    }

    /// Leaves events for a group, or remembers that they were lost if there is no room; whether there was.
    pub(crate) fn push(&self, group: u32, matched: &Arc<Matched>) -> bool {
        let mut inner = self.inner.lock();
        if let Some(lost) = &mut inner.lost_from {
            *lost = (*lost).min(matched.first());
            return false;
        }
        // One delivery always fits, however large: else an event above the bound could never be live.
        let kept = inner.bytes == 0 || inner.bytes + matched.cost <= self.bytes_max;
        if !kept {
            inner.lost_from = Some(matched.first());
            WatchMetrics::add(&self.metrics.overflows_total, 1);
        } else {
            inner.bytes += matched.cost;
            inner.queue.push(Delivery { group, matched: Arc::clone(matched) });
            WatchMetrics::add(&self.metrics.pending_events, matched.events.len() as u64);
        }
        Self::wake(inner);
        kept
    }

    /// Says that events from `from` on will not come.
    pub(crate) fn lose(&self, from: i64) {
        let mut inner = self.inner.lock();
        inner.lost_from = Some(inner.lost_from.map_or(from, |lost| lost.min(from)));
        Self::wake(inner);
    }

    /// Ends the stream.
    pub(crate) fn end(&self, end: StreamEnd) {
        let mut inner = self.inner.lock();
        inner.end.get_or_insert(end);
        Self::wake(inner);
    }

    /// Wakes the stream for something that it asked the hub to be told of.
    pub(crate) fn nudge(&self) {
        let mut inner = self.inner.lock();
        inner.nudged = true;
        Self::wake(inner);
    }

    fn wake(mut inner: MutexGuard<'_, Inner>) {
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The first revision that the stream hasn't taken yet; `None` if nothing waits for it.
    pub(crate) fn waits_from(&self) -> Option<i64> {
        let inner = self.inner.lock();
        let queued = inner.queue.first().map(|delivery| delivery.matched.first());
        queued.into_iter().chain(inner.lost_from).min()
    }

    /// Takes everything that waits. The bytes stay charged until [`Mailbox::release`].
    pub(crate) fn drain(&self) -> Drained {
        let mut inner = self.inner.lock();
        inner.nudged = false;
        let drained = Drained { deliveries: std::mem::take(&mut inner.queue), lost_from: inner.lost_from };
        drop(inner);
        let events: usize = drained.deliveries.iter().map(|delivery| delivery.matched.events.len()).sum();
        self.metrics.pending_events.fetch_sub(events as u64, Ordering::Relaxed);
        drained
    }

    /// Gives room back for drained deliveries that were written out.
    pub(crate) fn release(&self, bytes: usize) {
        let mut inner = self.inner.lock();
        inner.bytes = inner.bytes.saturating_sub(bytes);
    }

    /// Begins anew after a loss, from the revision given back: only for a stream that is in none of the hub's groups.
    pub(crate) fn take_loss(&self) -> Option<i64> {
        self.inner.lock().lost_from.take()
    }

    /// The end, if the stream was ended.
    pub(crate) fn ended(&self) -> Option<StreamEnd> {
        self.inner.lock().end.clone()
    }

    /// Ready if there is anything to take; else the task is woken when there is.
    pub(crate) fn poll_news(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_for(cx, Inner::has_news)
    }

    /// Ready if the stream was ended; else the task is woken when there is anything.
    pub(crate) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_for(cx, |inner| inner.end.is_some())
    }

    fn poll_for(&self, cx: &mut Context<'_>, ready: impl FnOnce(&Inner) -> bool) -> Poll<()> {
        let mut inner = self.inner.lock();
        if ready(&inner) {
            return Poll::Ready(());
        }
        match &mut inner.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => inner.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Bytes charged now.
    #[cfg(test)]
    pub(crate) fn charged(&self) -> usize {
        self.inner.lock().bytes
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        let events: usize = self.inner.get_mut().queue.iter().map(|delivery| delivery.matched.events.len()).sum();
        self.metrics.pending_events.fetch_sub(events as u64, Ordering::Relaxed);
    }
}
