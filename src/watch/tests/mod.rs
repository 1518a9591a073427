//! The hub and its streams against a plain model of the store, without tasks and sockets.
//!
//! [`World`] is a store whose history is a list, with a hub over it; [`Client`] is one stream and reads what it
//! wrote with the generated types.

mod follow;
mod histories;
mod model;
mod progress;
mod replay;
mod requests;
mod schedules;
mod slow;
mod threads;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use prost::Message;
use rusd_proto::etcdserverpb::WatchResponse;
use rusd_proto::mvccpb;

use super::encode::HeaderIds;
use super::history::HistorySource;
use super::hub::WatchHub;
use super::limits::WatchLimits;
use super::output::Output;
use super::request::{CreateWatch, WatchRequest};
use super::stream::{Job, Step, StreamCore};
use crate::storage::{EventBatch, EventEntry, History, HistoryError, Record, VersionRecord};
use crate::types::{Event, EventKind, KeyRange, KeyValue, LeaseId, Revision, StorageError};

/// One change of a transaction.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Put(&'static str, Vec<u8>),
    Delete(KeyRange),
}

#[derive(Debug, Default)]
struct State {
    /// Everything ever written, in order; compaction only raises `compacted`.
    records: BTreeMap<Revision, Record>,
    current: i64,
    compacted: i64,
}

impl State {
    fn living(&self, key: &[u8], at: i64) -> Option<(Revision, KeyValue)> {
        let upto = self.records.range(..Revision::new(at + 1, 0));
        let (revision, record) = upto.rev().find(|(_, record)| record.key == key)?;
        record.key_value(*revision).map(|kv| (*revision, kv))
    }

    /// What compaction leaves readable at or above `compacted`: the newest version of each key at or below it, unless
    /// that is a tombstone below it.
    fn readable(&self, at: Revision, record: &Record) -> bool {
        let newer = || {
            let later = self.records.range(Revision::new(at.main, at.sub + 1)..Revision::new(self.compacted + 1, 0));
            later.into_iter().any(|(_, other)| other.key == record.key)
        };
        at.main > self.compacted || (!newer() && (record.version.is_some() || at.main == self.compacted))
    }
}

/// A store as plain as can be.
#[derive(Debug, Default)]
pub(super) struct ModelStore {
    state: Mutex<State>,
    /// `cached` finds nothing: everything has to be asked from the disk.
    pub(super) cold: AtomicBool,
}

impl HistorySource for ModelStore {
    fn revision(&self) -> i64 {
        self.state.lock().current
    }

    fn events(&self, from_main: i64, revisions_max: usize, bytes_max: usize) -> Result<History, HistoryError> {
        let state = self.state.lock();
        if from_main < state.compacted {
            return Err(HistoryError::Compacted(state.compacted));
        }
        let (mut events, mut bytes): (Vec<Event>, usize) = (Vec::new(), 0);
        let last = state.current.min(from_main + revisions_max as i64 - 1);
        let mut next_main = last + 1;
        for (at, record) in state.records.range(Revision::new(from_main, 0)..Revision::new(last + 1, 0)) {
            if bytes >= bytes_max && events.last().is_some_and(|event| event.revision.main != at.main) {
                next_main = at.main;
                break;
            }
            if state.readable(*at, record) {
                let event = record.event(*at);
                bytes += event.kv.key.len() + event.kv.value.len();
                events.push(event);
            }
        }
        Ok(History { events, next_main })
    }

    fn cached(&self, at: Revision) -> Option<Record> {
        if self.cold.load(Ordering::Relaxed) { None } else { self.state.lock().records.get(&at).cloned() }
    }

    fn record(&self, at: Revision) -> Result<Option<Record>, StorageError> {
        let state = self.state.lock();
        Ok(state.records.get(&at).filter(|record| state.readable(at, record)).cloned())
    }

    fn previous(&self, key: &[u8], mod_revision: i64) -> Result<Option<KeyValue>, StorageError> {
        let state = self.state.lock();
        if mod_revision - 1 < state.compacted {
            return Ok(None);
        }
        Ok(state.living(key, mod_revision - 1).map(|(_, kv)| kv))
    }
}

/// A store and its hub.
#[derive(Clone)]
pub(super) struct World {
    pub(super) store: Arc<ModelStore>,
    pub(super) hub: WatchHub,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(WatchLimits::default())
    }

    pub(super) fn with(limits: WatchLimits) -> Self {
        let store = Arc::new(ModelStore::default());
        store.state.lock().current = 1;
        let hub = WatchHub::new(Arc::clone(&store), limits);
        Self { store, hub }
    }

    pub(super) fn revision(&self) -> i64 {
        self.store.revision()
    }

    /// Applies transactions, each at a revision of its own, and gives the batch to be said to the hub.
    pub(super) fn publish(&self, txns: &[Vec<Change>]) -> Option<Arc<EventBatch>> {
        let mut state = self.store.state.lock();
        let first_main = state.current + 1;
        let mut events = Vec::new();
        for txn in txns {
            let main = state.current + 1;
            let mut sub = 0;
            for change in txn {
                for (key, value) in state.spread(change) {
                    let prev = state.living(&key, main);
                    let version = value.map(|value| VersionRecord {
                        value,
                        create_revision: prev.as_ref().map_or(main, |(_, kv)| kv.create_revision),
                        version: prev.as_ref().map_or(1, |(_, kv)| kv.version + 1),
                        lease: LeaseId::NONE,
                    });
                    let (at, record) = (Revision::new(main, sub), Record { key, version });
                    events.push(EventEntry::new(record.event(at), prev.map(|(at, _)| at)));
                    state.records.insert(at, record);
                    sub += 1;
                }
            }
            if sub > 0 {
                state.current = main;
            }
        }
        let last_main = state.current;
        (!events.is_empty()).then(|| Arc::new(EventBatch { first_main, last_main, events }))
    }

    /// Applies and says it.
    pub(super) fn batch(&self, txns: &[Vec<Change>]) {
        let batch = self.publish(txns);
        self.hub.notify(batch, self.revision());
    }

    pub(super) fn put(&self, key: &'static str, value: &str) {
        self.batch(&[vec![Change::Put(key, value.into())]]);
    }

    pub(super) fn delete(&self, key: &'static str) {
        self.batch(&[vec![Change::Delete(KeyRange::single(key))]]);
    }

    pub(super) fn compact(&self, revision: i64) {
        self.store.state.lock().compacted = revision;
    }

    pub(super) fn client(&self) -> Client {
        let ids = HeaderIds { cluster_id: 11, member_id: 22, raft_term: 33 };
        Client {
            core: StreamCore::new(self.hub.clone(), Arc::new(move || ids), false),
            hub: self.hub.clone(),
            out: Output::default(),
            bytes: BytesMut::new(),
            jobs: Vec::new(),
        }
    }
}

impl State {
    /// The single keys that a change is about, with their new values.
    fn spread(&self, change: &Change) -> Vec<(Bytes, Option<Bytes>)> {
        match change {
            Change::Put(key, value) => vec![(Bytes::from_static(key.as_bytes()), Some(value.clone().into()))],
            Change::Delete(range) => {
                let mut keys: Vec<&Bytes> = self.records.values().map(|record| &record.key).collect();
                keys.sort_unstable();
                keys.dedup();
                let alive = |key: &&&Bytes| range.contains(key) && self.living(key, self.current).is_some();
                keys.iter().filter(alive).map(|key| ((*key).clone(), None)).collect()
            }
        }
    }
}

impl HistorySource for Arc<ModelStore> {
    fn revision(&self) -> i64 {
        ModelStore::revision(self)
    }

    fn events(&self, from_main: i64, revisions_max: usize, bytes_max: usize) -> Result<History, HistoryError> {
        ModelStore::events(self, from_main, revisions_max, bytes_max)
    }

    fn cached(&self, at: Revision) -> Option<Record> {
        ModelStore::cached(self, at)
    }

    fn record(&self, at: Revision) -> Result<Option<Record>, StorageError> {
        ModelStore::record(self, at)
    }

    fn previous(&self, key: &[u8], mod_revision: i64) -> Result<Option<KeyValue>, StorageError> {
        ModelStore::previous(self, key, mod_revision)
    }
}

/// One stream, read when the test says so.
pub(super) struct Client {
    pub(super) core: StreamCore,
    hub: WatchHub,
    out: Output,
    bytes: BytesMut,
    jobs: Vec<Job>,
}

impl Client {
    pub(super) fn send(&mut self, request: WatchRequest) {
        self.core.request(request, &mut self.out);
    }

    pub(super) fn create(&mut self, create: CreateWatch) {
        self.send(WatchRequest::Create(create));
    }

    /// Creates a watcher and reads the answer, which must be a plain "created".
    pub(super) fn created(&mut self, create: CreateWatch) -> i64 {
        self.create(create);
        let response = self.next().expect("an answer to the create");
        assert!(response.created && !response.canceled, "{response:?}");
        response.watch_id
    }

    /// Lets the stream write one chunk, without running jobs that it asks for.
    pub(super) fn step(&mut self) -> Step {
        let step = self.core.advance(&mut self.out);
        while let Some(job) = self.core.take_job() {
            self.jobs.push(job);
        }
        while let Some(chunk) = self.out.take() {
            self.bytes.extend_from_slice(&chunk);
        }
        step
    }

    /// Runs one job that was asked for; whether there was any.
    pub(super) fn work(&mut self) -> bool {
        let Some(job) = self.jobs.pop() else { return false };
        self.core.finish(job.run(&self.hub));
        true
    }

    /// Runs until nothing happens any more.
    pub(super) fn settle(&mut self) -> Step {
        loop {
            let step = self.step();
            if !self.work() && !matches!(step, Step::Full) {
                return step;
            }
        }
    }

    /// The next response that was written already.
    pub(super) fn next(&mut self) -> Option<WatchResponse> {
        while let Some(chunk) = self.out.take() {
            self.bytes.extend_from_slice(&chunk);
        }
        if self.bytes.is_empty() {
            return None;
        }
        assert_eq!(self.bytes.get_u8(), 0);
        let len = self.bytes.get_u32() as usize;
        Some(WatchResponse::decode(self.bytes.split_to(len)).expect("a response"))
    }

    /// Everything up to now.
    pub(super) fn read(&mut self) -> Vec<WatchResponse> {
        self.settle();
        std::iter::from_fn(|| self.next()).collect()
    }

    /// The same, each response in short: id, header revision, events as `+key@rev` and `-key@rev`.
    pub(super) fn brief(&mut self) -> Vec<String> {
        self.read().iter().map(brief).collect()
    }
}

pub(super) fn brief(response: &WatchResponse) -> String {
    let mut text = format!("{}@{}", response.watch_id, response.header.as_ref().map_or(-1, |header| header.revision));
    for (flag, word) in
        [(response.created, " created"), (response.canceled, " canceled"), (response.fragment, " fragment")]
    {
        if flag {
            text.push_str(word);
        }
    }
    if response.compact_revision != 0 {
        text.push_str(&format!(" compacted {}", response.compact_revision));
    }
    if !response.cancel_reason.is_empty() {
        text.push_str(&format!(" ({})", response.cancel_reason));
    }
    for event in &response.events {
        text.push_str(&format!(" {}", brief_event(event)));
    }
    text
}

pub(super) fn brief_event(event: &mvccpb::Event) -> String {
    let kv = event.kv.as_ref().expect("an event has a pair");
    let sign = if event.r#type == i32::from(event_type(EventKind::Put)) { '+' } else { '-' };
    let prev = event.prev_kv.as_ref().map_or(String::new(), |prev| format!("/{}", prev.mod_revision));
    format!("{sign}{}@{}{prev}", String::from_utf8_lossy(&kv.key), kv.mod_revision)
}

fn event_type(kind: EventKind) -> mvccpb::event::EventType {
    match kind {
        EventKind::Put => mvccpb::event::EventType::Put,
        EventKind::Delete => mvccpb::event::EventType::Delete,
    }
}

pub(super) fn watch(range: KeyRange) -> CreateWatch {
    CreateWatch::of(range)
}
