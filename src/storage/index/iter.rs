//! Walking a range in key order, at the newest state or at an older revision.

use smallvec::SmallVec;

use super::Version;
use super::entry::Entry;
use super::node::{Inner, Leaf, Node};
use super::packed::Packed;
use crate::types::{KeyRange, RangeEnd};

/// The living versions of a range at one revision, in key order.
#[derive(Debug)]
pub struct Iter<'a> {
    /// The inner nodes above the current leaf, each with the child to go to next.
    above: SmallVec<[(&'a Inner<Entry>, usize); 6]>,
    leaf: Option<&'a Leaf<Entry>>,
    /// The next place in the leaf, and the first one that isn't in the range any more.
    next: usize,
    stop: usize,
    range: &'a KeyRange,
    /// `None` is the newest state.
    at: Option<i64>,
}

impl<'a> Iter<'a> {
    pub(super) fn new(root: &'a Node<Entry>, range: &'a KeyRange, at: Option<i64>) -> Self {
        let mut iter = Self { above: SmallVec::new(), leaf: None, next: 0, stop: 0, range, at };
        if !range.is_empty() {
            let leaf = iter.descend(root, |inner| inner.child_of(&range.start));
            iter.enter(leaf);
            iter.next = leaf.search(&range.start).unwrap_or_else(|at| at);
        }
        iter
    }

    fn descend(&mut self, mut node: &'a Node<Entry>, choose: impl Fn(&Inner<Entry>) -> usize) -> &'a Leaf<Entry> {
        loop {
            match node {
                Node::Leaf(leaf) => return leaf,
                Node::Inner(inner) => {
                    let at = choose(inner);
                    self.above.push((inner, at + 1));
                    node = &inner.children.at(at).node;
                }
            }
        }
    }

    fn enter(&mut self, leaf: &'a Leaf<Entry>) {
        self.stop = match &self.range.end {
            RangeEnd::Unbounded => leaf.len(),
            RangeEnd::Before(end) => leaf.search(end).unwrap_or_else(|at| at),
            RangeEnd::Single => leaf.search(&self.range.start).map_or_else(|at| at, |at| at + 1),
        };
        self.next = 0;
        self.leaf = Some(leaf);
    }

    /// The next leaf that can hold something; none if the current one is the last of the range.
    fn advance(&mut self) -> Option<()> {
        if self.stop < self.leaf.take()?.len() {
            return None;
        }
        loop {
            let (inner, next) = self.above.last_mut()?;
            let Some(child) = inner.children.get(*next) else {
                self.above.pop();
                continue;
            };
            *next += 1;
            if self.at.is_none() && child.summary.live == 0 {
                continue;
            }
            let leaf = self.descend(&child.node, |_| 0);
            self.enter(leaf);
            return Some(());
        }
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], Version);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let leaf = self.leaf?;
            while self.next < self.stop {
                let at = self.next;
                self.next += 1;
                let (bytes, older) = leaf.get(at);
                if let Some(version) = Packed::new(bytes, older).live_at(self.at) {
                    return Some((leaf.key(at), version));
                }
            }
            self.advance()?;
        }
    }
}
