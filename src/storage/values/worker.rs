//! The store thread: takes what came in, commits it, publishes what is durable.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::ValuesConfig;
use super::commit::Committer;
use super::queue::Work;
use super::shared::{Health, Shared};
use super::state::{STATE_KEY, State};
use crate::storage::backend::{self, Table};
use crate::storage::{Record, VersionRecord};
use crate::types::{Revision, StorageError};

/// How long after a failure the work is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);
/// Failures of an engine (a full disk doesn't count) in a row after which it is given up.
const FAILURES_MAX: u32 = 5;

#[derive(Debug)]
pub(super) struct Worker {
    shared: Arc<Shared>,
    config: ValuesConfig,
    committer: Committer,
    /// What was taken and isn't durable.
    work: Work,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, config: ValuesConfig, state: State) -> Self {
        let committer = Committer::new(Arc::clone(&shared), state);
        Self { shared, config, committer, work: Work::default() }
    }

    /// Works until the last piece is durable or the engine is given up.
    pub(super) fn run(mut self) {
        let mut failures = 0;
        loop {
            let new = self.shared.queue.take(self.config.flush_interval, !self.work.is_empty());
            self.work.merge(new);
            match self.step() {
                Ok(()) => {
                    failures = 0;
                    if self.work.last && self.work.remove.is_empty() {
                        break;
                    }
                }
                Err(error) => {
                    let full = matches!(error, StorageError::Full { .. });
                    failures += u32::from(!full);
                    if self.work.last || failures > FAILURES_MAX || matches!(error, StorageError::Damaged { .. }) {
                        return self.fail(&error);
                    }
                    self.shared.health.send_replace(Health::Waiting(error.to_string()));
                    std::thread::sleep(RETRY_INTERVAL);
                    if let Err(error) = self.reopen() {
                        tracing::warn!(%error, "the storage engine can't be opened again yet");
                        failures += 1;
                    }
                }
            }
        }
        if let Err(error) = self.shared.engine().close() {
            tracing::warn!(%error, "closing the storage engine failed");
        }
    }

    /// Commits what is there, up to one step's worth of removals.
    pub(super) fn step(&mut self) -> Result<(), StorageError> {
        if self.work.is_empty() {
            return Ok(());
        }
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
        let engine = backend::open(&self.config.backend)?;
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

    fn fail(self, error: &StorageError) {
        tracing::error!(%error, "the storage engine is given up; nothing more becomes durable");
        self.shared.health.send_replace(Health::Failed(error.to_string()));
        self.shared.queue.signal_room();
    }

    /// For the inline mode: takes and commits what there is.
    pub(super) fn drain(&mut self) -> Result<(), StorageError> {
        let new = self.shared.queue.take_now();
        self.work.merge(new);
        while !self.work.is_empty() {
            if let Err(error) = self.step() {
                self.shared.health.send_replace(Health::Failed(error.to_string()));
                return Err(error);
            }
            if self.work.last && self.work.remove.is_empty() {
                return self.shared.engine().close();
            }
        }
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
