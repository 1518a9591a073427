//! `Connections`: how many connections a port may have, and who goes when there is no place left.
//!
//! ```text
//! accept ─► Connections::enter ─┬► a place is free ──────────────────────────► Seat ─ dropped ─► free again
//!                               └► none: counted ─► the oldest that asked for nothing goes ─┘
//! Seat ─ Asks::asks at a request ─► it stays (clients, members), or goes only after a rest (probes)
//! ```
//! Whoever connects and says nothing costs a place. As long as there are others that is all; afterwards an honest
//! newcomer comes before it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot};
use tokio::time::Instant;

use crate::types::Places;

/// How long a connection may ask for nothing while others wait for a place. Honest ones ask within a round trip or
/// two, of which a TLS handshake takes some.
const SILENT_MAX: Duration = Duration::from_secs(1);
/// The same since its last request, where a request is all that anybody comes for.
const RESTS_MAX: Duration = Duration::from_secs(15);

/// The bound on a port's connections. Invariant: each [`Seat`] holds one permit.
#[derive(Debug)]
pub struct Connections {
    /// The bound, and how often it was reached; nobody takes a place in it.
    bound: Arc<Places>,
    free: Arc<Semaphore>,
    /// How long one that asked before may rest; `None` is for ever.
    rests_max: Option<Duration>,
    dispensable: Mutex<Dispensable>,
}

/// Those that may be told to go, by when they may.
#[derive(Debug, Default)]
struct Dispensable {
    next: u64,
    open: BTreeMap<(Instant, u64), oneshot::Sender<()>>,
}

impl Dispensable {
    fn add(&mut self, due: Instant, go: oneshot::Sender<()>) -> (Instant, u64) {
        let key = (due, self.next);
        self.next += 1;
        self.open.insert(key, go);
        key
    }
}

impl Connections {
    /// At most `max` at a time; `limit` is the flag that says so, without dashes, for metrics and the log.
    pub fn new(limit: &'static str, max: usize) -> Arc<Self> {
        Self::make(limit, max, None)
    }

    /// The same for pages that are asked for and done with: who has asked for one goes after a while, too.
    pub fn of_probes(limit: &'static str, max: usize) -> Arc<Self> {
        Self::make(limit, max, Some(RESTS_MAX))
    }

    fn make(limit: &'static str, max: usize, rests_max: Option<Duration>) -> Arc<Self> {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        Arc::new(Self {
            bound: Places::new(limit, max),
            free: Arc::new(Semaphore::new(max)),
            rests_max,
            dispensable: Mutex::default(),
        })
    }

    /// How many there may be.
    pub fn max(&self) -> usize {
        self.bound.max()
    }

    /// How many there are.
    pub fn open(&self) -> usize {
        self.bound.max().saturating_sub(self.free.available_permits())
    }

    /// How many had to wait for a place.
    pub fn waited(&self) -> u64 {
        self.bound.refused()
    }

    /// A place for a connection, once there is one.
    pub(super) async fn enter(self: &Arc<Self>) -> Seat {
        let permit = match self.free.clone().try_acquire_owned() {
            Ok(permit) => Some(permit),
            // It is never closed.
            Err(TryAcquireError::Closed) => None,
            Err(TryAcquireError::NoPermits) => {
                self.bound.refuse();
                self.wait_for_place().await
            }
        };
        let (go, told) = oneshot::channel();
        let key = self.dispensable.lock().add(Instant::now() + SILENT_MAX, go);
        let asks = Asks { connections: self.clone(), stays: AtomicBool::new(false), key: Mutex::new(key) };
        Seat { asks: Arc::new(asks), told: Some(told), _permit: permit }
    }

    async fn wait_for_place(&self) -> Option<OwnedSemaphorePermit> {
        let mut free = std::pin::pin!(self.free.clone().acquire_owned());
        loop {
            let again = self.tell_one(Instant::now());
            tokio::select! {
                biased;
                permit = &mut free => return permit.ok(),
                () = tokio::time::sleep_until(again) => {}
            }
        }
    }

    /// Tells the first that may go to do so; when to look again.
    fn tell_one(&self, now: Instant) -> Instant {
        let mut dispensable = self.dispensable.lock();
        let first = dispensable.open.first_entry();
        let due = first.as_ref().map(|first| first.key().0);
        match (first, due) {
            (Some(first), Some(due)) if due <= now => {
                // Gone already if nobody hears it.
                let _ = first.remove().send(());
                now + SILENT_MAX
            }
            (_, due) => due.map_or(now + SILENT_MAX, |due| due.min(now + SILENT_MAX)),
        }
    }
}

/// A connection's place, free again when dropped.
pub(super) struct Seat {
    asks: Arc<Asks>,
    /// None once it can't come any more.
    told: Option<oneshot::Receiver<()>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Seat {
    /// For whoever sees its requests.
    pub(super) fn asks(&self) -> Arc<Asks> {
        self.asks.clone()
    }

    /// Ends when the connection has to go.
    pub(super) async fn told_to_go(&mut self) {
        if let Some(told) = &mut self.told {
            let told = told.await;
            self.told = None;
            if told.is_ok() {
                return;
            }
        }
        // It stays.
        std::future::pending::<()>().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let key = *self.asks.key.lock();
        self.asks.connections.dispensable.lock().open.remove(&key);
    }
}

/// Told of a connection's requests.
#[derive(Debug)]
pub(crate) struct Asks {
    connections: Arc<Connections>,
    /// It can't be told to go any more.
    stays: AtomicBool,
    /// Where it stands among those that may go.
    key: Mutex<(Instant, u64)>,
}

impl Asks {
    /// It has asked for something.
    pub(crate) fn asks(&self) {
        if self.stays.load(Ordering::Relaxed) {
            return;
        }
        let mut key = self.key.lock();
        let mut dispensable = self.connections.dispensable.lock();
        // None if it was told to go meanwhile.
        let go = dispensable.open.remove(&key);
        match (self.connections.rests_max, go) {
            (Some(rests_max), Some(go)) => *key = dispensable.add(Instant::now() + rests_max, go),
            (Some(_), None) => {}
            (None, _) => self.stays.store(true, Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_told(seat: &mut Seat) -> bool {
        tokio::time::timeout(Duration::from_millis(1), seat.told_to_go()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_makes_room_for_who_comes() {
        let connections = Connections::new("max-connections", 3);
        let mut seats = [connections.enter().await, connections.enter().await, connections.enter().await];
        seats[0].asks().asks();
        assert_eq!((connections.open(), connections.waited()), (3, 0));
        let enter = connections.clone();
        let newcomer = tokio::spawn(async move { enter.enter().await });
        tokio::time::sleep(SILENT_MAX / 2).await;
        assert!(!is_told(&mut seats[1]).await, "it is too young");
        tokio::time::sleep(SILENT_MAX).await;
        assert!(!is_told(&mut seats[0]).await && is_told(&mut seats[1]).await && !is_told(&mut seats[2]).await);
        let [asked, silent, other] = seats;
        drop(silent);
        let newcomer = newcomer.await.expect("it came in");
        assert_eq!((connections.open(), connections.waited()), (3, 1));
        drop((asked, other, newcomer));
        assert_eq!(connections.open(), 0);
        assert!(connections.dispensable.lock().open.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_asked_stays_but_on_a_port_of_probes() {
        for (connections, goes) in [(Connections::new("a", 1), false), (Connections::of_probes("b", 1), true)] {
            let mut seat = connections.enter().await;
            tokio::time::sleep(SILENT_MAX).await;
            seat.asks().asks();
            let enter = connections.clone();
            let newcomer = tokio::spawn(async move { enter.enter().await });
            tokio::time::sleep(RESTS_MAX - SILENT_MAX).await;
            assert!(!is_told(&mut seat).await, "it asked a moment ago");
            tokio::time::sleep(3 * SILENT_MAX).await;
            assert_eq!(is_told(&mut seat).await, goes);
            drop(seat);
            drop(newcomer.await.expect("it came in"));
            assert!(connections.dispensable.lock().open.is_empty());
        }
    }
}
