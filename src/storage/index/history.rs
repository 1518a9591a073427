//! The older versions of a key with many, out of line: a short list of sorted chunks, newest first.
//!
//! ```text
//! some in the leaf ─► [≤16 newest] ─► [32] ─► [64] ─► … ─► [≤4096 oldest]
//! ```
//!
//! Adding copies one small chunk and now and then joins neighbours of a size, so that a key with a
//! million kept versions costs no more to change than one with ten.

use std::sync::Arc;

use super::Version;

/// Versions in the newest chunk before another one is begun.
const CHUNK_NEW: usize = 16;
/// Versions of the largest chunk, which bounds what one change can copy.
const CHUNK_MAX: usize = 4096;

/// The superseded versions of a key; empty for most keys, then it is one null pointer.
#[derive(Clone, Debug, Default)]
pub(super) struct History(Option<Arc<Chunk>>);

/// Invariant: `versions` ascends, is never empty, and everything in `older` is older.
#[derive(Clone, Debug)]
struct Chunk {
    versions: Vec<Version>,
    older: Option<Arc<Chunk>>,
}

impl History {
    /// From versions in ascending order.
    pub(super) fn from_ascending(versions: &[Version]) -> Self {
        let mut older = None;
        for chunk in versions.chunks(CHUNK_MAX) {
            older = Some(Arc::new(Chunk { versions: chunk.to_vec(), older }));
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
        self.chunks().map(|chunk| chunk.versions.len()).sum()
    }

    /// Adds a version newer than all.
    pub(super) fn push(&mut self, version: Version) {
        if let Some(chunk) = &mut self.0
            && chunk.versions.len() < CHUNK_NEW
        {
            let chunk = Arc::make_mut(chunk);
            super::keys::reserve_few(&mut chunk.versions);
            chunk.versions.push(version);
            return;
        }
        self.join_equals();
        self.0 = Some(Arc::new(Chunk { versions: vec![version], older: self.0.take() }));
    }

    /// Takes the newest version out again.
    pub(super) fn pop(&mut self) -> Option<Version> {
        let chunk = Arc::make_mut(self.0.as_mut()?);
        let version = chunk.versions.pop();
        if chunk.versions.is_empty() {
            self.0 = chunk.older.take();
        }
        version
    }

    /// The newest version written at main revision `at` or before.
    pub(super) fn at(&self, at: i64) -> Option<&Version> {
        let chunk = self.chunks().find(|chunk| chunk.versions.first().is_some_and(|first| first.main() <= at))?;
        let after = chunk.versions.partition_point(|version| version.main() <= at);
        chunk.versions.get(after.checked_sub(1)?)
    }

    /// All of it, oldest first.
    pub(super) fn ascending(&self) -> Vec<Version> {
        let mut chunks: Vec<_> = self.chunks().collect();
        chunks.reverse();
        chunks.iter().flat_map(|chunk| chunk.versions.iter().copied()).collect()
    }

    /// The oldest version.
    pub(super) fn oldest(&self) -> Option<&Version> {
        self.chunks().last()?.versions.first()
    }

    fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        std::iter::successors(self.0.as_deref(), |chunk| chunk.older.as_deref())
    }

    /// Joins the newest chunk with the next ones while those aren't larger.
    fn join_equals(&mut self) {
        while let Some(chunk) = &self.0
            && let Some(older) = &chunk.older
            && older.versions.len() <= chunk.versions.len()
            && older.versions.len() + chunk.versions.len() <= CHUNK_MAX
        {
            let versions = [older.versions.as_slice(), &chunk.versions].concat();
            self.0 = Some(Arc::new(Chunk { versions, older: older.older.clone() }));
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
    use crate::types::Revision;

    fn filled(count: i64) -> History {
        let mut history = History::default();
        for main in 1..=count {
            history.push(Version::tombstone(Revision::new(main * 2, 0)));
        }
        history
    }

    #[test]
    fn every_revision_is_found_among_many() {
        let history = filled(20_000);
        assert_eq!(history.len(), 20_000);
        assert!(history.at(1).is_none());
        for main in [2, 3, 31, 32, 33, 8_191, 39_999, 40_000, 90_000] {
            assert_eq!(history.at(main).map(Version::main), Some((main / 2 * 2).min(40_000)), "at {main}");
        }
        assert_eq!(history.oldest().map(Version::main), Some(2));
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
        history.push(Version::tombstone(Revision::new(1000, 0)));
        assert_eq!((copy.len(), history.len()), (40, 41));
        assert_eq!(History::from_ascending(&history.ascending()).ascending(), history.ascending());
    }

    #[test]
    fn a_long_history_ends_without_deep_recursion() {
        let mut older = None;
        for main in 0..500_000 {
            let versions = vec![Version::tombstone(Revision::new(main, 0))];
            older = Some(Arc::new(Chunk { versions, older }));
        }
        drop(older);
    }
}
