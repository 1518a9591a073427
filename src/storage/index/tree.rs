//! `Tree`: the root, and how it grows and shrinks.

use std::sync::Arc;

use super::chunked::Chunked;
use super::entry::Summary;
use super::keys::Keys;
use super::node::{Child, Inner, Item, Node, Split};
use super::spilled::Spill;

/// A persistent ordered map from keys to items; a clone is one reference count and stays as it is.
///
/// Invariant: `summary` is the sum over all items, `len` their number.
#[derive(Clone, Debug)]
pub(super) struct Tree<E: Item> {
    root: Node<E>,
    summary: Summary,
    len: usize,
}

impl<E: Item> Default for Tree<E> {
    fn default() -> Self {
        Self { root: Node::Leaf(Arc::default()), summary: Summary::default(), len: 0 }
    }
}

impl<E: Item> Tree<E> {
    pub(super) fn from_parts(root: Node<E>, summary: Summary, len: usize) -> Self {
        Self { root, summary, len }
    }

    pub(super) fn root(&self) -> &Node<E> {
        &self.root
    }

    pub(super) fn summary(&self) -> Summary {
        self.summary
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The bytes of a key's item, and what it has besides.
    pub(super) fn get(&self, key: &[u8]) -> Option<(&[u8], Spill<'_, E::Spill>)> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Leaf(leaf) => return leaf.search(key).ok().map(|at| leaf.get(at)),
                Node::Inner(inner) => node = &inner.children.at(inner.child_of(key)).node,
            }
        }
    }

    /// Lets `f` change, insert (`None` → `Some`) or remove (`Some` → `None`) the item of `key`.
    pub(super) fn edit<R>(&mut self, key: &[u8], f: impl FnOnce(&mut Option<E>) -> R) -> R {
        let len = &mut self.len;
        let (result, edited) = self.root.edit(key, |slot| {
            let before = usize::from(slot.is_some());
            let result = f(slot);
            *len = *len + usize::from(slot.is_some()) - before;
            result
        });
        self.summary = self.summary.plus(edited.change);
        if let Some(Split { bound, right }) = edited.split {
            self.grow(&bound, right);
        }
        self.shrink();
        result
    }

    fn grow(&mut self, bound: &[u8], right: Child<E>) {
        let left = std::mem::replace(&mut self.root, Node::Leaf(Arc::default()));
        let left = Child { node: left, summary: self.summary.minus(right.summary) };
        let mut bounds = Keys::default();
        bounds.push(bound, &[]);
        let (bounds, children) = (Arc::new(bounds), Chunked::from(&[left, right][..]));
        self.root = Node::Inner(Arc::new(Inner { bounds, children }));
    }

    /// A root with one child isn't needed.
    fn shrink(&mut self) {
        while let Node::Inner(inner) = &self.root
            && inner.children.len() == 1
        {
            self.root = inner.children.at(0).node.clone();
        }
    }
}
