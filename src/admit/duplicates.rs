//! Whether two operations of one list change the same key (02 §5, E46, E49, E61–E63).
//!
//! A put key must not be put twice nor lie in a delete range of its list, children counted. The
//! order of the checks is etcd's, with its two holes kept: a nested txn's delete is not held against
//! puts of nested txns *before* it (E62; it is then one revision with a PUT and a DELETE), and a
//! delete without an end is held against no put (golden `txn_open_delete`; the order of the
//! operations decides).
//!
//! Nested transactions can multiply the operations, so nothing here is done pairwise: the smaller
//! set is always looked up in, and poured into, the larger, which moves each item O(log n) times.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::apply::Op;
use crate::types::{KeyRange, RangeEnd, RequestError};

/// Checks one branch.
///
/// # Errors
/// `DuplicateKey`.
pub(super) fn check(ops: &[Op]) -> Result<(), RequestError> {
    changes(ops).map(|_| ())
}

/// What a list puts and deletes, children included.
#[derive(Default)]
struct Changes {
    puts: BTreeSet<Bytes>,
    deletes: Ranges,
}

fn changes(ops: &[Op]) -> Result<Changes, RequestError> {
    let mut all = Changes::default();
    for op in ops {
        if let Op::Delete(op) = op {
            all.deletes.insert(&op.range);
        }
    }
    for op in ops {
        if let Op::Txn(op) = op {
            let then = changes(&op.success)?;
            let other = changes(&op.failure)?;
            // A key put in both is fine: only one of them runs.
            let puts = union(then.puts, other.puts);
            all.add_puts(puts)?;
            all.deletes.union(then.deletes);
            all.deletes.union(other.deletes);
        }
    }
    for op in ops {
        if let Op::Put(op) = op
            && (all.deletes.contains(&op.key) || !all.puts.insert(op.key.clone()))
        {
            return Err(RequestError::DuplicateKey);
        }
    }
    Ok(all)
}

impl Changes {
    fn add_puts(&mut self, puts: BTreeSet<Bytes>) -> Result<(), RequestError> {
        if self.deletes.meets(&puts) {
            return Err(RequestError::DuplicateKey);
        }
        let count = self.puts.len() + puts.len();
        self.puts = union(std::mem::take(&mut self.puts), puts);
        if self.puts.len() < count { Err(RequestError::DuplicateKey) } else { Ok(()) }
    }
}

fn union(a: BTreeSet<Bytes>, b: BTreeSet<Bytes>) -> BTreeSet<Bytes> {
    let (mut large, small) = if a.len() < b.len() { (b, a) } else { (a, b) };
    large.extend(small);
    large
}

/// A union of key ranges, kept as disjoint ones: start to end.
#[derive(Default)]
struct Ranges(BTreeMap<Bytes, Bytes>);

impl Ranges {
    fn insert(&mut self, range: &KeyRange) {
        if range.is_empty() {
            return;
        }
        let end = match &range.end {
            RangeEnd::Single => [range.start.as_ref(), &[0]].concat().into(),
            RangeEnd::Before(end) => end.clone(),
            // etcd's check takes the end `\0` for a key before all others, and so the range as empty.
            RangeEnd::Unbounded => return,
        };
        self.insert_from_to(range.start.clone(), end);
    }

    /// Swallows every range that the new one overlaps or touches.
    fn insert_from_to(&mut self, mut start: Bytes, mut end: Bytes) {
        while let Some((other_start, other_end)) = self.last_touching(&start, &end) {
            self.0.remove(&other_start);
            start = start.min(other_start);
            end = end.max(other_end);
        }
        self.0.insert(start, end);
    }

    fn last_touching(&self, start: &Bytes, end: &Bytes) -> Option<(Bytes, Bytes)> {
        let (other_start, other_end) = self.0.range::<Bytes, _>(..=end).next_back()?;
        (other_end >= start).then(|| (other_start.clone(), other_end.clone()))
    }

    fn contains(&self, key: &Bytes) -> bool {
        let before = self.0.range::<Bytes, _>(..=key).next_back();
        before.is_some_and(|(_, end)| key < end)
    }

    /// Whether one of `keys` is in one of the ranges.
    fn meets(&self, keys: &BTreeSet<Bytes>) -> bool {
        if keys.len() <= self.0.len() {
            return keys.iter().any(|key| self.contains(key));
        }
        self.0.iter().any(|(start, end)| keys.range::<Bytes, _>(start..).next().is_some_and(|key| key < end))
    }

    fn union(&mut self, mut other: Self) {
        if self.0.len() < other.0.len() {
            std::mem::swap(self, &mut other);
        }
        for (start, end) in other.0 {
            self.insert_from_to(start, end);
        }
    }
}

#[cfg(test)]
mod tests;
