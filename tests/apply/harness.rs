//! A machine with a log of its own, and short words for commands.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rusd::apply::{
    Command, Compare, CompareResult, CompareTarget, DeleteOp, DeleteResult, Machine, Op, Outcome, PutOp, PutResult,
    Response, TxnOp, TxnResult,
};
use rusd::env::{Clock, Env, ManualSpawn, SystemClock};
use rusd::lease::Lessor;
use rusd::storage::backend::{Engine, MemoryImage};
use rusd::storage::mvcc::StoreConfig;
use rusd::storage::{AppliedPosition, Disk, EventBatch, RangeQuery, Store};
use rusd::types::{EventKind, KeyRange, KeyValue, LeaseId, RaftIndex, RequestError, Term};

/// One member without a cluster.
pub(crate) struct Node {
    pub(crate) machine: Machine,
    /// The lessor's origin.
    pub(crate) start: Instant,
    index: u64,
    /// What the last entry published.
    pub(crate) events: Option<Arc<EventBatch>>,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::open(&MemoryImage::default(), &ManualSpawn::default())
    }

    /// On a disk that holds what was there whenever `spawn` last ran "store".
    pub(crate) fn open(disk: &MemoryImage, spawn: &ManualSpawn) -> Self {
        let mut config = StoreConfig::new(Engine::Memory(disk.clone()), "memory");
        config.values.cache_bytes = 4 << 20;
        config.values.flush_interval = Duration::ZERO;
        let env = Env { spawn: Arc::new(spawn.clone()), ..Env::real() };
        let (store, opened) = Store::open(&env, config).unwrap();
        let start = SystemClock.now();
        let (writer, _) = Lessor::new(start);
        let machine = Machine::open(store, &opened, writer).unwrap();
        let index = machine.applied().index.get();
        Self { machine, start, index, events: None }
    }

    /// Goes on after what was applied without this.
    pub(crate) fn resume(&mut self) {
        self.index = self.machine.applied().index.get();
    }

    pub(crate) fn next(&mut self) -> AppliedPosition {
        self.index += 1;
        AppliedPosition { index: RaftIndex(self.index), term: Term(1) }
    }

    /// Applies and publishes one entry with one command.
    pub(crate) fn run(&mut self, command: Command) -> Outcome {
        let position = self.next();
        let mut outcomes = self.machine.apply(position, &[command]).unwrap();
        self.events = self.machine.publish(position).unwrap();
        assert_eq!(outcomes[0].revision, self.revision());
        outcomes.remove(0)
    }

    pub(crate) fn revision(&self) -> i64 {
        self.machine.reader().snapshot().revision()
    }

    /// The events of the last entry: kind, key, main revision.
    pub(crate) fn event_list(&self) -> Vec<(EventKind, String, i64)> {
        let Some(batch) = &self.events else { return Vec::new() };
        let text = |key: &Bytes| String::from_utf8_lossy(key).into_owned();
        batch.events.iter().map(|e| (e.event.kind, text(&e.event.kv.key), e.event.kv.mod_revision)).collect()
    }

    pub(crate) fn get(&self, key: &str) -> Option<KeyValue> {
        let found = self.machine.reader().snapshot().range(&RangeQuery::latest(one(key)), Disk::Allowed).unwrap();
        found.value.kvs.into_iter().next()
    }

    pub(crate) fn put(&mut self, op: PutOp) -> Result<PutResult, RequestError> {
        match self.run(Command::Put(op)).result? {
            Response::Put(result) => Ok(result),
            other => panic!("{other:?} to a put"),
        }
    }

    pub(crate) fn delete(&mut self, range: KeyRange) -> DeleteResult {
        match self.run(Command::DeleteRange(DeleteOp { range, prev_kv: true })).result {
            Ok(Response::DeleteRange(result)) => result,
            other => panic!("{other:?} to a delete"),
        }
    }

    pub(crate) fn txn(&mut self, op: TxnOp) -> Result<TxnResult, RequestError> {
        match self.run(Command::Txn(op)).result? {
            Response::Txn(result) => Ok(result),
            other => panic!("{other:?} to a txn"),
        }
    }

    pub(crate) fn grant(&mut self, id: i64) -> Result<Response, RequestError> {
        self.run(Command::LeaseGrant { id: LeaseId(id), ttl_secs: 100 }).result
    }

    pub(crate) fn keys_of(&self, lease: i64) -> Option<Vec<Bytes>> {
        self.machine.lessor().keys(LeaseId(lease))
    }
}

pub(crate) fn one(key: &str) -> KeyRange {
    KeyRange::single(key.to_owned())
}

pub(crate) fn span(key: &str, end: &str) -> KeyRange {
    KeyRange::from_wire(key.to_owned().into(), end.to_owned().into())
}

pub(crate) fn put(key: &str, value: &str) -> PutOp {
    PutOp { key: key.to_owned().into(), value: value.to_owned().into(), ..PutOp::default() }
}

pub(crate) fn leased(key: &str, value: &str, lease: i64) -> PutOp {
    PutOp { lease: LeaseId(lease), ..put(key, value) }
}

pub(crate) fn op_put(key: &str, value: &str) -> Op {
    Op::Put(put(key, value))
}

pub(crate) fn op_delete(range: KeyRange) -> Op {
    Op::Delete(DeleteOp { range, prev_kv: true })
}

pub(crate) fn op_range(range: KeyRange) -> Op {
    op_range_at(range, 0)
}

pub(crate) fn op_range_at(range: KeyRange, revision: i64) -> Op {
    Op::Range(RangeQuery { revision, ..RangeQuery::latest(range) })
}

pub(crate) fn then(success: Vec<Op>) -> TxnOp {
    TxnOp { success, ..TxnOp::default() }
}

pub(crate) fn compare(range: KeyRange, result: CompareResult, target: CompareTarget) -> Compare {
    Compare { range, result, target }
}

pub(crate) fn equals(key: &str, value: &str) -> Compare {
    compare(one(key), CompareResult::Equal, CompareTarget::Value(value.to_owned().into()))
}

/// A pair in 05's notation.
pub(crate) fn kv(key: &str, value: &str, create: i64, modified: i64, version: i64, lease: i64) -> KeyValue {
    KeyValue {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        create_revision: create,
        mod_revision: modified,
        version,
        lease: LeaseId(lease),
    }
}
