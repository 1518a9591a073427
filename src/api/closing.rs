//! `Closing`: the server's end, for what is polled over and over until then.
//!
//! A receiver that is waited on takes a lock of its channel at each poll. Here it is asked at the first one, which leaves
//! the task's waker there, and then only when something changed, or another task asks.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};

use tokio::sync::watch;
use tokio::task::coop::unconstrained;

/// Waits until a flag is set, or its sender is gone, which means the same. It is asked whatever else the task has done: with
/// no budget left a receiver would be pending without having left a waker.
pub(super) struct Closing {
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Never marked as seen.
    flag: watch::Receiver<bool>,
    /// Who is woken.
    waker: Option<Waker>,
    is_over: bool,
}

impl Closing {
    pub(super) fn new(flag: watch::Receiver<bool>) -> Self {
        Self { ended: Box::pin(unconstrained(super::listen::ended(flag.clone()))), flag, waker: None, is_over: false }
    }

    /// Whether it is over; if not, the task is woken when it is.
    pub(super) fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        let is_told = self.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker()));
        if self.is_over || (is_told && matches!(self.flag.has_changed(), Ok(false))) {
            return self.is_over;
        }
        self.is_over = self.ended.as_mut().poll(context).is_ready();
        self.waker = Some(context.waker().clone());
        self.is_over
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn task() -> (Arc<Woken>, Waker) {
        let woken = Arc::new(Woken::default());
        (woken.clone(), Waker::from(woken))
    }

    #[test]
    fn whoever_asked_last_is_woken_at_the_end() {
        for by_drop in [false, true] {
            let (down, flag) = watch::channel(false);
            let mut closing = Closing::new(flag);
            let ((first, first_waker), (last, last_waker)) = (task(), task());
            for waker in [&first_waker, &first_waker, &last_waker, &last_waker] {
                assert!(!closing.is_over(&mut Context::from_waker(waker)));
            }
            if by_drop {
                drop(down);
            } else {
                down.send_replace(true);
            }
            assert_eq!((first.0.load(Ordering::SeqCst), last.0.load(Ordering::SeqCst)), (0, 1));
            for waker in [&last_waker, &first_waker] {
                assert!(closing.is_over(&mut Context::from_waker(waker)), "and it stays so");
            }
        }
    }

    // Cause: a task that has done much is sent back by the first receiver that it asks. Symptom: no waker was left there, and
    // the task slept over the server's end.
    #[tokio::test]
    async fn a_task_that_has_done_much_is_woken_at_the_end() {
        use tokio::task::coop::{consume_budget, has_budget_remaining};

        let (down, flag) = watch::channel(false);
        let mut closing = Closing::new(flag);
        let (woken, waker) = task();
        std::future::poll_fn(|context| {
            while has_budget_remaining() {
                let _ = std::pin::pin!(consume_budget()).poll(context);
            }
            assert!(!closing.is_over(&mut Context::from_waker(&waker)));
            std::task::Poll::Ready(())
        })
        .await;
        let before = woken.0.load(Ordering::SeqCst);
        down.send_replace(true);
        assert_eq!(woken.0.load(Ordering::SeqCst), before + 1);
    }

    #[test]
    fn what_was_over_before_is_over_at_once() {
        let (_down, mut flag) = watch::channel(true);
        flag.mark_unchanged();
        assert!(Closing::new(flag).is_over(&mut Context::from_waker(Waker::noop())));
    }
}
