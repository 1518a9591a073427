//! `Entry`: one key's newest version and its older ones; `Summary`: what a subtree adds up to.

use super::history::History;
use super::node::Item;
use super::{KeyMeta, Version};
use crate::types::Revision;

/// A key's state in a leaf.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) head: Version,
    pub(super) history: History,
}

impl Entry {
    pub(super) fn new(head: Version) -> Self {
        Self { head, history: History::default() }
    }

    /// From all versions, oldest first; `None` if there are none.
    pub(super) fn from_ascending(versions: &[Version]) -> Option<Self> {
        let (head, older) = versions.split_last()?;
        Some(Self { head: *head, history: History::from_ascending(older) })
    }

    pub(super) fn push(&mut self, version: Version) {
        self.history.push(std::mem::replace(&mut self.head, version));
    }

    /// The newest version at main revision `at`, tombstones included.
    pub(super) fn at(&self, at: i64) -> Option<&Version> {
        if self.head.main() <= at { Some(&self.head) } else { self.history.at(at) }
    }

    pub(super) fn live_meta(&self) -> Option<KeyMeta> {
        self.head.meta()
    }

    /// Whether [`Entry::trim`] at `at` would take something away.
    pub(super) fn is_trimmable(&self, at: i64) -> bool {
        if self.history.is_empty() {
            return !self.head.is_live() && self.head.main() < at;
        }
        if self.head.main() <= at {
            return true;
        }
        let (Some(oldest), Some(newest)) = (self.history.oldest(), self.history.at(at)) else { return false };
        oldest != newest || (!newest.is_live() && newest.main() < at)
    }

    /// Forgets what a compaction at `at` forgets (02 §6), oldest first into `removed`; `None` if nothing stays.
    ///
    /// The newest version up to `at` stays if it is a put, or if it is a tombstone written at `at`
    /// itself, so that a watcher that begins there still sees the deletion.
    pub(super) fn trim(self, at: i64, removed: &mut Vec<Revision>) -> Option<Self> {
        let mut versions = self.history.ascending();
        versions.push(self.head);
        let upto = versions.partition_point(|version| version.main() <= at);
        let gone = match upto.checked_sub(1).map(|newest| (newest, &versions[newest])) {
            None => 0,
            Some((newest, version)) if version.is_live() || version.main() == at => newest,
            Some((newest, _)) => newest + 1,
        };
        removed.extend(versions.drain(..gone).map(|version| version.modified()));
        Self::from_ascending(&versions)
    }
}

impl Item for Entry {
    fn summary(&self) -> Summary {
        Summary {
            live: u64::from(self.head.is_live()),
            digest: self.head.hash(),
            garbage: u64::from(!self.head.is_live() || !self.history.is_empty()),
        }
    }

    fn vacant(&self) -> Self {
        Self::new(self.head)
    }
}

/// Sums over the keys of a subtree; all wrap, so that a difference is a summary too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Living keys.
    pub live: u64,
    /// Sum of the living versions' record digests.
    pub digest: u64,
    /// Keys that a compaction may find something to forget of.
    pub garbage: u64,
}

impl Summary {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            live: self.live.wrapping_add(other.live),
            digest: self.digest.wrapping_add(other.digest),
            garbage: self.garbage.wrapping_add(other.garbage),
        }
    }

    /// The one without the other.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            live: self.live.wrapping_sub(other.live),
            digest: self.digest.wrapping_sub(other.digest),
            garbage: self.garbage.wrapping_sub(other.garbage),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LeaseId;

    fn put(main: i64) -> Version {
        let meta = KeyMeta { create: 1, modified: Revision::new(main, 0), version: 1, lease: LeaseId::NONE };
        Version::put(meta, 7)
    }

    fn end(main: i64) -> Version {
        Version::tombstone(Revision::new(main, 0))
    }

    /// Mains that stay, and mains that go.
    fn trimmed(versions: &[Version], at: i64) -> (Vec<i64>, Vec<i64>) {
        let entry = Entry::from_ascending(versions).unwrap();
        let trimmable = entry.is_trimmable(at);
        let mut removed = Vec::new();
        let kept = entry.trim(at, &mut removed).map_or(Vec::new(), |entry| {
            entry.history.ascending().iter().chain([&entry.head]).map(Version::main).collect()
        });
        assert_eq!(trimmable, !removed.is_empty(), "the two must agree on {versions:?} at {at}");
        (kept, removed.iter().map(|revision| revision.main).collect())
    }

    #[test]
    fn the_newest_put_up_to_the_revision_stays() {
        let versions = [put(2), put(4), put(6)];
        assert_eq!(trimmed(&versions, 1), (vec![2, 4, 6], vec![]));
        assert_eq!(trimmed(&versions, 3), (vec![2, 4, 6], vec![]));
        assert_eq!(trimmed(&versions, 4), (vec![4, 6], vec![2]));
        assert_eq!(trimmed(&versions, 9), (vec![6], vec![2, 4]));
    }

    #[test]
    fn a_tombstone_goes_unless_it_is_at_the_revision() {
        let versions = [put(2), end(4)];
        assert_eq!(trimmed(&versions, 3), (vec![2, 4], vec![]));
        assert_eq!(trimmed(&versions, 4), (vec![4], vec![2]));
        assert_eq!(trimmed(&versions, 5), (vec![], vec![2, 4]));
        assert_eq!(trimmed(&[end(4)], 4), (vec![4], vec![]));
        assert_eq!(trimmed(&[end(4)], 5), (vec![], vec![4]));
    }

    #[test]
    fn a_later_generation_is_untouched() {
        let versions = [put(2), end(4), put(6), put(8)];
        assert_eq!(trimmed(&versions, 5), (vec![6, 8], vec![2, 4]));
        assert_eq!(trimmed(&versions, 4), (vec![4, 6, 8], vec![2]));
        assert_eq!(trimmed(&versions, 7), (vec![6, 8], vec![2, 4]));
    }
}
