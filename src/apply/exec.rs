//! `Exec`: one command that changes keys, on one `WriteTxn`.
//!
//! A transaction goes in three steps, so that an error leaves nothing behind: which branches are
//! taken (all compares see the state before), whether all that is on that path can be done, and
//! only then the doing.

use bytes::Bytes;

use super::{DeleteOp, DeleteResult, Op, OpResult, PutOp, PutResult, TxnOp, TxnResult, compare};
use crate::lease::Lessor;
use crate::storage::{RangeQuery, RangeResult, WriteTxn};
use crate::types::{LeaseId, Limits, RequestError};

/// A key whose lease changed; `LeaseId::NONE` stands for no lease.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) key: Bytes,
    pub(super) from: LeaseId,
    pub(super) to: LeaseId,
}

/// The running of one command.
pub(super) struct Exec<'a> {
    txn: WriteTxn<'a>,
    lessor: &'a Lessor,
    moved: Vec<Moved>,
    /// Bytes of pairs that the answer holds.
    gathered: usize,
}

/// The branches that a transaction takes, outer before inner, in the order of their running.
type Path = Vec<bool>;

impl<'a> Exec<'a> {
    pub(super) fn new(txn: WriteTxn<'a>, lessor: &'a Lessor) -> Self {
        Self { txn, lessor, moved: Vec::new(), gathered: 0 }
    }

    /// Keeps the changes; the keys whose lease changed, in order.
    pub(super) fn commit(self) -> Vec<Moved> {
        self.txn.commit();
        self.moved
    }

    pub(super) fn put_checked(&mut self, op: &PutOp) -> Result<PutResult, RequestError> {
        self.check_put(op)?;
        self.put(op)
    }

    fn check_put(&self, op: &PutOp) -> Result<(), RequestError> {
        if !op.lease.is_none() && !self.lessor.contains(op.lease) {
            return Err(RequestError::LeaseNotFound);
        }
        if (op.ignore_value || op.ignore_lease) && self.txn.meta_of(&op.key).is_none() {
            return Err(RequestError::KeyNotFound);
        }
        Ok(())
    }

    fn put(&mut self, op: &PutOp) -> Result<PutResult, RequestError> {
        // It was there before the transaction, whose delete without an end has taken it since.
        if (op.ignore_value || op.ignore_lease) && self.txn.meta_of(&op.key).is_none() {
            return Err(RequestError::KeyNotFound);
        }
        let prev = if op.prev_kv || op.ignore_value { self.txn.value_of(&op.key)? } else { None };
        let value = match &prev {
            Some(prev) if op.ignore_value => prev.value.clone(),
            _ => op.value.clone(),
        };
        let lease =
            if op.ignore_lease { self.txn.meta_of(&op.key).map_or(LeaseId::NONE, |meta| meta.lease) } else { op.lease };
        let outcome = self.txn.put(op.key.clone(), value, lease);
        let from = outcome.prev.map_or(LeaseId::NONE, |meta| meta.lease);
        if from != lease {
            self.moved.push(Moved { key: op.key.clone(), from, to: lease });
        }
        Ok(PutResult { prev_kv: prev.filter(|_| op.prev_kv) })
    }

    fn range(&mut self, query: &RangeQuery) -> Result<RangeResult, RequestError> {
        self.txn.range_within(query, &mut self.gathered, Limits::WRITE_ANSWER_BYTES_MAX)
    }

    pub(super) fn delete(&mut self, op: &DeleteOp) -> Result<DeleteResult, RequestError> {
        let prev_kvs = if op.prev_kv { self.range(&RangeQuery::latest(op.range.clone()))?.kvs } else { Vec::new() };
        let deleted = self.txn.delete(&op.range);
        let count = i64::try_from(deleted.len()).unwrap_or(i64::MAX);
        let leased = deleted.into_iter().filter(|(_, meta)| !meta.lease.is_none());
        self.moved.extend(leased.map(|(key, meta)| Moved { key, from: meta.lease, to: LeaseId::NONE }));
        Ok(DeleteResult { deleted: count, prev_kvs })
    }

    pub(super) fn txn_checked(&mut self, op: &TxnOp) -> Result<TxnResult, RequestError> {
        let mut path = Path::new();
        self.choose(op, &mut path)?;
        self.check_txn(op, &mut path.iter().copied())?;
        self.txn(op, &mut path.into_iter())
    }

    /// Finds the branches that are taken, from the state before the transaction.
    fn choose(&self, op: &TxnOp, path: &mut Path) -> Result<(), RequestError> {
        let taken = compare::all_hold(&self.txn, &op.compares)?;
        path.push(taken);
        for op in branch(op, taken) {
            if let Op::Txn(op) = op {
                self.choose(op, path)?;
            }
        }
        Ok(())
    }

    /// Whether all on the path can be done, again from the state before: a read at the revision that
    /// the transaction itself will make is a future one (E45), a key that it creates isn't there yet (E65).
    fn check_txn(&self, op: &TxnOp, path: &mut impl Iterator<Item = bool>) -> Result<(), RequestError> {
        let taken = next(path);
        for op in branch(op, taken) {
            match op {
                Op::Range(query) => self.txn.check_revision(query.revision)?,
                Op::Put(op) => self.check_put(op)?,
                Op::Delete(_) => {}
                Op::Txn(op) => self.check_txn(op, path)?,
            }
        }
        Ok(())
    }

    fn txn(&mut self, op: &TxnOp, path: &mut impl Iterator<Item = bool>) -> Result<TxnResult, RequestError> {
        let succeeded = next(path);
        let mut responses = Vec::with_capacity(branch(op, succeeded).len());
        for op in branch(op, succeeded) {
            responses.push(match op {
                Op::Range(query) => OpResult::Range { result: self.range(query)?, revision: self.txn.revision() },
                Op::Put(op) => OpResult::Put { result: self.put(op)?, revision: self.txn.revision() },
                Op::Delete(op) => OpResult::Delete { result: self.delete(op)?, revision: self.txn.revision() },
                Op::Txn(op) => OpResult::Txn(self.txn(op, path)?),
            });
        }
        Ok(TxnResult { succeeded, responses })
    }
}

fn branch(op: &TxnOp, taken: bool) -> &[Op] {
    if taken { &op.success } else { &op.failure }
}

fn next(path: &mut impl Iterator<Item = bool>) -> bool {
    path.next().expect("`choose` walked the same operations and pushed one branch for each transaction")
}
