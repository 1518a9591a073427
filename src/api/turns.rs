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

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::types::stages::resumed;

/// Threads of the runtime that these turns are for.
pub fn threads() -> usize {
    processors() + 1
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The turns of all clients; clones share them.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Shared>);

/// Free turns and who waits for one. Invariant: while the lock is free nobody waits beside a free turn, but for one
/// whose giver is about to take the lock.
#[derive(Debug)]
struct Shared {
    /// Free turns, and [`ONE_WAITS`] for each task that waits: with nobody waiting, one addition takes or gives a turn.
    counts: AtomicU64,
    line: Mutex<Line>,
}

const ONE_WAITS: u64 = 1 << 32;
/// The free turns' part of the counts.
const FREE: u64 = ONE_WAITS - 1;

/// Tasks that wait, by number; who came first has the lowest.
#[derive(Debug, Default)]
struct Line {
    next: u64,
    waiting: BTreeMap<u64, Waker>,
}

impl Default for Turns {
    fn default() -> Self {
        Self::of(processors())
    }
}

impl Turns {
    fn of(turns: usize) -> Self {
        let counts = AtomicU64::new(turns as u64);
        Self(Arc::new(Shared { counts, line: Mutex::default() }))
    }
}

impl Shared {
    /// A turn, if one is free that nobody waits for.
    fn take(&self) -> Option<Turn<'_>> {
        let free = |counts| (1..ONE_WAITS).contains(&counts).then(|| counts - 1);
        self.counts.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).ok().map(|_| Turn(self))
    }

    /// A number in the line for who found no turn, or the turn that came free meanwhile.
    fn wait(&self, waker: &Waker) -> Result<Turn<'_>, u64> {
        let mut line = self.line.lock();
        let number = line.next;
        line.next += 1;
        line.waiting.insert(number, waker.clone());
        self.counts.fetch_add(ONE_WAITS, Ordering::AcqRel);
        // Who gave one back just before saw nobody wait. Others may be before this task.
        let called = self.call(&mut line);
        let is_in = line.waiting.contains_key(&number);
        drop(line);
        if !is_in {
            return Ok(Turn(self));
        }
        if let Some(called) = called {
            called.wake();
        }
        Err(number)
    }

    /// The turn of who has `number`, if it was called.
    fn come(&self, number: u64, waker: &Waker) -> Option<Turn<'_>> {
        match self.line.lock().waiting.get_mut(&number) {
            None => Some(Turn(self)),
            Some(waiting) => {
                waiting.clone_from(waker);
                None
            }
        }
    }

    /// Lets go of a place in the line, or of the turn that came of it.
    fn leave(&self, number: u64) {
        let was_in = {
            let mut line = self.line.lock();
            let was_in = line.waiting.remove(&number).is_some();
            if was_in {
                self.counts.fetch_sub(ONE_WAITS, Ordering::AcqRel);
            }
            was_in
        };
        if !was_in {
            drop(Turn(self));
        }
    }

    /// Gives a free turn, if there is one, to who came first.
    fn call(&self, line: &mut Line) -> Option<Waker> {
        let first = line.waiting.first_entry()?;
        let free = |counts: u64| (counts & FREE > 0).then(|| counts - 1 - ONE_WAITS);
        self.counts.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).ok()?;
        Some(first.remove())
    }
}

/// A turn that is held.
struct Turn<'a>(&'a Shared);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let before = self.0.counts.fetch_add(1, Ordering::AcqRel);
        if before >= ONE_WAITS {
            let called = self.0.call(&mut self.0.line.lock());
            if let Some(called) = called {
                called.wake();
            }
        }
    }
}

/// One task's way to a turn.
pub(super) struct Gate {
    turns: Turns,
    /// Its number while it waits.
    number: Option<u64>,
    /// Since when it does.
    since: Option<Instant>,
}

impl Gate {
    pub(super) fn new(turns: Turns) -> Self {
        Self { turns, number: None, since: None }
    }

    /// Polls `work` if it is its turn, and else when it is.
    pub(super) fn poll<T>(
        &mut self,
        context: &mut Context<'_>,
        work: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        let shared = &*self.turns.0;
        let turn = match self.number {
            Some(number) => shared.come(number, context.waker()),
            None => match shared.take().map_or_else(|| shared.wait(context.waker()), Ok) {
                Ok(turn) => Some(turn),
                Err(number) => {
                    self.number = Some(number);
                    self.since = Some(Instant::now());
                    None
                }
            },
        };
        let Some(_turn) = turn else { return Poll::Pending };
        self.number = None;
        self.since = None;
        work(context)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.turns.0.leave(number);
        }
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
        let since = gate.since;
        gate.poll(context, |context| match since {
            Some(since) => resumed(since.into_std(), Instant::now().into_std(), || work.as_mut().poll(context)),
            None => work.as_mut().poll(context),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn never_more_at_a_time_than_there_are_turns_and_all_get_theirs() {
        let turns = Turns::of(2);
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
        assert_eq!(turns.0.counts.load(Ordering::SeqCst), 2, "all are free and nobody waits");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_learns_how_long_it_waited_for_its_turn() {
        use crate::types::stages::{Stage, stages, watched};

        let turns = Turns::of(1);
        let held = turns.0.take().expect("free");
        let call = watched(Instant::now().into_std(), async { stages().expect("watched").took(Stage::Scheduling) });
        let waits = tokio::spawn(InTurn::new(turns.clone(), Box::pin(call)));
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        drop(held);
        assert_eq!(waits.await.expect("it ends").as_secs(), 3);
    }

    #[tokio::test]
    async fn who_goes_away_while_waiting_or_called_leaves_its_turn_to_others() {
        let turns = Turns::of(1);
        let context = &mut Context::from_waker(std::task::Waker::noop());
        let held = turns.0.take().expect("free");
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
        assert_eq!(turns.0.counts.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn turns_go_to_who_waited_longest_and_come_back_from_work_that_panics() {
        let turns = Turns::of(1);
        let context = &mut Context::from_waker(std::task::Waker::noop());
        let held = turns.0.take().expect("free");
        let mut gates: Vec<_> = (0..3).map(|_| Gate::new(turns.clone())).collect();
        for gate in &mut gates {
            assert!(gate.poll(context, |_| Poll::Ready(())).is_pending());
            assert!(gate.poll(context, |_| Poll::Ready(())).is_pending(), "woken by something else");
        }
        drop(held);
        assert!(turns.0.take().is_none(), "it is called for");
        let mut newcomer = Gate::new(turns.clone());
        assert!(newcomer.poll(context, |_| Poll::Ready(())).is_pending());
        for gate in gates.iter_mut().chain([&mut newcomer]) {
            assert!(gate.poll(context, |_| Poll::Ready(())).is_ready());
        }
        let panics = std::panic::AssertUnwindSafe(|| newcomer.poll::<()>(context, |_| panic!("as meant")));
        assert!(std::panic::catch_unwind(panics).is_err());
        assert!(newcomer.poll(context, |_| Poll::Ready(())).is_ready());
    }

    #[test]
    fn threads_that_come_and_give_up_lose_no_turn() {
        let turns = Turns::of(2);
        std::thread::scope(|scope| {
            for thread in 0..4_u32 {
                let turns = turns.clone();
                scope.spawn(move || {
                    let parked = std::thread::current();
                    let waker = Waker::from(Arc::new(Unpark(parked)));
                    let context = &mut Context::from_waker(&waker);
                    for round in 0..5_000 {
                        let mut gate = Gate::new(turns.clone());
                        let gives_up = (round + thread).is_multiple_of(3);
                        while gate.poll(context, |_| Poll::Ready(())).is_pending() && !gives_up {
                            std::thread::park();
                        }
                    }
                });
            }
        });
        assert_eq!(turns.0.counts.load(Ordering::SeqCst), 2);
        assert!(turns.0.line.lock().waiting.is_empty());
    }

    struct Unpark(std::thread::Thread);

    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
}
