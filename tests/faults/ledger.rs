//! What was asked, and what was answered: the clients' side of the truth.
//!
//! A worker has one request under way at a time, so of each worker at most one attempt per fault is
//! [`Outcome::Unknown`]: it took effect once or not at all. What was answered took effect exactly
//! there where the answer said.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::history::Change;

/// A change that was asked for.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    Put { key: Bytes, value: Bytes, lease: i64 },
    Delete { key: Bytes },
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is under way, or its answer never came.
    Unknown,
    /// It took effect at this revision.
    At(i64),
    /// It changed nothing, or was refused.
    Nothing,
}

/// One request that may change keys.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) worker: usize,
    /// In order; with an outcome of `At`, only those that took effect.
    pub(crate) wishes: Vec<Wish>,
    pub(crate) outcome: Outcome,
}

/// How far the end of a lease has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Revoke {
    No,
    Asked,
    Done,
}

/// A lease; its keys belong to it alone.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) ttl: i64,
    pub(crate) granted: bool,
    pub(crate) keys: Vec<Bytes>,
    pub(crate) revoke: Revoke,
}

/// Keys of leases begin so.
pub(crate) const LEASE_PREFIX: &str = "lease/";

/// Everything that clients know.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) leases: BTreeMap<i64, Lease>,
    /// The highest revision that any answer's header named.
    pub(crate) revision_max: i64,
    /// The highest compaction that was answered, and that was asked for.
    pub(crate) compacted: i64,
    pub(crate) compact_asked: i64,
    /// Refusals that say that nothing happened, by their text.
    pub(crate) refusals: BTreeMap<String, usize>,
    /// What workers saw that can't be.
    pub(crate) faults: Vec<String>,
}

impl Ledger {
    /// Attempts that were answered with a revision.
    pub(crate) fn acknowledged(&self) -> usize {
        self.attempts.iter().filter(|attempt| matches!(attempt.outcome, Outcome::At(_))).count()
    }

    /// Holds the history against what was asked and answered.
    ///
    /// # Errors
    /// The first thing that doesn't agree.
    pub(crate) fn compare(&self, changes: &[Change]) -> Result<(), String> {
        if !self.faults.is_empty() {
            return Err(format!("{:#?}", self.faults));
        }
        let mut groups: BTreeMap<i64, &[Change]> = BTreeMap::new();
        for group in changes.chunk_by(|a, b| a.revision == b.revision) {
            if groups.insert(group[0].revision, group).is_some() {
                return Err(format!("a revision came twice: {group:?}"));
            }
        }
        for attempt in &self.attempts {
            if let Outcome::At(revision) = attempt.outcome {
                match groups.remove(&revision) {
                    None => return Err(format!("acknowledged and lost, or answered twice: {attempt:?}")),
                    Some(group) if !attempt.explains(group) => {
                        return Err(format!("acknowledged: {attempt:?}\nhappened: {group:?}"));
                    }
                    Some(_) => {}
                }
            }
        }
        // What is left was unknown to those who asked, or is the end of a lease.
        let mut unknown: BTreeSet<usize> =
            (0..self.attempts.len()).filter(|at| self.attempts[*at].outcome == Outcome::Unknown).collect();
        for (revision, group) in groups {
            if group.iter().all(|change| self.is_end_of_lease(change)) {
                continue;
            }
            let fits = |at: &&usize| {
                let (after, before) = self.neighbours(**at);
                after < revision && revision < before && self.attempts[**at].explains(group)
            };
            let found = unknown.iter().find(fits).copied();
            let found = found.ok_or_else(|| format!("nobody asked for this, or it took effect twice: {group:?}"))?;
            unknown.remove(&found);
        }
        Ok(())
    }

    /// The revisions between which an attempt must have taken effect: those of the same worker's
    /// attempts before and after it.
    fn neighbours(&self, at: usize) -> (i64, i64) {
        let worker = self.attempts[at].worker;
        let revision = |attempt: &Attempt| match attempt.outcome {
            Outcome::At(revision) if attempt.worker == worker => Some(revision),
            _ => None,
        };
        let before = self.attempts[..at].iter().rev().find_map(revision);
        let after = self.attempts[at..].iter().find_map(revision);
        (before.unwrap_or(0), after.unwrap_or(i64::MAX))
    }

    fn is_end_of_lease(&self, change: &Change) -> bool {
        change.put.is_none() && self.leases.values().any(|lease| lease.may_end() && lease.keys.contains(&change.key))
    }
}

impl Attempt {
    /// Whether the changes of one revision are this attempt's.
    fn explains(&self, group: &[Change]) -> bool {
        let mut left = group.iter().peekable();
        for wish in &self.wishes {
            match wish {
                Wish::Put { key, value, lease } => {
                    let same = |change: &Change| {
                        let put = change.put.as_ref();
                        change.key == key && put.is_some_and(|put| put.value == value && put.lease == *lease)
                    };
                    if left.next_if(|change| same(change)).is_none() {
                        return false;
                    }
                }
                Wish::Delete { key } => {
                    let found = left.next_if(|change| change.key == key && change.put.is_none()).is_some();
                    // What an unanswered delete met isn't known.
                    if !found && self.outcome != Outcome::Unknown {
                        return false;
                    }
                }
            }
        }
        left.next().is_none()
    }
}

impl Lease {
    /// TTLs below this end by themselves in the course of a test.
    pub(crate) const LONG_SECS: i64 = 600;

    /// Whether its end would be no fault.
    pub(crate) fn may_end(&self) -> bool {
        self.revoke > Revoke::No || self.ttl < Self::LONG_SECS
    }
}

#[cfg(test)]
mod tests {
    use rusd_proto::mvccpb::KeyValue;

    use super::*;

    fn put(revision: i64, key: &'static str, value: &'static str) -> Change {
        let kv = KeyValue { value: value.into(), ..KeyValue::default() };
        Change { revision, key: key.into(), put: Some(kv) }
    }

    fn wish(key: &'static str, value: &'static str) -> Wish {
        Wish::Put { key: key.into(), value: value.into(), lease: 0 }
    }

    fn attempt(wishes: Vec<Wish>, outcome: Outcome) -> Attempt {
        Attempt { worker: 0, wishes, outcome }
    }

    #[test]
    fn it_finds_a_lost_a_doubled_and_an_invented_write() {
        let answered = attempt(vec![wish("a", "1")], Outcome::At(2));
        let unknown = attempt(vec![wish("a", "2"), Wish::Delete { key: "b".into() }], Outcome::Unknown);
        let ledger = Ledger { attempts: vec![answered, unknown], ..Ledger::default() };
        assert_eq!(ledger.compare(&[put(2, "a", "1")]), Ok(()));
        assert_eq!(ledger.compare(&[put(2, "a", "1"), put(3, "a", "2")]), Ok(()));
        let fails = |changes: &[Change]| ledger.compare(changes).is_err();
        assert!(fails(&[]), "lost");
        assert!(fails(&[put(3, "a", "1")]), "moved");
        assert!(fails(&[put(2, "a", "x")]), "changed");
        assert!(fails(&[put(2, "a", "1"), put(3, "a", "2"), put(4, "a", "2")]), "twice");
        assert!(fails(&[put(2, "a", "1"), put(3, "a", "3")]), "invented");
    }
}
