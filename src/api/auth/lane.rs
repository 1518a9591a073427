//! `Lane`: where what takes a processor for a while waits for its turn, those of each origin behind each other.
//!
//! ```text
//! enter ─┬► a place is free ───────────────────► waits ─► Turn, lowest round first ─► work ─► the next one's turn
//!        └► none: of a lower round than another? ─► takes that one's place, which is refused ─┘
//!           └► no: refused
//! ```
//! Each that comes is of the round after the last one of its origin that waits, or after the one that is worked on. So
//! whoever brings hundreds at a time waits behind himself, and whoever brings one waits for one of each other's.

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::types::{Place, Places, RequestError};

/// Whence something comes; `None` is where that isn't known.
pub(super) type Origin = Option<IpAddr>;

/// A lane; clones are the same one.
#[derive(Clone)]
pub(super) struct Lane {
    queue: Arc<Mutex<Queue>>,
    waiting: Arc<Places>,
}

struct Queue {
    /// Turns that nobody has.
    free: usize,
    /// The round of the last that got its turn.
    round: u64,
    /// Grows with each that comes.
    next: u64,
    waiters: Vec<Waiter>,
}

struct Waiter {
    round: u64,
    id: u64,
    origin: Origin,
    place: Place,
    go: oneshot::Sender<Turn>,
}

impl Queue {
    /// The round of who comes now.
    fn round_of(&self, origin: Origin) -> u64 {
        let own = self.waiters.iter().filter(|waiter| waiter.origin == origin).map(|waiter| waiter.round);
        own.max().map_or(self.round, |last| last.max(self.round)) + 1
    }

    /// Takes out the last of all, if it is of a later round than `round`.
    fn push_out(&mut self, round: u64) -> Option<Place> {
        let last = (0..self.waiters.len()).max_by_key(|at| (self.waiters[*at].round, self.waiters[*at].id))?;
        // Its sender goes, which is what it hears.
        (self.waiters[last].round > round).then(|| self.waiters.swap_remove(last).place)
    }

    /// Takes out whose turn it is, if there is one.
    fn call(&mut self) -> Option<Waiter> {
        if self.free == 0 {
            return None;
        }
        let first = (0..self.waiters.len()).min_by_key(|at| (self.waiters[*at].round, self.waiters[*at].id))?;
        let waiter = self.waiters.swap_remove(first);
        self.free -= 1;
        self.round = self.round.max(waiter.round);
        Some(waiter)
    }
}

impl Lane {
    /// `turns` at a time; as many as there are places in `waiting` may be here, those that are worked on among them.
    pub(super) fn new(turns: usize, waiting: Arc<Places>) -> Self {
        let queue = Queue { free: turns, round: 0, next: 0, waiters: Vec::new() };
        Self { queue: Arc::new(Mutex::new(queue)), waiting }
    }

    /// The same with other places; nobody is in it yet.
    pub(super) fn with_places(self, waiting: Arc<Places>) -> Self {
        Self { waiting, ..self }
    }

    /// Those that are here.
    pub(super) fn waiting(&self) -> &Arc<Places> {
        &self.waiting
    }

    /// Runs `work` when it is its turn.
    ///
    /// # Errors
    /// `TooManyRequests` if there is no place, or no longer; `Stopped` if the work ended early.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        origin: Origin,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, RequestError> {
        let turn = self.turn(origin).await?;
        // It goes with the work: a caller that gives up makes no room for another while the work goes on.
        let work = move || {
            let _turn = turn;
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| RequestError::Stopped)
    }

    async fn turn(&self, origin: Origin) -> Result<Turn, RequestError> {
        let (_waits, go) = self.enter(origin)?;
        self.call();
        go.await.map_err(|_| RequestError::TooManyRequests)
    }

    fn enter(&self, origin: Origin) -> Result<(Waits<'_>, oneshot::Receiver<Turn>), RequestError> {
        let mut queue = self.queue.lock();
        let round = queue.round_of(origin);
        let place = self.waiting.take().or_else(|| queue.push_out(round)).ok_or(RequestError::TooManyRequests)?;
        let (go, gone) = oneshot::channel();
        let id = queue.next;
        queue.next += 1;
        queue.waiters.push(Waiter { round, id, origin, place, go });
        drop(queue);
        Ok((Waits { lane: self, id }, gone))
    }

    /// Calls all whose turn it is.
    fn call(&self) {
        loop {
            let Some(Waiter { place, go, .. }) = self.queue.lock().call() else { return };
            // One that has just gone away gives its turn back, and with it calls the next.
            let _ = go.send(Turn { lane: self.clone(), _place: place });
        }
    }
}

/// One that waits; takes it out of the queue if it goes away.
struct Waits<'a> {
    lane: &'a Lane,
    id: u64,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let mut queue = self.lane.queue.lock();
        if let Some(at) = queue.waiters.iter().position(|waiter| waiter.id == self.id) {
            queue.waiters.swap_remove(at);
        }
    }
}

/// A turn; the next one's when dropped.
struct Turn {
    lane: Lane,
    _place: Place,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.lane.queue.lock().free += 1;
        self.lane.call();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures::poll;

    use super::*;

    type Coming<'a> = Pin<Box<dyn Future<Output = Result<Turn, RequestError>> + Send + 'a>>;

    fn from(host: u8) -> Origin {
        Some(IpAddr::from([10, 0, 0, host]))
    }

    fn lane(places: usize) -> Lane {
        Lane::new(1, Places::new("max-things", places))
    }

    /// One that waits.
    async fn come(lane: &Lane, host: u8) -> Coming<'_> {
        let mut coming: Coming<'_> = Box::pin(lane.turn(from(host)));
        assert!(poll!(coming.as_mut()).is_pending());
        coming
    }

    async fn is_ready(coming: &mut Coming<'_>) -> bool {
        poll!(coming.as_mut()).is_ready()
    }

    // Cause: who came first was first, and when all places were taken a newcomer was refused, whoever had them. Symptom: from one
    // address, without any rights, everybody else was kept from logging in.
    #[tokio::test]
    async fn an_origin_that_brings_many_waits_behind_itself() {
        let lane = lane(4);
        let turn = lane.turn(from(1)).await.expect("free");
        let mut many = [come(&lane, 1).await, come(&lane, 1).await, come(&lane, 1).await];
        assert_eq!((lane.waiting.taken(), lane.waiting.refused()), (4, 0));
        assert_eq!(lane.turn(from(1)).await.err(), Some(RequestError::TooManyRequests));
        let mut other = come(&lane, 2).await;
        assert!(matches!(poll!(many[2].as_mut()), std::task::Poll::Ready(Err(RequestError::TooManyRequests))));
        assert_eq!((lane.waiting.taken(), lane.waiting.refused()), (4, 2));
        drop(turn);
        let [first, second, _] = &mut many;
        let turn = first.await.expect("it was there first");
        assert!(!is_ready(second).await && !is_ready(&mut other).await);
        drop(turn);
        let turn = other.await.expect("each in turn");
        assert!(!is_ready(second).await);
        drop(turn);
        drop(second.await.expect("and the rest"));
        assert_eq!((lane.waiting.taken(), lane.queue.lock().free), (0, 1));
    }

    #[tokio::test]
    async fn one_each_is_first_come_first_served() {
        let lane = lane(3);
        let turn = lane.turn(from(1)).await.expect("free");
        let (second, mut third) = (come(&lane, 2).await, come(&lane, 3).await);
        assert_eq!(lane.turn(from(4)).await.err(), Some(RequestError::TooManyRequests));
        drop(turn);
        let turn = second.await.expect("its turn");
        assert!(!is_ready(&mut third).await);
        drop((turn, third));
        drop(lane.turn(from(4)).await.expect("whoever goes away leaves the place to others"));
    }

    #[tokio::test]
    async fn a_turn_that_nobody_takes_any_more_is_the_next_ones() {
        let lane = lane(3);
        let turn = lane.turn(from(1)).await.expect("free");
        let (gone, mut next) = (come(&lane, 2).await, come(&lane, 3).await);
        // Called, and not there any more to hear it.
        drop(turn);
        drop(gone);
        assert!(is_ready(&mut next).await);
        drop(next);
        assert_eq!((lane.waiting.taken(), lane.queue.lock().free), (0, 1));
    }
}
