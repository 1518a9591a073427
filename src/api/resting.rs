//! `HeadTimer`: how long the head of an HTTP/1.1 request may take, from its first byte on.
//!
//! ```text
//! connected ──────────────────────────────► the first head ─► its time runs ─┬► asked ─► answered ─┐
//!        ┌► a rest as long as it likes ─► a byte: the next head ─► its time runs ─┴► over: closed       │
//!        └────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//! The protocol library lets that time begin when it waits for a head, and so would end a client that rests between two
//! requests; etcd lets them rest. Whoever is gone is found by TCP, and how many may rest is bounded with all connections.
//! Bytes that come before the answer to the request ahead of them is out are taken for a part of that request.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::{Sleep, Timer};
use tokio::time::Instant;

/// The timer of one connection, for heads alone.
#[derive(Clone, Debug)]
pub(super) struct HeadTimer {
    /// Grows whenever the connection brings something.
    heard: Arc<AtomicU64>,
    /// Whether the first head was waited for.
    is_known: Arc<AtomicBool>,
}

impl HeadTimer {
    /// For a connection on which `heard` grows with each read.
    pub(super) fn new(heard: Arc<AtomicU64>) -> Self {
        Self { heard, is_known: Arc::default() }
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        let rests = self.is_known.swap(true, Ordering::Relaxed);
        let rests_at = rests.then(|| self.heard.load(Ordering::Relaxed));
        Box::pin(HeadTime { heard: self.heard.clone(), rests_at, max: duration, running: None })
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn Sleep>> {
        self.sleep(deadline.saturating_duration_since(self.now()))
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

/// The time of one head.
struct HeadTime {
    heard: Arc<AtomicU64>,
    /// What was heard when the connection came to rest; `None` once the head has begun.
    rests_at: Option<u64>,
    max: Duration,
    running: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Sleep for HeadTime {}

impl Future for HeadTime {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { heard, rests_at, max, running } = &mut *self;
        if *rests_at == Some(heard.load(Ordering::Relaxed)) {
            // Polled after each read that waits, and by nothing else: the next byte wakes the task.
            return Poll::Pending;
        }
        *rests_at = None;
        running.get_or_insert_with(|| Box::pin(tokio::time::sleep(*max))).as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const MAX: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_head_has_its_time_from_its_first_byte_on() {
        let heard = Arc::new(AtomicU64::new(1));
        let timer = HeadTimer::new(heard.clone());
        let begun = Instant::now();
        timer.sleep_until(timer.now() + MAX).await;
        assert_eq!(begun.elapsed().as_secs(), MAX.as_secs(), "the first one may not be put off");

        let mut next = timer.sleep_until(timer.now() + MAX);
        tokio::time::sleep(100 * MAX).await;
        assert!(next.as_mut().now_or_never().is_none(), "it rests");
        heard.fetch_add(1, Ordering::Relaxed);
        assert!(next.as_mut().now_or_never().is_none(), "it has begun");
        // More of the same head gives no more time.
        let begun = Instant::now();
        tokio::time::sleep(MAX / 2).await;
        heard.fetch_add(1, Ordering::Relaxed);
        next.await;
        assert_eq!(begun.elapsed().as_secs(), MAX.as_secs());
    }
}
