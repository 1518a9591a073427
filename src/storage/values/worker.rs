//! The store thread: takes what came in, commits it, publishes what is durable.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};

use super::ValuesConfig;
use super::commit::Committer;
use super::queue::Work;
use super::shared::{Health, Shared};
use super::state::{STATE_KEY, State};
use crate::env::{Env, Step, Worker};
use crate::storage::backend::{self, Table};
use crate::storage::{Record, VersionRecord};
use crate::types::{Revision, StorageError};

/// How long after a failure the work is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// Failures of an engine (a full disk doesn't count) in a row after which it is given up.
const FAILURES_MAX: u32 = 5;

#[derive(Debug)]
pub(super) struct StoreWorker {
    shared: Arc<Shared>,
    env: Env,
    config: ValuesConfig,
    committer: Committer,
    /// What was taken and isn't durable.
    work: Work,
    /// When the work that waits is to be taken, or the failed work tried again.
    due: Option<Instant>,
    failures: u32,
    /// The engine failed and may hold a part of the work: it must be opened again first.
    reopen: bool,
}

impl Worker for StoreWorker {
    fn step(&mut self) -> Step {
        let (waiting, urgent) = self.shared.queue.look();
        let failed = self.failures > 0 || self.reopen;
        if !waiting && self.work.is_empty() {
            return Step::Idle;
        }
        let now = self.env.clock.now();
        let due = *self.due.get_or_insert(now + self.config.flush_interval);
        if now < due && (failed || !urgent) {
            return Step::IdleFor(due - now);
        }
        self.due = None;
        let new = self.shared.queue.take();
        self.work.merge(new);
        match self.attempt() {
            Ok(()) if self.work.last && self.work.remove.is_empty() => self.end(),
            Ok(()) => Step::Worked,
            Err(error) => self.failed(&error),
        }
    }
}

impl StoreWorker {
    pub(super) fn new(env: Env, shared: Arc<Shared>, config: ValuesConfig, state: State) -> Self {
        let committer = Committer::new(Arc::clone(&shared), state);
        let work = Work::default();
        Self { shared, env, config, committer, work, due: None, failures: 0, reopen: false }
    }

    fn attempt(&mut self) -> Result<(), StorageError> {
        if self.reopen {
            self.reopen()?;
        }
        // Until the commit is through, the engine may hold a part of it.
        self.reopen = true;
        self.commit()?;
        (self.reopen, self.failures) = (false, 0);
        Ok(())
    }

    fn end(&self) -> Step {
        if let Err(error) = self.shared.engine().close() {
            tracing::warn!(%error, "closing the storage engine failed");
        }
        Step::Stopped
    }

    fn failed(&mut self, error: &StorageError) -> Step {
        let full = matches!(error, StorageError::Full { .. });
        self.failures = self.failures.saturating_add(u32::from(!full));
        if self.work.last || self.failures > FAILURES_MAX || matches!(error, StorageError::Damaged { .. }) {
            tracing::error!(%error, "the storage engine is given up; nothing more becomes durable");
            self.shared.health.send_replace(Health::Failed(error.to_string()));
            // Whoever waits for a flush sees its sender go.
            self.work = Work::default();
            drop(self.shared.queue.take());
            self.shared.queue.signal_room();
            return Step::Stopped;
        }
        if self.shared.health.send_replace(Health::Waiting(error.to_string())) == Health::Good {
            tracing::warn!(%error, "the storage engine can't take writes; they wait in memory and in the log");
        }
        self.due = Some(self.env.clock.now() + RETRY_INTERVAL);
        Step::IdleFor(RETRY_INTERVAL)
    }

    /// Commits what is there, up to one step's worth of removals.
    fn commit(&mut self) -> Result<(), StorageError> {
        let step = self.work.remove.len().min(self.config.remove_step);
        let remove: Vec<Revision> = self.work.remove.range(..step).copied().collect();
        let bytes_before = self.committer.state().records.bytes;
        self.committer.commit(&self.work, &remove)?;
        let state = *self.committer.state();

        let appended = self.keep_hot();
        for at in &remove {
            self.shared.hot.remove(*at);
        }
        let removed = bytes_before.wrapping_add(appended).wrapping_sub(state.records.bytes);
        self.shared.logical_bytes.fetch_sub(removed, Ordering::Relaxed);

        let mut done = std::mem::take(&mut self.work);
        self.work.remove = done.remove.split_off(step);
        self.work.last = done.last;
        if let Some((_, last)) = done.mains {
            self.shared.pending.retire(last, done.bytes);
        }
        self.shared.queue.signal_room();
        self.shared.durable.send_if_modified(|position| std::mem::replace(position, state.position) != state.position);
        self.shared.health.send_if_modified(|health| std::mem::replace(health, Health::Good) != Health::Good);
        for waiter in done.waiters {
            let _ = waiter.send(state.position);
        }
        Ok(())
    }

    /// Moves the records that are durable now to the hot cache; returns their logical bytes.
    fn keep_hot(&self) -> u64 {
        let Some((first, last)) = self.work.mains else {
            return 0;
        };
        let mut bytes = 0;
        let view = self.shared.pending.view();
        for (at, record) in view.range(Revision::new(first, 0), Revision::new(last.saturating_add(1), 0)) {
            bytes += super::record_bytes(record);
            if record.version.is_some() {
                self.shared.hot.insert(at, detached(record));
            }
        }
        bytes
    }

    /// Takes the engine up again after a failure: it must hold what the last flush left.
    fn reopen(&mut self) -> Result<(), StorageError> {
        let _ = self.shared.engine().close();
        let engine = backend::open(&self.env, &self.config.backend)?;
        let stored = engine.get(Table::Meta, STATE_KEY)?;
        let state = stored.map_or(Ok(State::default()), |bytes| State::decode(&bytes));
        let state = state.map_err(|error| self.shared.undecodable("the state row", error))?;
        if state != *self.committer.state() {
            return Err(self.shared.damaged("an engine that failed came back with another state"));
        }
        self.committer = Committer::new(Arc::clone(&self.shared), state);
        self.shared.engine.store(Arc::new(engine));
        Ok(())
    }
}

/// The record in one allocation of its own: what came off the wire is a slice of a whole frame,
/// and keeping the slice would keep the frame.
fn detached(record: &Record) -> Record {
    let value = record.version.as_ref().map_or(&[][..], |version| &version.value);
    let mut both = BytesMut::with_capacity(record.key.len() + value.len());
    both.put_slice(&record.key);
    both.put_slice(value);
    let both: Bytes = both.freeze();
    Record {
        key: both.slice(..record.key.len()),
        version: record
            .version
            .as_ref()
            .map(|version| VersionRecord { value: both.slice(record.key.len()..), ..version.clone() }),
    }
}
