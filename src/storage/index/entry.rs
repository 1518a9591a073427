//! `Entry`: one key's newest version and its older ones; `Summary`: what a subtree adds up to.

use smallvec::SmallVec;

use super::Version;
use super::delta::{self, Older};
use super::history::History;
use super::node::Item;
use super::packed::{self, Buffer, Packed};
use super::spilled::Spill;
use crate::types::Revision;

/// Superseded versions that stay in the leaf. More are moved out of line all at once, so that one
/// change in so many touches what is there.
pub(super) const RECENT_MAX: usize = 16;

/// A key's state, taken out of its leaf to be looked at or changed.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) head: Version,
    /// The newest superseded ones as [`delta`] has them, and how many.
    pub(super) recent: Buffer,
    pub(super) recent_len: usize,
    /// Those before.
    pub(super) older: History,
}

impl Entry {
    pub(super) fn new(head: Version) -> Self {
        Self { head, recent: Buffer::new(), recent_len: 0, older: History::default() }
    }

    /// From all versions, oldest first; `None` if there are none.
    pub(super) fn from_ascending(versions: &[Version]) -> Option<Self> {
        let (head, before) = versions.split_last()?;
        let (older, in_leaf) = before.split_at(before.len().saturating_sub(RECENT_MAX));
        let (mut recent, mut next) = (Buffer::new(), head);
        for version in in_leaf.iter().rev() {
            delta::write(&mut recent, version, next);
            next = version;
        }
        Some(Self { head: *head, recent, recent_len: in_leaf.len(), older: History::from_ascending(older) })
    }

    /// All versions, newest first.
    fn newest_first(&self) -> impl Iterator<Item = Version> {
        let recent = Older::new(self.head, &self.recent);
        std::iter::once(self.head).chain(recent).chain(self.older.newest_first())
    }

    /// All versions, oldest first.
    pub(super) fn ascending(&self) -> Vec<Version> {
        let mut versions: Vec<_> = self.newest_first().collect();
        versions.reverse();
        versions
    }

    pub(super) fn push(&mut self, version: Version) {
        if self.recent_len == RECENT_MAX {
            let mut moved: SmallVec<[Version; RECENT_MAX]> = Older::new(self.head, &self.recent).collect();
            moved.reverse();
            self.older.add(&moved);
            (self.recent_len, self.recent) = (0, Buffer::new());
        }
        let before = std::mem::replace(&mut self.head, version);
        let mut recent = Buffer::new();
        delta::write(&mut recent, &before, &version);
        recent.extend_from_slice(&self.recent);
        self.recent = recent;
        self.recent_len += 1;
    }

    /// Takes the newest version out again; `None` if it was the only one. `digest` is that of the one before.
    pub(super) fn pop(mut self, digest: u64) -> Option<Self> {
        let mut recent = Older::new(self.head, &self.recent);
        match recent.next() {
            Some(newest) => {
                let rest = Buffer::from_slice(recent.rest());
                (self.head, self.recent, self.recent_len) = (newest, rest, self.recent_len - 1);
            }
            None => self.head = self.older.pop()?,
        }
        self.head = self.head.with_hash(digest);
        Some(self)
    }

    /// Forgets what a compaction at `at` forgets (02 §6), oldest first into `removed`; `None` if nothing stays.
    ///
    /// The newest version up to `at` stays if it is a put, or if it is a tombstone written at `at`
    /// itself, so that a watcher that begins there still sees the deletion.
    pub(super) fn trim(self, at: i64, removed: &mut Vec<Revision>) -> Option<Self> {
        let (mut kept, mut is_found) = (0, false);
        let mut gone = Vec::new();
        for version in self.newest_first() {
            let is_newest = version.main() <= at && !std::mem::replace(&mut is_found, true);
            if version.main() > at || is_newest && (version.is_live() || version.main() == at) {
                kept += 1;
            } else {
                gone.push(version.modified());
            }
        }
        removed.extend(gone.iter().rev());
        self.keep(kept)
    }

    /// The newest so many versions; `None` if that is none.
    fn keep(mut self, count: usize) -> Option<Self> {
        let before = count.checked_sub(1)?;
        if before > self.recent_len {
            let versions = self.ascending();
            return Self::from_ascending(&versions[versions.len().saturating_sub(count)..]);
        }
        let mut recent = Older::new(self.head, &self.recent);
        let kept = recent.by_ref().take(before).count();
        let len = self.recent.len() - recent.rest().len();
        self.recent.truncate(len);
        (self.recent_len, self.older) = (kept, History::default());
        Some(self)
    }
}

impl Packed<'_> {
    /// Whether [`Entry::trim`] at `at` would take something away.
    pub(super) fn is_trimmable(self, at: i64) -> bool {
        let Some(newest) = self.at(at) else { return false };
        self.oldest() != newest.modified() || (!newest.is_live() && newest.main() < at)
    }
}

impl Item for Entry {
    type Spill = History;

    fn pack(self, out: &mut Buffer) -> Option<History> {
        self.write(out);
        (!self.older.is_empty()).then_some(self.older)
    }

    fn unpack(bytes: &[u8], spill: Spill<'_, History>) -> Self {
        Packed::new(bytes, spill).to_entry()
    }

    fn summary(bytes: &[u8]) -> Summary {
        packed::summary(bytes)
    }

    fn is_same(left: &History, right: &History) -> bool {
        left.is_same(right)
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
    use super::super::KeyMeta;
    use super::super::spilled::Spilled;
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
        let mut bytes = Buffer::new();
        entry.write(&mut bytes);
        let spilled = Spilled::default();
        let trimmable = Packed::new(&bytes, spilled.get(0)).is_trimmable(at);
        let mut removed = Vec::new();
        let kept = entry
            .trim(at, &mut removed)
            .map_or(Vec::new(), |entry| entry.ascending().iter().map(Version::main).collect());
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

    #[test]
    fn popping_is_the_inverse_of_pushing() {
        let mut entry = Entry::new(put(1));
        (2..50).for_each(|main| entry.push(put(main)));
        for main in (2..50).rev() {
            assert_eq!(entry.ascending().iter().map(Version::main).collect::<Vec<_>>(), (1..=main).collect::<Vec<_>>());
            assert_eq!(entry.head.hash(), 7);
            entry = entry.pop(7).unwrap();
        }
        assert!(entry.pop(0).is_none());
    }
}
