//! How long a member that doesn't take a snapshot is left alone before the next one.
//!
//! ```text
//! not sent ─► 2 s ─► not sent ─► 4 s ─► … 60 s
//!               └── it was silent, and answers a heartbeat: at once
//! ```
//! A member that stands still takes connections and nothing else. Without this it would be sent the same snapshot
//! again with each connection that is given up, and the leader would read it from its disk each time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

const PAUSE_MIN: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What is remembered of one member's failures.
#[derive(Debug)]
pub(super) struct Patience {
    /// Until when it is left alone.
    until: watch::Sender<Option<Instant>>,
    next: Mutex<Duration>,
    silent: AtomicBool,
}

impl Default for Patience {
    fn default() -> Self {
        Self { until: watch::Sender::new(None), next: Mutex::new(PAUSE_MIN), silent: AtomicBool::new(false) }
    }
}

impl Patience {
    /// Waits until it may be tried again.
    pub(super) async fn wait(&self) {
        let mut seen = self.until.subscribe();
        let until = *seen.borrow_and_update();
        if let Some(until) = until {
            // The sender lives as long as `self`.
            let _ = tokio::time::timeout_at(until, seen.wait_for(Option::is_none)).await;
        }
    }

    /// It was tried in vain; `silent` if the member didn't answer at all.
    pub(super) fn failed(&self, silent: bool) {
        let mut next = self.next.lock();
        let pause = *next;
        *next = (2 * pause).min(PAUSE_MAX);
        self.until.send_replace(Some(Instant::now() + pause));
        // Not before: whoever is heard of in between must find a pause to end.
        self.silent.store(silent, Ordering::Release);
    }

    /// It took one.
    pub(super) fn succeeded(&self) {
        *self.next.lock() = PAUSE_MIN;
        self.silent.store(false, Ordering::Relaxed);
        self.until.send_replace(None);
    }

    /// It answered a heartbeat.
    pub(super) fn heard(&self) {
        if self.silent.swap(false, Ordering::AcqRel) {
            self.until.send_replace(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn waits_secs(patience: &Patience) -> u64 {
        let begun = Instant::now();
        patience.wait().await;
        begun.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn each_failure_doubles_the_pause_up_to_its_end() {
        let patience = Patience::default();
        assert_eq!(waits_secs(&patience).await, 0);
        for secs in [2, 4, 8, 16, 32, 60, 60] {
            patience.failed(false);
            // It answers, so it has another reason, as a full disk.
            patience.heard();
            assert_eq!(waits_secs(&patience).await, secs);
        }
        patience.succeeded();
        assert_eq!(waits_secs(&patience).await, 0);
        patience.failed(true);
        assert_eq!(waits_secs(&patience).await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_member_that_answers_again_waits_no_longer() {
        let patience = Patience::default();
        (0..6).for_each(|_| patience.failed(true));
        let heard = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            patience.heard();
        };
        let (waited, ()) = tokio::join!(waits_secs(&patience), heard);
        assert_eq!(waited, 5);
        patience.failed(true);
        assert_eq!(waits_secs(&patience).await, 60, "it was silent again");
    }
}
