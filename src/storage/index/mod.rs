//! The key index: a persistent B+tree with generations.
//!
//! ```text
//! Index ─ clone is one Arc ─► frozen for readers
//!   └─ edit: copies the nodes on the way that a reader shares, changes the others in place
//! Leaf: one piece of memory, key [newest version, a few older ones] key […] …; more are out of line;
//!       and beside it what a few of the keys have by now
//! Inner: bounds + children with sums (living keys, digest) ─► count and digest in O(log n)
//! ```
//!
//! It knows revisions, not values: where a version's record lies is its revision. It never reads a disk.

mod build;
mod chunked;
mod delta;
mod entry;
mod history;
mod iter;
mod keys;
mod node;
mod order;
mod packed;
mod patch;
mod rows;
mod spilled;
mod tree;
mod trim;
mod version;
mod warm;

#[cfg(test)]
mod model_tests;

pub(crate) use build::Builder;
pub use entry::Summary;
pub use iter::Iter;
pub(crate) use order::ascending;
pub use rows::Rows;
pub use trim::Trim;
pub use version::{KeyMeta, Version};

use crate::types::{KeyRange, RangeEnd, Revision};
use entry::Entry;
use node::Node;
use packed::Packed;
use tree::Tree;

/// All keys with their kept versions.
#[derive(Clone, Debug, Default)]
pub struct Index {
    tree: Tree<Entry>,
}

impl Index {
    /// Keys that it holds something of, dead ones with a kept tombstone included.
    pub fn len(&self) -> usize {
        self.tree.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.tree.len() == 0
    }

    /// What all keys add up to.
    pub fn summary(&self) -> Summary {
        self.tree.summary()
    }

    /// The living version of `key` now (`None`) or at a main revision.
    pub fn get(&self, key: &[u8], at: Option<i64>) -> Option<Version> {
        self.entry(key)?.live_at(at)
    }

    /// The living versions of `range` now (`None`) or at a main revision, in key order.
    pub fn range<'a>(&'a self, range: &'a KeyRange, at: Option<i64>) -> Iter<'a> {
        Iter::new(self.tree.root(), range, at)
    }

    /// What the keys of `range` add up to now, in O(log n).
    pub fn summary_of(&self, range: &KeyRange) -> Summary {
        if range.is_empty() {
            return Summary::default();
        }
        match &range.end {
            RangeEnd::Single => self.entry(&range.start).map(Packed::summary).unwrap_or_default(),
            RangeEnd::Unbounded => self.summary().minus(self.below(&range.start)),
            RangeEnd::Before(end) => self.below(end).minus(self.below(&range.start)),
        }
    }

    /// Living keys of `range`: now in O(log n), at an older revision by walking.
    pub fn count(&self, range: &KeyRange, at: Option<i64>) -> i64 {
        let count = match at {
            None => self.summary_of(range).live,
            Some(_) => self.range(range, at).count() as u64,
        };
        count.cast_signed()
    }

    /// How many versions of `key` are kept, tombstones included.
    pub fn count_revisions(&self, key: &[u8]) -> usize {
        self.entry(key).map_or(0, Packed::len)
    }

    /// Puts the version that `next` makes of the living one before; returns that one.
    pub fn put(&mut self, key: &[u8], next: impl FnOnce(Option<KeyMeta>) -> Version) -> Option<Version> {
        self.tree.edit(key, |slot| {
            let prev = slot.as_ref().map(|entry| entry.head).filter(Version::is_live);
            let version = next(prev.as_ref().and_then(Version::meta));
            match slot {
                Some(entry) => entry.push(version),
                None => *slot = Some(Entry::new(version)),
            }
            prev
        })
    }

    /// Ends the living generation of `key`; returns its last version, or `None` and changes nothing.
    pub fn tombstone(&mut self, key: &[u8], at: Revision) -> Option<Version> {
        self.get(key, None)?;
        self.put(key, |_| Version::tombstone(at))
    }

    /// Takes the newest version of `key` back, as if it had never been written. `digest` is that of the
    /// version which [`Index::put`] or [`Index::tombstone`] returned; of any other one it doesn't matter.
    pub fn undo(&mut self, key: &[u8], digest: u64) {
        self.tree.edit(key, |slot| {
            *slot = slot.take().and_then(|entry| entry.pop(digest));
        });
    }

    fn entry(&self, key: &[u8]) -> Option<Packed<'_>> {
        self.tree.get(key).map(|(bytes, older)| Packed::new(bytes, older))
    }

    fn from_parts(root: Node<Entry>, summary: Summary, keys: usize) -> Self {
        Self { tree: Tree::from_parts(root, summary, keys) }
    }

    /// What all keys below `key` add up to.
    fn below(&self, key: &[u8]) -> Summary {
        let mut sum = Summary::default();
        let mut node = self.tree.root();
        loop {
            match node {
                Node::Leaf(leaf) => {
                    let upto = leaf.search(key).unwrap_or_else(|at| at);
                    return sum.plus(leaf.summary_upto(upto));
                }
                Node::Inner(inner) => {
                    let at = inner.child_of(key);
                    sum = inner.children.iter().take(at).fold(sum, |sum, child| sum.plus(child.summary));
                    node = &inner.children.at(at).node;
                }
            }
        }
    }
}
