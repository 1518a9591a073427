//! `Turns`: what clients ask for is worked on by as many at a time as there are processors; the rest waits outside of
//! the runtime's queue.
//!
//! ```text
//! a connection or a call is woken ─► a turn free? ─► polled ─► given back, to whoever waited longest
//!                                              └► waits, in order of coming
//! Raft, other members, leases, the log ─► polled at once, by the one thread that clients never have
//! ```
//! A runtime polls what is ready in the order in which it became ready, and looks at timers and sockets only now and
//! then while it is busy. With thousands of clients' tasks ready at a time a heartbeat would come after all of them, at
//! each of its steps, and a leader that is busy would lose the lead. So there is a thread more than processors
//! ([`threads`]): it is idle unless something comes that isn't a client's, and then the kernel lets it run.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Threads of the runtime that these turns are for.
pub fn threads() -> usize {
    processors() + 1
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// A turn to come.
type Coming = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// The turns of all clients; clones share them.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(processors())))
    }
}

/// One task's way to a turn.
pub(super) struct Gate {
    turns: Turns,
    /// There only while it waits.
    coming: Option<Coming>,
}

impl Gate {
    pub(super) fn new(turns: Turns) -> Self {
        Self { turns, coming: None }
    }

    /// Polls `work` if it is its turn, and else when it is.
    pub(super) fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        work: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if self.coming.is_none()
            && let Ok(_turn) = self.turns.0.try_acquire()
        {
            return work(context);
        }
        let coming = self.coming.get_or_insert_with(|| Box::pin(self.turns.0.clone().acquire_owned()));
        // They are never closed; without one the work goes on all the same.
        let _turn = ready!(coming.as_mut().poll(context));
        self.coming = None;
        work(context)
    }
}

/// Work that takes a turn each time it goes on.
pub(super) struct InTurn<F> {
    gate: Gate,
    work: Pin<Box<F>>,
}

impl<F> InTurn<F> {
    pub(super) fn new(turns: Turns, work: Pin<Box<F>>) -> Self {
        Self { gate: Gate::new(turns), work }
    }
}

impl<F: Future> Future for InTurn<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Self { gate, work } = &mut *self;
        gate.poll(context, |context| work.as_mut().poll(context))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn never_more_at_a_time_than_there_are_turns_and_all_get_theirs() {
        let turns = Turns(Arc::new(Semaphore::new(2)));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..200)
            .map(|_| {
                let (now, most, mut left) = (now.clone(), most.clone(), 20);
                let work = std::future::poll_fn(move |context: &mut Context<'_>| {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    (0..200).for_each(|_| std::hint::spin_loop());
                    now.fetch_sub(1, Ordering::SeqCst);
                    left -= 1;
                    if left == 0 {
                        return Poll::Ready(());
                    }
                    context.waker().wake_by_ref();
                    Poll::Pending
                });
                tokio::spawn(InTurn::new(turns.clone(), Box::pin(work)))
            })
            .collect();
        for task in tasks {
            task.await.expect("it comes to its end");
        }
        assert!(most.load(Ordering::SeqCst) <= 2);
        assert_eq!(turns.0.available_permits(), 2);
    }

    #[tokio::test]
    async fn who_goes_away_while_waiting_or_called_leaves_its_turn_to_others() {
        let turns = Turns(Arc::new(Semaphore::new(1)));
        let context = &mut Context::from_waker(std::task::Waker::noop());
        let held = turns.0.clone().try_acquire_owned().expect("free");
        let [mut first, mut second, mut third] = [(); 3].map(|()| Gate::new(turns.clone()));
        for gate in [&mut first, &mut second, &mut third] {
            assert!(gate.poll(context, |_| Poll::Ready(())).is_pending());
        }
        drop(second);
        // The first is called, and goes away before it comes.
        drop(held);
        assert!(third.poll(context, |_| Poll::Ready(())).is_pending());
        drop(first);
        assert!(third.poll(context, |_| Poll::Ready(())).is_ready());
        assert_eq!(turns.0.available_permits(), 1);
    }
}
