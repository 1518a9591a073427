//! The rules in the plainest form: a map, all its past states, and no care for speed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rusd::apply::{
    AlarmKind, AlarmOp, Command, Compare, CompareResult, CompareTarget, DeleteOp, DeleteResult, Op, OpResult, Outcome,
    PutOp, PutResult, Response, TxnOp, TxnResult,
};
use rusd::storage::{RangeQuery, RangeResult};
use rusd::types::{EventKind, KeyRange, KeyValue, LeaseId, MemberId, RequestError};

type Keys = BTreeMap<Bytes, KeyValue>;

/// Kind, pair (of a delete: only the key), main revision.
pub(crate) type PlainEvent = (EventKind, Bytes, Bytes, i64);

/// The whole state.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) keys: Keys,
    /// The keys after each revision, from revision 1 on.
    past: Vec<Keys>,
    compacted: i64,
    pub(crate) leases: BTreeMap<LeaseId, (i64, i64)>,
    pub(crate) alarms: BTreeSet<(MemberId, AlarmKind)>,
    pub(crate) events: Vec<PlainEvent>,
    /// Whether the command under way has changed something.
    changed: bool,
}

impl Model {
    pub(crate) fn new() -> Self {
        Self {
            keys: Keys::new(),
            past: vec![Keys::new()],
            compacted: -1,
            leases: BTreeMap::new(),
            alarms: BTreeSet::new(),
            events: Vec::new(),
            changed: false,
        }
    }

    pub(crate) fn revision(&self) -> i64 {
        self.past.len() as i64
    }

    pub(crate) fn keys_of(&self, lease: LeaseId) -> Vec<Bytes> {
        self.keys.values().filter(|kv| kv.lease == lease).map(|kv| kv.key.clone()).collect()
    }

    pub(crate) fn apply(&mut self, command: &Command) -> Outcome {
        self.events.clear();
        let before = self.clone();
        let result = self.run(command);
        if result.is_err() {
            *self = before;
        } else {
            self.close();
        }
        Outcome { result, revision: self.revision() }
    }

    fn close(&mut self) {
        if std::mem::take(&mut self.changed) {
            self.past.push(self.keys.clone());
        }
    }

    /// The header's revision now.
    fn header(&self) -> i64 {
        self.revision() + i64::from(self.changed)
    }

    fn run(&mut self, command: &Command) -> Result<Response, RequestError> {
        self.gate(command)?;
        match command {
            Command::Put(op) => {
                self.check_put(op)?;
                Ok(Response::Put(self.put(op)))
            }
            Command::DeleteRange(op) => Ok(Response::DeleteRange(self.delete(op))),
            Command::Txn(op) => {
                let before = self.keys.clone();
                self.check_txn(&before, op)?;
                let saved = self.clone();
                let result = self.txn(&before, op);
                if result.is_err() {
                    *self = saved;
                }
                result.map(Response::Txn)
            }
            Command::Compact { revision } => {
                if *revision <= self.compacted {
                    return Err(RequestError::Compacted);
                }
                if *revision > self.revision() {
                    return Err(RequestError::FutureRevision);
                }
                self.compacted = *revision;
                Ok(Response::Compact)
            }
            Command::LeaseGrant { id, ttl_secs } => {
                if self.leases.contains_key(id) {
                    return Err(RequestError::LeaseExists);
                }
                self.leases.insert(*id, (*ttl_secs, 0));
                Ok(Response::LeaseGrant { id: *id, ttl_secs: *ttl_secs })
            }
            Command::LeaseRevoke { id } => {
                if !self.leases.contains_key(id) {
                    return Err(RequestError::LeaseNotFound);
                }
                self.end(*id);
                Ok(Response::Lease)
            }
            Command::LeaseExpire { ids } => {
                for id in ids {
                    self.end(*id);
                    self.close();
                }
                Ok(Response::Lease)
            }
            Command::LeaseCheckpoint { remaining } => {
                for (id, secs) in remaining {
                    if let Some((ttl, left)) = self.leases.get_mut(id) {
                        *left = if *secs > 0 && *secs < *ttl { *secs } else { 0 };
                    }
                }
                Ok(Response::Lease)
            }
            Command::Alarm(op) => Ok(Response::Alarm(self.alarm(op))),
            Command::Auth(_) | Command::As(_) => panic!("users have a model of their own"),
        }
    }

    fn gate(&self, command: &Command) -> Result<(), RequestError> {
        let raised = |kind| self.alarms.iter().any(|(_, raised)| *raised == kind);
        let grows = match command {
            Command::Alarm(_) | Command::LeaseCheckpoint { .. } => return Ok(()),
            Command::Put(_) | Command::LeaseGrant { .. } => true,
            Command::Txn(op) => puts(op),
            _ => false,
        };
        if raised(AlarmKind::Corrupt) {
            return Err(RequestError::Corrupt);
        }
        if raised(AlarmKind::NoSpace) && grows { Err(RequestError::NoSpace) } else { Ok(()) }
    }

    fn check_put(&self, op: &PutOp) -> Result<(), RequestError> {
        if !op.lease.is_none() && !self.leases.contains_key(&op.lease) {
            return Err(RequestError::LeaseNotFound);
        }
        if (op.ignore_value || op.ignore_lease) && !self.keys.contains_key(&op.key) {
            return Err(RequestError::KeyNotFound);
        }
        Ok(())
    }

    fn put(&mut self, op: &PutOp) -> PutResult {
        let revision = self.revision() + 1;
        let prev = self.keys.get(&op.key).cloned();
        let mut kv = KeyValue {
            key: op.key.clone(),
            value: op.value.clone(),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            lease: op.lease,
        };
        if let Some(prev) = &prev {
            kv.create_revision = prev.create_revision;
            kv.version = prev.version + 1;
            kv.value = if op.ignore_value { prev.value.clone() } else { kv.value };
            kv.lease = if op.ignore_lease { prev.lease } else { kv.lease };
        }
        self.events.push((EventKind::Put, kv.key.clone(), kv.value.clone(), revision));
        self.keys.insert(op.key.clone(), kv);
        self.changed = true;
        PutResult { prev_kv: prev.filter(|_| op.prev_kv) }
    }

    fn delete(&mut self, op: &DeleteOp) -> DeleteResult {
        let revision = self.revision() + 1;
        let gone: Vec<_> = select(&self.keys, &op.range);
        for kv in &gone {
            self.keys.remove(&kv.key);
            self.events.push((EventKind::Delete, kv.key.clone(), Bytes::new(), revision));
            self.changed = true;
        }
        DeleteResult { deleted: gone.len() as i64, prev_kvs: if op.prev_kv { gone } else { Vec::new() } }
    }

    fn end(&mut self, id: LeaseId) {
        if self.leases.remove(&id).is_some() {
            for key in self.keys_of(id) {
                self.delete(&DeleteOp { range: KeyRange::single(key), prev_kv: false });
            }
        }
    }

    fn check_txn(&self, before: &Keys, op: &TxnOp) -> Result<(), RequestError> {
        for op in taken(before, op).1 {
            match op {
                Op::Range(query) if query.revision > self.revision() => return Err(RequestError::FutureRevision),
                Op::Range(query) if query.revision != 0 && query.revision < self.compacted => {
                    return Err(RequestError::Compacted);
                }
                Op::Range(_) | Op::Delete(_) => {}
                Op::Put(op) => self.check_put(op)?,
                Op::Txn(op) => self.check_txn(before, op)?,
            }
        }
        Ok(())
    }

    fn txn(&mut self, before: &Keys, op: &TxnOp) -> Result<TxnResult, RequestError> {
        let (succeeded, ops) = taken(before, op);
        let mut responses = Vec::new();
        for op in ops {
            let response = match op {
                Op::Range(query) => OpResult::Range { result: self.range(query), revision: self.header() },
                // A delete without an end took what it is to keep (where etcd panics).
                Op::Put(op) if (op.ignore_value || op.ignore_lease) && !self.keys.contains_key(&op.key) => {
                    return Err(RequestError::KeyNotFound);
                }
                Op::Put(op) => OpResult::Put { result: self.put(op), revision: self.header() },
                Op::Delete(op) => OpResult::Delete { result: self.delete(op), revision: self.header() },
                Op::Txn(op) => OpResult::Txn(self.txn(before, op)?),
            };
            responses.push(response);
        }
        Ok(TxnResult { succeeded, responses })
    }

    fn range(&self, query: &RangeQuery) -> RangeResult {
        let at = if query.revision > 0 { &self.past[query.revision as usize - 1] } else { &self.keys };
        let mut kvs = select(at, &query.range);
        let count = kvs.len() as i64;
        let limit = if query.limit > 0 { query.limit as usize } else { usize::MAX };
        let more = kvs.len() > limit;
        kvs.truncate(limit);
        if query.count_only {
            return RangeResult { kvs: Vec::new(), more: false, count };
        }
        RangeResult { kvs, more, count }
    }

    fn alarm(&mut self, op: &AlarmOp) -> Vec<(MemberId, AlarmKind)> {
        let Some(kind) = op.kind else { return Vec::new() };
        let alarm = (op.member, kind);
        let named = if op.activate {
            self.alarms.insert(alarm);
            true
        } else {
            self.alarms.remove(&alarm)
        };
        if named { vec![alarm] } else { Vec::new() }
    }
}

fn puts(op: &TxnOp) -> bool {
    op.success.iter().chain(&op.failure).any(|op| match op {
        Op::Put(_) => true,
        Op::Txn(op) => puts(op),
        _ => false,
    })
}

fn select(keys: &Keys, range: &KeyRange) -> Vec<KeyValue> {
    keys.values().filter(|kv| range.contains(&kv.key)).cloned().collect()
}

fn taken<'a>(before: &Keys, op: &'a TxnOp) -> (bool, &'a [Op]) {
    let succeeded = op.compares.iter().all(|compare| holds(before, compare));
    (succeeded, if succeeded { &op.success } else { &op.failure })
}

fn holds(before: &Keys, compare: &Compare) -> bool {
    let found = select(before, &compare.range);
    if !found.is_empty() {
        return found.iter().all(|kv| holds_for(kv, compare));
    }
    !matches!(compare.target, CompareTarget::Value(_)) && holds_for(&KeyValue::default(), compare)
}

fn holds_for(kv: &KeyValue, compare: &Compare) -> bool {
    let order = match &compare.target {
        CompareTarget::Version(given) => kv.version.cmp(given),
        CompareTarget::Create(given) => kv.create_revision.cmp(given),
        CompareTarget::Mod(given) => kv.mod_revision.cmp(given),
        CompareTarget::Value(given) => kv.value.cmp(given),
        CompareTarget::Lease(given) => kv.lease.get().cmp(given),
        CompareTarget::Unknown => std::cmp::Ordering::Equal,
    };
    match compare.result {
        CompareResult::Equal => order.is_eq(),
        CompareResult::Greater => order.is_gt(),
        CompareResult::Less => order.is_lt(),
        CompareResult::NotEqual => order.is_ne(),
        CompareResult::Unknown => true,
    }
}
