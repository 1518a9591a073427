//! A place at which a test holds what goes through it.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// How long something may take to come there.
const COMES_MAX: Duration = Duration::from_secs(30);

/// Open at first.
#[derive(Default)]
pub(crate) struct Gate {
    is_closed: watch::Sender<bool>,
    came: AtomicUsize,
}

impl Gate {
    /// Has whoever comes from here on wait.
    pub(crate) fn close(&self) {
        self.is_closed.send_replace(true);
    }

    /// Lets all go on.
    pub(crate) fn open(&self) {
        self.is_closed.send_replace(false);
    }

    /// What one that comes now waits for; `None` if it's open.
    pub(crate) fn holds(&self) -> Option<impl Future<Output = ()> + Send + 'static> {
        let mut is_closed = self.is_closed.subscribe();
        if !*is_closed.borrow() {
            return None;
        }
        self.came.fetch_add(1, Ordering::Relaxed);
        Some(async move {
            // A gate that is gone holds nothing.
            is_closed.wait_for(|is_closed| !is_closed).await.ok();
        })
    }

    /// Returns when one has come while it was closed.
    pub(crate) async fn is_reached(&self) {
        comes("one at the gate", || self.came.load(Ordering::Relaxed) > 0).await;
    }
}

/// Waits until something is so.
pub(crate) async fn comes(what: &str, is_so: impl Fn() -> bool) {
    let until = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(COMES_MAX, until).await.unwrap_or_else(|_| panic!("doesn't come: {what}"));
}
