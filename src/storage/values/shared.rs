//! What writer, readers and store thread share.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Condvar;
use tokio::sync::{oneshot, watch};

use super::ValuesConfig;
use super::core::Core;
use super::freeze::Frozen;
use super::front::Front;
use super::hot::Hot;
use super::listed::ListedSlot;
use super::pending::Pending;
use super::queue::Queue;
use crate::env::Env;
use crate::env::sync::Mutex;
use crate::storage::AppliedPosition;
use crate::storage::backend::codec::CodecError;
use crate::storage::backend::{Backend, BackendConfig, Home};
use crate::types::StorageError;

/// How often a read is tried on one engine after the other.
const READ_TRIES: u32 = 3;
/// How long a read waits for an engine that failed to be opened again: the store thread tries it at
/// once, and then every half second.
const REOPEN_MAX: Duration = Duration::from_secs(5);
/// And how long for an opening that is under way by then: those of sled wait for all that the machine has to write.
const OPENING_MAX: Duration = Duration::from_secs(60);

/// How the store thread is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Writing.
    Good,
    /// Waiting for room on the disk or for an engine that failed to come back; the text is for the
    /// operator. Nothing is lost, and `append` waits once the pending budget is used up.
    Waiting(String),
    /// Over: nothing will be durable any more and appends are refused. Readers go on.
    Failed(String),
}

#[derive(Debug)]
pub(super) struct Shared {
    env: Env,
    backend: BackendConfig,
    /// The engine of now; another one after a failure that was survived.
    pub(super) engine: ArcSwap<Arc<dyn Backend>>,
    /// The engine failed under a read.
    pub(super) suspect: AtomicBool,
    /// Whether the store thread has ended; with it, readers wait for another engine.
    over: Mutex<bool>,
    engine_change: Condvar,
    /// The store thread is opening an engine that failed.
    is_opening: AtomicBool,
    /// The store was given up as this process can't open it again.
    pub(super) is_stuck: AtomicBool,
    pub(super) pending: Arc<Pending>,
    pub(super) pending_bytes_max: u64,
    /// Pending bytes from which a flush is begun at once.
    pub(super) flush_at: AtomicU64,
    pub(super) hot: Hot,
    pub(super) front: Front,
    pub(super) queue: Queue,
    /// The store thread's.
    pub(super) core: Mutex<Core>,
    pub(super) durable: watch::Sender<AppliedPosition>,
    pub(super) health: watch::Sender<Health>,
    /// Logical bytes of all records: appended ones count at once, removed ones when they go.
    pub(super) logical_bytes: AtomicU64,
    /// The list of a large segment, for the next page of a walk.
    pub(super) listed: ListedSlot,
    /// Records that are to be removed.
    pub(super) removals: AtomicUsize,
    pub(super) dir: Arc<Path>,
    /// Whoever needs all records to stay: while there are some, none is removed.
    pub(super) holds: AtomicUsize,
}

impl Shared {
    /// Why nothing will be durable any more, if so.
    pub(super) fn failed(&self) -> Option<String> {
        match &*self.health.borrow() {
            Health::Failed(why) => Some(why.clone()),
            _ => None,
        }
    }

    /// Whether the store thread serves no more, by failure or because its writer is gone. To be asked
    /// after adding to the queue: the thread empties it after it has said so.
    fn is_over(&self) -> bool {
        self.failed().is_some() || *self.over.lock()
    }

    /// Has the store thread flush at once; the future gives the position that then is durable.
    pub(super) fn flush(&self) -> impl Future<Output = Result<AppliedPosition, StorageError>> + Send + use<> {
        let (sender, receiver) = oneshot::channel();
        self.queue.add(|work| {
            work.waiters.push((AppliedPosition::default(), sender));
            work.urgent = true;
        });
        if self.is_over() {
            // Nobody will take it any more: let the waiter see its sender go.
            self.queue.forsake();
        }
        async move { receiver.await.map_err(|_| StorageError::Closed("the storage engine was given up".into())) }
    }

    /// Asks for the small tables as of the last append before this.
    pub(super) fn freeze(&self) -> impl Future<Output = Result<Frozen, StorageError>> + Send + use<> {
        let (sender, receiver) = oneshot::channel();
        self.queue.add(|work| {
            work.freeze(sender);
            work.urgent = true;
        });
        if self.is_over() {
            // Nobody will take it any more: let whoever asked see the sender go.
            self.queue.forsake();
        }
        let gone = || StorageError::Closed("the storage engine was given up".into());
        async move { receiver.await.unwrap_or_else(|_| Err(gone())) }
    }

    pub(super) fn new(env: &Env, engine: Arc<dyn Backend>, config: &ValuesConfig, core: Core) -> Self {
        let state = core.content.state;
        let pending_bytes_max = (config.cache_bytes / 4).max(1 << 20);
        Self {
            env: env.clone(),
            backend: config.backend.clone(),
            engine: ArcSwap::from_pointee(engine),
            suspect: AtomicBool::new(false),
            over: Mutex::new(false),
            engine_change: Condvar::new(),
            is_opening: AtomicBool::new(false),
            is_stuck: AtomicBool::new(false),
            pending: Arc::default(),
            pending_bytes_max,
            flush_at: AtomicU64::new(config.flush_bytes.min(pending_bytes_max / 2)),
            hot: Hot::new(config.cache_bytes / 2 - config.cache_bytes / 64),
            front: Front::new(config.cache_bytes / 64),
            queue: Queue::default(),
            core: Mutex::new(core),
            durable: watch::Sender::new(state.position),
            health: watch::Sender::new(Health::Good),
            logical_bytes: AtomicU64::new(state.records.bytes),
            listed: ListedSlot::default(),
            removals: AtomicUsize::new(0),
            dir: config.backend.dir.as_path().into(),
            holds: AtomicUsize::new(0),
        }
    }

    pub(super) fn now(&self) -> Instant {
        self.env.clock.now()
    }

    pub(super) fn engine(&self) -> Arc<dyn Backend> {
        Arc::clone(&self.engine.load())
    }

    /// Runs `read` on the engine; again if it was replaced by another one meanwhile. An engine that
    /// fails under it refuses everything from then on: the store thread opens it again, and that is
    /// waited for. The store thread itself doesn't come here.
    pub(super) fn read<T>(
        &self,
        mut read: impl FnMut(&dyn Backend) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let engine = self.engine();
            let result = read(&*engine);
            match &result {
                Ok(_) | Err(StorageError::Mismatch(_)) => return result,
                Err(error @ StorageError::Damaged { .. }) => {
                    self.condemn(error);
                    return result;
                }
                Err(_) if tries == READ_TRIES || !self.wait_for_another(&engine) => {
                    return result.map_err(|error| self.explained(error));
                }
                Err(_) => {}
            }
        }
    }

    /// Has the store thread open the engine again, unless it was already; whether there is another one now.
    fn wait_for_another(&self, failed: &Arc<dyn Backend>) -> bool {
        let is_same = |over: &mut bool| !*over && self.failed().is_none() && Arc::ptr_eq(failed, &self.engine());
        let mut over = self.over.lock();
        if is_same(&mut over) {
            self.suspect.store(true, Ordering::Release);
            self.queue.wake();
            self.engine_change.wait_while_for(&mut over, is_same, REOPEN_MAX);
            let is_under_way = |over: &mut bool| is_same(over) && self.is_opening.load(Ordering::Acquire);
            self.engine_change.wait_while_for(&mut over, is_under_way, OPENING_MAX);
        }
        !Arc::ptr_eq(failed, &self.engine())
    }

    /// That an engine is closed says nothing to whoever reads: why it couldn't be opened again does.
    fn explained(&self, error: StorageError) -> StorageError {
        match (error, &*self.health.borrow()) {
            (StorageError::Closed(_), Health::Waiting(why)) => {
                StorageError::Closed(format!("it can't be opened again: {why}"))
            }
            (error, _) => error,
        }
    }

    /// Says until it is dropped that a failed engine is being opened again.
    pub(super) fn opening(&self) -> Opening<'_> {
        self.is_opening.store(true, Ordering::Release);
        Opening(self)
    }

    /// Puts another engine in place, for those who wait for it, too.
    pub(super) fn replace_engine(&self, engine: Arc<dyn Backend>) -> Arc<dyn Backend> {
        let old = self.engine.swap(Arc::new(engine));
        let _over = self.over.lock();
        self.engine_change.notify_all();
        Arc::clone(&old)
    }

    /// The store thread has ended: no other engine will come.
    pub(super) fn set_over(&self) {
        *self.over.lock() = true;
        self.engine_change.notify_all();
    }

    /// An error for bytes of the engine that are not what was written; the store is given up.
    pub(super) fn damaged(&self, what: impl std::fmt::Display) -> StorageError {
        let error = StorageError::Damaged { path: self.dir.to_path_buf(), offset: 0, what: what.to_string() };
        self.condemn(&error);
        error
    }

    /// Ends the store for good, unless it is over already; whether this was the end.
    pub(super) fn fail(&self, why: String) -> bool {
        let is_first = self.health.send_if_modified(|health| {
            let is_first = !matches!(health, Health::Failed(_));
            if is_first {
                *health = Health::Failed(why);
            }
            is_first
        });
        // The thread lets go of what it has, and a writer that waits for room finds out.
        self.queue.wake();
        let _over = self.over.lock();
        self.engine_change.notify_all();
        is_first
    }

    /// Gives up a store in which damage was met. A start doesn't read values, so it would not meet
    /// the damage by itself: it is told by a mark.
    pub(super) fn condemn(&self, error: &StorageError) {
        let text = error.to_string();
        if self.fail(text.clone())
            && let Err(error) = Home::condemn(&self.env, &self.backend, &text)
        {
            tracing::error!(%error, "the damaged store could not be marked; the next start may open it again");
        }
    }

    pub(super) fn undecodable(&self, what: impl std::fmt::Display, error: CodecError) -> StorageError {
        self.damaged(format_args!("{what}: {error}"))
    }
}

/// See [`Shared::opening`].
pub(super) struct Opening<'a>(&'a Shared);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.is_opening.store(false, Ordering::Release);
        let _over = self.0.over.lock();
        self.0.engine_change.notify_all();
    }
}
