//! `Unread`: what a client has still to read, let go when it takes nothing of it for a while.
//!
//! A body isn't polled while what it gave waits for its client, so it can't find out by itself that time passes.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// How long a client may take nothing of a large answer before it is let go.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Something that a client is to read, in parts.
pub(crate) struct Unread<T> {
    slot: Arc<Mutex<Slot<T>>>,
    watch: AbortHandle,
}

struct Slot<T> {
    /// `None` while a part is made of it, and after it was let go.
    content: Option<T>,
    last: Instant,
}

impl<T: Send + 'static> Unread<T> {
    /// Keeps `content` until nothing was taken for `patience`.
    pub(crate) fn new(content: T, patience: Duration) -> Self {
        let slot = Arc::new(Mutex::new(Slot { content: Some(content), last: Instant::now() }));
        let watched = Arc::downgrade(&slot);
        let watch = async move {
            let mut look = Instant::now() + patience;
            loop {
                tokio::time::sleep_until(look).await;
                let Some(slot) = watched.upgrade() else { return };
                let mut slot = slot.lock();
                look = slot.last + patience;
                if look <= Instant::now() {
                    let Some(let_go) = slot.content.take() else {
                        look = Instant::now() + patience;
                        continue;
                    };
                    drop((slot, let_go));
                    return;
                }
            }
        };
        Self { slot, watch: tokio::spawn(watch).abort_handle() }
    }

    /// Takes it out to make the next part; `None` if it was let go.
    pub(crate) fn take(&self) -> Option<T> {
        let mut slot = self.slot.lock();
        slot.last = Instant::now();
        slot.content.take()
    }

    /// Puts back what is left.
    pub(crate) fn put(&self, content: T) {
        let mut slot = self.slot.lock();
        slot.last = Instant::now();
        slot.content = Some(content);
    }
}

impl<T> Drop for Unread<T> {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_is_let_go() {
        let content = Arc::new(());
        let unread = Unread::new(content.clone(), PATIENCE);
        for _ in 0..5 {
            tokio::time::sleep(PATIENCE / 2 + Duration::from_secs(1)).await;
            let taken = unread.take().expect("there was progress");
            unread.put(taken);
        }
        tokio::time::sleep(PATIENCE * 2).await;
        assert_eq!(Arc::strong_count(&content), 1, "let go though nobody asked");
        assert!(unread.take().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_in_the_making_is_not_let_go() {
        let unread = Unread::new(7, PATIENCE);
        assert_eq!(unread.take(), Some(7));
        tokio::time::sleep(PATIENCE * 5).await;
        unread.put(8);
        assert_eq!(unread.take(), Some(8));
    }
}
