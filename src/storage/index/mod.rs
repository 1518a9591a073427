//! The key index: a persistent B+tree with generations.
//!
//! ```text
//! Index ─ clone is one Arc ─► frozen for readers
//!   └─ edit: copies the nodes on the way that a reader shares, changes the others in place
//! Leaf: packed keys + entries [newest version | older ones out of line]
//! Inner: bounds + children with sums (living keys, digest) ─► count and digest in O(log n)
//! ```
//!
//! It knows revisions, not values: where a version's record lies is its revision. It never reads a disk.

mod build;
mod entry;
mod history;
mod iter;
mod keys;
mod node;
mod trim;
mod version;

#[cfg(test)]
mod model_tests;

use std::sync::Arc;

pub(crate) use build::Builder;
pub use entry::Summary;
pub use iter::Iter;
pub use trim::Trim;
pub use version::{KeyMeta, Version};

use crate::types::{KeyRange, RangeEnd, Revision};
use entry::Entry;
use keys::Keys;
use node::{Child, Inner, Leaf, Node, Split};

/// All keys with their kept versions.
///
/// Invariant: `summary` is the sum over all entries, `keys` their number.
#[derive(Clone, Debug)]
pub struct Index {
    root: Node,
    summary: Summary,
    keys: usize,
}

impl Default for Index {
    fn default() -> Self {
        Self { root: Node::Leaf(Arc::default()), summary: Summary::default(), keys: 0 }
    }
}

impl Index {
    /// Keys that it holds something of, dead ones with a kept tombstone included.
    pub fn len(&self) -> usize {
        self.keys
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.keys == 0
    }

    /// What all keys add up to.
    pub fn summary(&self) -> Summary {
        self.summary
    }

    /// The living version of `key` now (`None`) or at a main revision.
    pub fn get(&self, key: &[u8], at: Option<i64>) -> Option<&Version> {
        let entry = self.entry(key)?;
        match at {
            None => Some(&entry.head),
            Some(main) => entry.at(main),
        }
        .filter(|version| version.is_live())
    }

    /// The living versions of `range` now (`None`) or at a main revision, in key order.
    pub fn range<'a>(&'a self, range: &'a KeyRange, at: Option<i64>) -> Iter<'a> {
        Iter::new(&self.root, range, at)
    }

    /// What the keys of `range` add up to now, in O(log n).
    pub fn summary_of(&self, range: &KeyRange) -> Summary {
        if range.is_empty() {
            return Summary::default();
        }
        match &range.end {
            RangeEnd::Single => self.entry(&range.start).map(Entry::summary).unwrap_or_default(),
            RangeEnd::Unbounded => self.summary.minus(self.below(&range.start)),
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
        self.entry(key).map_or(0, |entry| entry.history.len() + 1)
    }

    /// Puts the version that `next` makes of the living one before; returns that one.
    pub fn put(&mut self, key: &[u8], next: impl FnOnce(Option<KeyMeta>) -> Version) -> Option<KeyMeta> {
        self.edit(key, |slot| {
            let prev = slot.as_ref().and_then(Entry::live_meta);
            let version = next(prev);
            match slot {
                Some(entry) => entry.push(version),
                None => *slot = Some(Entry::new(version)),
            }
            prev
        })
    }

    /// Ends the living generation of `key`; returns its last version, or `None` and changes nothing.
    pub fn tombstone(&mut self, key: &[u8], at: Revision) -> Option<KeyMeta> {
        self.get(key, None)?;
        self.put(key, |_| Version::tombstone(at))
    }

    /// Takes the newest version of `key` back, as if it had never been written.
    pub fn undo(&mut self, key: &[u8]) {
        self.edit(key, |slot| {
            *slot = slot.take().and_then(|mut entry| {
                entry.head = entry.history.pop()?;
                Some(entry)
            });
        });
    }

    fn entry(&self, key: &[u8]) -> Option<&Entry> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.keys.search(key).ok().map(|at| &leaf.entries[at]),
                Node::Inner(inner) => node = &inner.children[inner.child_of(key)].node,
            }
        }
    }

    /// What all keys below `key` add up to.
    fn below(&self, key: &[u8]) -> Summary {
        let mut sum = Summary::default();
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => {
                    let upto = leaf.keys.search(key).unwrap_or_else(|at| at);
                    return leaf.entries[..upto].iter().fold(sum, |sum, entry| sum.plus(entry.summary()));
                }
                Node::Inner(inner) => {
                    let at = inner.child_of(key);
                    sum = inner.children[..at].iter().fold(sum, |sum, child| sum.plus(child.summary));
                    node = &inner.children[at].node;
                }
            }
        }
    }

    fn edit<R>(&mut self, key: &[u8], f: impl FnOnce(&mut Option<Entry>) -> R) -> R {
        let keys = &mut self.keys;
        let (result, edited) = self.root.edit(key, |slot| {
            let before = usize::from(slot.is_some());
            let result = f(slot);
            *keys = *keys + usize::from(slot.is_some()) - before;
            result
        });
        self.summary = self.summary.plus(edited.change);
        if let Some(Split { bound, right }) = edited.split {
            self.grow(&bound, right);
        }
        self.shrink();
        result
    }

    fn grow(&mut self, bound: &[u8], right: Child) {
        let left = std::mem::replace(&mut self.root, Node::Leaf(Arc::new(Leaf::default())));
        let left = Child { node: left, summary: self.summary.minus(right.summary) };
        let mut bounds = Keys::default();
        bounds.push(&[]);
        bounds.push(bound);
        self.root = Node::Inner(Arc::new(Inner { bounds, children: vec![left, right] }));
    }

    /// A root with one child isn't needed.
    fn shrink(&mut self) {
        while let Node::Inner(inner) = &self.root
            && let [only] = inner.children.as_slice()
        {
            self.root = only.node.clone();
        }
    }
}
