//! The older versions of a key with many, out of line: a short list of packed chunks, newest first.
//!
//! ```text
//! some in the leaf ─► [≤32 newest] ─► [64] ─► [128] ─► … ─► [≤2048 oldest]
//! ```
//!
//! Adding copies one small chunk and now and then joins neighbours of a size, so that a key with a
//! million kept versions costs no more to change than one with ten. A chunk has its newest version in
//! full and the others as [`delta`] has them.

use std::sync::Arc;

use super::Version;
use super::delta::{self, Older};
use super::packed::Buffer;
use crate::types::Revision;

/// Versions in the newest chunk before another one is begun.
const CHUNK_NEW: usize = 32;
/// Versions of the largest chunk, which bounds what one change can copy and one read goes through.
const CHUNK_MAX: usize = 2048;

/// The superseded versions of a key; empty for most keys, then it is one null pointer.
#[derive(Clone, Debug, Default)]
pub(super) struct History(Option<Arc<Chunk>>);

/// Invariant: everything in `older` is older.
#[derive(Debug)]
struct Chunk {
    newest: Version,
    /// The others, newest first.
    rest: Box<[u8]>,
    /// How many, the newest included.
    count: usize,
    /// Where the oldest was written.
    oldest: Revision,
    older: Option<Arc<Chunk>>,
}

impl Chunk {
    /// Of versions that ascend; `None` if there are none.
    fn from_ascending(versions: &[Version], older: Option<Arc<Self>>) -> Option<Self> {
        let (newest, before) = versions.split_last()?;
        let mut rest = Buffer::new();
        let mut next = newest;
        for version in before.iter().rev() {
            delta::write(&mut rest, version, next);
            next = version;
        }
        let (newest, rest) = (newest.with_hash(0), (&rest[..]).into());
        Some(Self { newest, rest, count: versions.len(), oldest: next.modified(), older })
    }

    fn newest_first(&self) -> impl Iterator<Item = Version> {
        std::iter::once(self.newest).chain(Older::new(self.newest, &self.rest))
    }

    /// Both in one; `older` is what comes right behind.
    fn join(&self, older: &Self) -> Self {
        let mut rest = Buffer::from_slice(&self.rest);
        delta::write(&mut rest, &older.newest, &self.newest_first().last().unwrap_or(self.newest));
        rest.extend_from_slice(&older.rest);
        Self {
            newest: self.newest,
            rest: (&rest[..]).into(),
            count: self.count + older.count,
            oldest: older.oldest,
            older: older.older.clone(),
        }
    }
}

impl History {
    /// From versions in ascending order.
    pub(super) fn from_ascending(versions: &[Version]) -> Self {
        let mut older = None;
        for chunk in versions.chunks(CHUNK_MAX) {
            older = Chunk::from_ascending(chunk, older).map(Arc::new);
        }
        Self(older)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether they are one and the same, not only alike.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(mine), Some(theirs)) => Arc::ptr_eq(mine, theirs),
            (None, None) => true,
            _ => false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.chunks().map(|chunk| chunk.count).sum()
    }

    /// Adds versions newer than all, which ascend.
    pub(super) fn add(&mut self, versions: &[Version]) {
        let Some(mut new) = Chunk::from_ascending(versions, None) else { return };
        match &self.0 {
            Some(chunk) if chunk.count < CHUNK_NEW => new = new.join(chunk),
            _ => {
                self.join_equals();
                new.older = self.0.take();
            }
        }
        self.0 = Some(Arc::new(new));
    }

    /// Takes the newest version out again.
    pub(super) fn pop(&mut self) -> Option<Version> {
        let chunk = self.0.as_ref()?;
        let version = chunk.newest;
        let mut others = Older::new(version, &chunk.rest);
        self.0 = match others.next() {
            None => chunk.older.clone(),
            Some(newest) => {
                let (rest, count) = (others.rest().into(), chunk.count - 1);
                Some(Arc::new(Chunk { newest, rest, count, oldest: chunk.oldest, older: chunk.older.clone() }))
            }
        };
        Some(version)
    }

    /// The newest version written at main revision `at` or before.
    pub(super) fn at(&self, at: i64) -> Option<Version> {
        let chunk = self.chunks().find(|chunk| chunk.oldest.main <= at)?;
        chunk.newest_first().find(|version| version.main() <= at)
    }

    /// All of it, newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = Version> {
        self.chunks().flat_map(Chunk::newest_first)
    }

    /// Where the oldest version was written.
    pub(super) fn oldest(&self) -> Option<Revision> {
        self.chunks().last().map(|chunk| chunk.oldest)
    }

    fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        std::iter::successors(self.0.as_deref(), |chunk| chunk.older.as_deref())
    }

    /// Joins the newest chunk with the next ones while those aren't larger.
    fn join_equals(&mut self) {
        while let Some(chunk) = &self.0
            && let Some(older) = &chunk.older
            && older.count <= chunk.count
            && older.count + chunk.count <= CHUNK_MAX
        {
            self.0 = Some(Arc::new(chunk.join(older)));
        }
    }
}

impl Drop for Chunk {
    /// One after the other: the default would go as deep as the list is long.
    fn drop(&mut self) {
        let mut next = self.older.take();
        while let Some(mut chunk) = next.and_then(Arc::into_inner) {
            next = chunk.older.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ascending(history: &History) -> Vec<Version> {
        let mut versions: Vec<_> = history.newest_first().collect();
        versions.reverse();
        versions
    }

    fn filled(count: i64) -> History {
        let mut history = History::default();
        for main in 1..=count {
            history.add(&[Version::tombstone(Revision::new(main * 2, 0))]);
        }
        history
    }

    #[test]
    fn every_revision_is_found_among_many() {
        let history = filled(20_000);
        assert_eq!(history.len(), 20_000);
        assert!(history.at(1).is_none());
        for main in [2, 3, 31, 32, 33, 8_191, 39_999, 40_000, 90_000] {
            assert_eq!(history.at(main).map(|version| version.main()), Some((main / 2 * 2).min(40_000)), "at {main}");
        }
        assert_eq!(history.oldest().map(|at| at.main), Some(2));
        assert!(history.chunks().count() < 30, "{} chunks", history.chunks().count());
    }

    #[test]
    fn popping_is_the_inverse_of_pushing() {
        let mut history = filled(100);
        for main in (1..=100).rev() {
            assert_eq!(history.pop().map(|version| version.main()), Some(main * 2));
        }
        assert!(history.is_empty() && history.pop().is_none());
    }

    #[test]
    fn a_copy_keeps_what_it_had() {
        let mut history = filled(40);
        let copy = history.clone();
        history.add(&[Version::tombstone(Revision::new(1000, 0))]);
        assert_eq!((copy.len(), history.len()), (40, 41));
        assert_eq!(ascending(&History::from_ascending(&ascending(&history))), ascending(&history));
    }

    #[test]
    fn a_long_history_ends_without_deep_recursion() {
        let mut older = None;
        for main in 0..500_000 {
            older = Chunk::from_ascending(&[Version::tombstone(Revision::new(main, 0))], older).map(Arc::new);
        }
        drop(older);
    }
}
