//! Building a whole tree at once from sorted keys, as a restart does.

use std::sync::Arc;

use super::chunked::Chunked;
use super::entry::{Entry, Summary};
use super::keys::{Keys, separator};
use super::node::{Child, INNER_MAX, Inner, LEAF_MAX, Leaf, Node};
use super::{Index, Version};

/// How full new nodes are made: some room, so that the first changes don't split all of them.
const LEAF_FILL: usize = LEAF_MAX * 7 / 8;
const INNER_FILL: usize = INNER_MAX * 7 / 8;
/// Bytes of keys from which a new leaf is closed.
const LEAF_BYTES: usize = 24 * 1024;

/// Takes keys in ascending order and makes an [`Index`] of them in one pass.
#[derive(Debug, Default)]
pub(crate) struct Builder {
    leaf: Leaf<Entry>,
    /// Finished nodes of the lowest level with their lower bounds.
    done: Vec<(Vec<u8>, Child<Entry>)>,
    /// The last key of the leaf before the current one.
    before: Option<Vec<u8>>,
    keys: usize,
}

impl Builder {
    /// Adds the versions (oldest first) of a key above all before it.
    pub(crate) fn push(&mut self, key: &[u8], versions: &[Version]) {
        debug_assert!(self.leaf.last().is_none_or(|last| last < key), "keys come in order");
        let Some(entry) = Entry::from_ascending(versions) else { return };
        if self.leaf.len() >= LEAF_FILL || self.leaf.byte_len() >= LEAF_BYTES {
            self.close_leaf();
        }
        self.leaf.push(key, entry);
        self.keys += 1;
    }

    fn close_leaf(&mut self) {
        let mut leaf = std::mem::take(&mut self.leaf);
        leaf.shrink();
        let bound = match (&self.before, leaf.len()) {
            (Some(before), 1..) => separator(before, leaf.key(0)).to_vec(),
            _ => Vec::new(),
        };
        self.before = leaf.last().map(<[u8]>::to_vec);
        let summary = leaf.summary();
        self.done.push((bound, Child { node: Node::Leaf(Arc::new(leaf)), summary }));
    }

    /// The tree of everything that was pushed.
    pub(crate) fn finish(mut self) -> Index {
        if self.leaf.len() > 0 || self.done.is_empty() {
            self.close_leaf();
        }
        let mut level = self.done;
        while level.len() > 1 {
            let nodes = level.len().div_ceil(INNER_FILL);
            let width = level.len().div_ceil(nodes);
            let mut rest = level.into_iter().peekable();
            level = Vec::with_capacity(nodes);
            while rest.peek().is_some() {
                level.push(group(rest.by_ref().take(width)));
            }
        }
        let (root, summary) = match level.pop() {
            Some((_, child)) => (child.node, child.summary),
            None => (Node::Leaf(Arc::default()), Summary::default()),
        };
        Index::from_parts(root, summary, self.keys)
    }
}

/// One inner node of some neighbours.
fn group(children: impl Iterator<Item = (Vec<u8>, Child<Entry>)>) -> (Vec<u8>, Child<Entry>) {
    let (mut first, mut bounds, mut all) = (None, Keys::default(), Vec::new());
    for (bound, child) in children {
        if first.is_some() {
            bounds.push(&bound, &[]);
        } else {
            first = Some(bound);
        }
        all.push(child);
    }
    bounds.shrink();
    let inner = Inner { bounds: Arc::new(bounds), children: Chunked::from(&all[..]) };
    let summary = inner.summary();
    (first.unwrap_or_default(), Child { node: Node::Inner(Arc::new(inner)), summary })
}
