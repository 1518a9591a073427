//! `Limit`: one time limit for all that wait, without a timer for each.
//!
//! ```text
//! still pending ─► a place in a list, with its waker ─► done, or given up ─► out of the list
//! task: each tick ─► who stood there for the whole limit is woken ─► finds that it is over
//! ```
//! A timer is set and removed under a lock that the whole runtime shares, also with its driver. Here threads have lists of
//! their own, and nothing looks at a clock but the task. Nobody waits shorter than the limit, and nobody longer than by
//! two ticks.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// The longest time between two ticks.
const TICK_MAX: Duration = Duration::from_millis(250);
/// How many there are in a limit that is shorter than [`TICK_MAX`] as often.
const TICKS: u32 = 16;
/// Lists, as a power of two: more threads share them.
const LISTS: usize = 16;

/// Places of a list that has nobody, for which it keeps the memory.
const PLACES_KEPT: usize = 1_024;

/// The time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Elapsed;

/// A limit that many wait under. Cheap to clone.
#[derive(Clone)]
pub(super) struct Limit {
    lists: Arc<[List; LISTS]>,
}

/// Those that wait, apart from other lists' lines of the processor's cache.
#[derive(Default)]
#[repr(align(128))]
struct List(Mutex<Places>);

#[derive(Default)]
struct Places {
    taken: Vec<Option<Place>>,
    free: Vec<usize>,
}

impl Places {
    /// Nobody stands here: the next look needn't go over as many places as there ever were.
    fn shrink(&mut self) {
        self.taken.clear();
        self.taken.shrink_to(PLACES_KEPT);
        self.free.clear();
        self.free.shrink_to(PLACES_KEPT);
    }
}

struct Place {
    waker: Waker,
    /// When its time is over, from the first tick on that finds it here.
    until: Option<Instant>,
    is_over: bool,
}

impl Limit {
    /// Starts the task that looks after the time, until the last clone is gone.
    pub(super) fn start(limit: Duration) -> Self {
        let lists: Arc<[List; LISTS]> = Arc::default();
        let tick = (limit / TICKS).clamp(Duration::from_millis(1), TICK_MAX);
        tokio::spawn(look_after(Arc::downgrade(&lists), tick, limit));
        Self { lists }
    }

    /// What comes of `work`, if it comes in time.
    pub(super) async fn within<F: Future>(&self, work: F) -> Result<F::Output, Elapsed> {
        let mut work = pin!(work);
        let mut standing = Standing { list: self.list(), place: None };
        poll_fn(|context| match work.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending if standing.is_over(context) => Poll::Ready(Err(Elapsed)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// The list of this thread.
    fn list(&self) -> &Mutex<Places> {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static NUMBER: usize = THREADS.fetch_add(1, Ordering::Relaxed);
        }
        // A thread that ends has none any more, and any will do.
        &self.lists[NUMBER.try_with(|number| *number).unwrap_or(0) % LISTS].0
    }
}

async fn look_after(lists: Weak<[List; LISTS]>, tick: Duration, limit: Duration) {
    let mut called = Vec::new();
    loop {
        tokio::time::sleep(tick).await;
        let Some(lists) = lists.upgrade() else { return };
        let now = Instant::now();
        for list in lists.iter() {
            for place in list.0.lock().taken.iter_mut().flatten() {
                let until = *place.until.get_or_insert(now + limit);
                if !place.is_over && until <= now {
                    place.is_over = true;
                    called.push(place.waker.clone());
                }
            }
            called.drain(..).for_each(Waker::wake);
        }
    }
}

/// One that waits.
struct Standing<'a> {
    list: &'a Mutex<Places>,
    place: Option<usize>,
}

impl Standing<'_> {
    /// Whether its time is over; if not, it is woken when it is.
    fn is_over(&mut self, context: &Context<'_>) -> bool {
        let mut places = self.list.lock();
        if let Some(place) = self.place.and_then(|at| places.taken.get_mut(at)).and_then(Option::as_mut) {
            place.waker.clone_from(context.waker());
            return place.is_over;
        }
        let place = Some(Place { waker: context.waker().clone(), until: None, is_over: false });
        let at = places.free.pop().unwrap_or(places.taken.len());
        match places.taken.get_mut(at) {
            Some(free) => *free = place,
            None => places.taken.push(place),
        }
        self.place = Some(at);
        false
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        if let Some(at) = self.place {
            let mut places = self.list.lock();
            // Dropped when the lock isn't held any more: a waker is somebody else's code.
            let _left = places.taken.get_mut(at).and_then(Option::take);
            places.free.push(at);
            if places.free.len() == places.taken.len() {
                places.shrink();
            }
            drop(places);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(7);

    fn standing(limit: &Limit) -> usize {
        limit.lists.iter().map(|list| list.0.lock().taken.iter().flatten().count()).sum()
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_shorter_than_the_limit_nor_much_longer() {
        for wanted in [LIMIT, Duration::from_millis(300), Duration::ZERO] {
            let limit = Limit::start(wanted);
            for after_ms in [0, 1, 100, 249] {
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
                let begun = Instant::now();
                assert_eq!(limit.within(std::future::pending::<()>()).await, Err(Elapsed));
                let took = begun.elapsed();
                assert!(took >= wanted && took <= wanted + 2 * TICK_MAX + Duration::from_millis(5), "{took:?}");
            }
            assert_eq!(standing(&limit), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_time_comes_and_places_are_used_again() {
        let limit = Limit::start(LIMIT);
        assert_eq!(limit.within(async { 5 }).await, Ok(5));
        for round in 0..20 {
            let calls: Vec<_> = (0..100)
                .map(|call| {
                    let (sender, receiver) = oneshot::channel();
                    let limit = limit.clone();
                    (sender, tokio::spawn(async move { limit.within(receiver).await }), call)
                })
                .collect();
            tokio::time::sleep(LIMIT - Duration::from_secs(1)).await;
            assert_eq!(standing(&limit), 100, "round {round}");
            for (sender, waiting, call) in calls {
                match call % 3 {
                    0 => assert!(sender.send(call).is_ok()),
                    1 => drop(sender),
                    _ => waiting.abort(),
                }
                match (call % 3, waiting.await) {
                    (0, Ok(answer)) => assert_eq!(answer, Ok(Ok(call))),
                    (1, Ok(answer)) => assert!(matches!(answer, Ok(Err(_)))),
                    (2, Err(gone)) => assert!(gone.is_cancelled()),
                    (_, other) => panic!("{other:?}"),
                }
            }
            assert_eq!(standing(&limit), 0, "round {round}");
        }
    }

    // Cause: a list kept the length that it once had. Symptom: after one crowd each tick went over all of its places under the
    // lock, for ever.
    #[tokio::test(start_paused = true)]
    async fn a_list_that_is_empty_again_is_short_again() {
        const CROWD: usize = 5_000;
        let limit = Limit::start(LIMIT);
        let mut crowd: Vec<_> = (0..CROWD).map(|_| Box::pin(limit.within(std::future::pending::<()>()))).collect();
        let context = &mut Context::from_waker(Waker::noop());
        assert!(crowd.iter_mut().all(|call| call.as_mut().poll(context).is_pending()));
        let length = || limit.lists.iter().map(|list| list.0.lock().taken.len()).sum::<usize>();
        let last = crowd.pop();
        drop(crowd);
        assert_eq!((standing(&limit), length()), (1, CROWD), "its place may be any");
        drop(last);
        let capacity = |list: &List| {
            let places = list.0.lock();
            places.taken.capacity().max(places.free.capacity())
        };
        assert!(length() == 0 && limit.lists.iter().all(|list| capacity(list) <= 2 * PLACES_KEPT));
        assert_eq!(limit.within(std::future::pending::<()>()).await, Err(Elapsed), "and it is used as before");
        assert_eq!((standing(&limit), length()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_goes_on_in_another_task_is_woken_there() {
        let limit = Limit::start(LIMIT);
        let mut waiting = Box::pin(async move { limit.within(std::future::pending::<()>()).await });
        // As a connection polls a call that has just come.
        assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let task = tokio::spawn(waiting);
        let answer = tokio::time::timeout(LIMIT * 2, task).await.expect("it is woken").expect("no panic");
        assert_eq!(answer, Err(Elapsed));
    }
}
