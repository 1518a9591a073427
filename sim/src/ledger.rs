//! `Ledger`: what was published, by revision, as the members themselves say it.
//!
//! The first member that publishes a revision enters it; every later publish of the same revision, by
//! any member after any crash, must say the same. Revisions are the total order of all writes, so the
//! ledger is the witness that the other oracles hold answers and events against.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::history::Micros;

/// A living version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kv {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// Revision in which this generation began.
    pub create: i64,
    /// Revision of this version.
    pub modified: i64,
    /// How often it was written in this generation.
    pub version: i64,
    /// Its lease; 0 is none.
    pub lease: i64,
}

/// One change of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was written.
    Put(Kv),
    /// It was deleted.
    Delete(Bytes),
}

impl Change {
    /// The key.
    pub fn key(&self) -> &Bytes {
        match self {
            Self::Put(kv) => &kv.key,
            Self::Delete(key) => key,
        }
    }
}

/// A revision.
#[derive(Clone, Debug)]
pub struct Block {
    /// What changed, in order.
    pub changes: Vec<Change>,
    /// When the first member published it.
    pub seen: Micros,
}

/// All revisions.
#[derive(Debug, Default)]
pub struct Ledger {
    blocks: BTreeMap<i64, Block>,
    keys: BTreeMap<Bytes, BTreeMap<i64, Option<Kv>>>,
    tags: BTreeMap<Bytes, i64>,
}

impl Ledger {
    /// The revision of an empty store.
    pub const EMPTY: i64 = 1;

    /// Enters what a member published, or compares it.
    ///
    /// # Errors
    /// What contradicts what was entered before.
    pub fn publish(&mut self, revision: i64, changes: Vec<Change>, now: Micros) -> Result<(), String> {
        if let Some(block) = self.blocks.get(&revision) {
            return if block.changes == changes {
                Ok(())
            } else {
                Err(format!("revision {revision} was {:?} and is now {changes:?}", block.changes))
            };
        }
        if revision != self.top() + 1 {
            return Err(format!("revision {revision} follows {}", self.top()));
        }
        for change in &changes {
            self.enter(revision, change)?;
        }
        self.blocks.insert(revision, Block { changes, seen: now });
        Ok(())
    }

    fn enter(&mut self, revision: i64, change: &Change) -> Result<(), String> {
        let before = self.at(change.key(), revision - 1).cloned();
        let after = match change {
            Change::Delete(key) if before.is_none() => {
                return Err(format!("revision {revision} deletes {key:?}, which wasn't there"));
            }
            Change::Delete(_) => None,
            Change::Put(kv) => {
                let (create, version) = before.map_or((revision, 1), |before| (before.create, before.version + 1));
                if (kv.create, kv.version, kv.modified) != (create, version, revision) {
                    return Err(format!("revision {revision} puts {kv:?}: created {create}, version {version}"));
                }
                if let Some(other) = self.tags.insert(kv.value.clone(), revision) {
                    return Err(format!("{:?} was written twice: in revisions {other} and {revision}", kv.value));
                }
                Some(kv.clone())
            }
        };
        self.keys.entry(change.key().clone()).or_default().insert(revision, after);
        Ok(())
    }

    /// The last revision.
    pub fn top(&self) -> i64 {
        self.blocks.last_key_value().map_or(Self::EMPTY, |(revision, _)| *revision)
    }

    /// One revision.
    pub fn block(&self, revision: i64) -> Option<&Block> {
        self.blocks.get(&revision)
    }

    /// Revisions from one on.
    pub fn from(&self, revision: i64) -> impl Iterator<Item = (i64, &Block)> {
        self.blocks.range(revision..).map(|(revision, block)| (*revision, block))
    }

    /// The revision that wrote this value; every write has its own.
    pub fn tag(&self, value: &Bytes) -> Option<i64> {
        self.tags.get(value).copied()
    }

    /// A key as of a revision.
    pub fn at(&self, key: &Bytes, revision: i64) -> Option<&Kv> {
        self.keys.get(key)?.range(..=revision).next_back()?.1.as_ref()
    }

    /// The living keys with a prefix as of a revision, in order.
    pub fn range_at(&self, prefix: &[u8], revision: i64) -> Vec<&Kv> {
        let from = Bytes::copy_from_slice(prefix);
        let inside = self.keys.range(from..).take_while(|(key, _)| key.starts_with(prefix));
        inside.filter_map(|(_, versions)| versions.range(..=revision).next_back()?.1.as_ref()).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A version as `Ledger` expects it.
    pub(crate) fn kv(key: &str, value: &str, create: i64, modified: i64, version: i64) -> Kv {
        let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
        Kv { key, value, create, modified, version, lease: 0 }
    }

    /// a=1 in 2, a=2 in 3, b=3 in 4, a deleted in 5; each seen at its revision times 1000.
    pub(crate) fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        let changes = [
            Change::Put(kv("a", "1", 2, 2, 1)),
            Change::Put(kv("a", "2", 2, 3, 2)),
            Change::Put(kv("b", "3", 4, 4, 1)),
            Change::Delete(Bytes::from_static(b"a")),
        ];
        for (revision, change) in (2..).zip(changes) {
            ledger.publish(revision, vec![change], 1000 * revision as u64).unwrap();
        }
        ledger
    }

    #[test]
    fn it_shows_each_key_as_of_each_revision() {
        let ledger = ledger();
        let a = Bytes::from_static(b"a");
        assert_eq!(ledger.at(&a, 2).unwrap().value, "1");
        assert_eq!(ledger.at(&a, 4).unwrap().value, "2");
        assert_eq!(ledger.at(&a, 5), None);
        assert_eq!(ledger.range_at(b"", 4).len(), 2);
        assert_eq!(ledger.range_at(b"b", 3).len(), 0);
        assert_eq!(ledger.tag(&Bytes::from_static(b"2")), Some(3));
    }

    #[test]
    fn a_revision_that_changes_or_is_left_out_is_found() {
        let mut ledger = ledger();
        let other = vec![Change::Put(kv("a", "9", 2, 3, 2))];
        assert!(ledger.publish(3, other, 0).unwrap_err().contains("is now"));
        assert!(ledger.publish(7, vec![], 0).unwrap_err().contains("follows 5"));
    }

    #[test]
    fn a_write_that_is_applied_twice_is_found() {
        let mut ledger = ledger();
        let again = vec![Change::Put(kv("b", "3", 4, 6, 2))];
        assert!(ledger.publish(6, again, 0).unwrap_err().contains("twice"));
    }

    #[test]
    fn versions_that_do_not_follow_are_found() {
        let mut ledger = ledger();
        assert!(ledger.publish(6, vec![Change::Put(kv("b", "4", 4, 6, 3))], 0).is_err());
        assert!(self::ledger().publish(6, vec![Change::Delete(Bytes::from_static(b"a"))], 0).is_err());
    }
}
