//! The nodes of the tree and how one key is edited: copy what is shared, change what isn't.
//!
//! ```text
//! Inner { bounds, children: [Child { node, summary }] }     children[i] < bounds[i] ≤ children[i + 1]
//!   └─► Inner … └─► Leaf { keys, entries }
//! ```

use std::sync::Arc;

use super::entry::Summary;
use super::keys::{Keys, reserve_few, separator};

/// Keys in a leaf before it is split.
pub(super) const LEAF_MAX: usize = 64;
/// Children of an inner node before it is split.
pub(super) const INNER_MAX: usize = 32;
/// Bytes of keys in a node before it is split, so that long keys don't make its copies dear.
const BYTES_MAX: usize = 32 * 1024;

/// What a leaf holds for a key.
pub(super) trait Item: Clone {
    /// What it adds to the sums of the subtrees that it is in.
    fn summary(&self) -> Summary;
    /// Anything that can stand in its place while it is edited.
    fn vacant(&self) -> Self;
}

/// A subtree.
#[derive(Clone, Debug)]
pub(super) enum Node<E> {
    Leaf(Arc<Leaf<E>>),
    Inner(Arc<Inner<E>>),
}

/// Keys with their entries. Invariant: as many entries as keys.
#[derive(Clone, Debug)]
pub(super) struct Leaf<E> {
    pub(super) keys: Keys,
    pub(super) entries: Vec<E>,
}

impl<E> Default for Leaf<E> {
    fn default() -> Self {
        Self { keys: Keys::default(), entries: Vec::new() }
    }
}

/// Subtrees in order.
///
/// Invariant: one bound less than children; `bounds[i]` is above every key of child `i` and at or
/// below every key of child `i + 1`.
#[derive(Clone, Debug)]
pub(super) struct Inner<E> {
    pub(super) bounds: Keys,
    pub(super) children: Vec<Child<E>>,
}

/// A subtree with what it adds up to.
#[derive(Clone, Debug)]
pub(super) struct Child<E> {
    pub(super) node: Node<E>,
    pub(super) summary: Summary,
}

/// A node's new right sibling and the bound between the two.
pub(super) struct Split<E> {
    pub(super) bound: Vec<u8>,
    pub(super) right: Child<E>,
}

/// What an edit did to a subtree.
pub(super) struct Edited<E> {
    /// By how much its sums changed, a split-off sibling included.
    pub(super) change: Summary,
    pub(super) split: Option<Split<E>>,
    /// It lost a key and could be joined with a neighbour.
    small: bool,
}

impl<E: Item> Node<E> {
    /// Calls `each` with everything in key order.
    pub(super) fn each(&self, each: &mut impl FnMut(&[u8], &E)) {
        match self {
            Self::Leaf(leaf) => {
                for (at, entry) in leaf.entries.iter().enumerate() {
                    each(leaf.keys.get(at), entry);
                }
            }
            Self::Inner(inner) => inner.children.iter().for_each(|child| child.node.each(each)),
        }
    }

    /// Lets `f` change, insert (`None` → `Some`) or remove (`Some` → `None`) the entry of `key`.
    pub(super) fn edit<R>(&mut self, key: &[u8], f: impl FnOnce(&mut Option<E>) -> R) -> (R, Edited<E>) {
        match self {
            Self::Leaf(leaf) => Leaf::own(leaf, key).edit(key, f),
            Self::Inner(inner) => Arc::make_mut(inner).edit(key, f),
        }
    }

    /// How full it is: entries or children.
    fn width(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.entries.len(),
            Self::Inner(inner) => inner.children.len(),
        }
    }

    fn byte_len(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.keys.byte_len(),
            Self::Inner(inner) => inner.bounds.byte_len(),
        }
    }

    fn width_max(&self) -> usize {
        match self {
            Self::Leaf(_) => LEAF_MAX,
            Self::Inner(_) => INNER_MAX,
        }
    }

    /// Takes over everything of its right neighbour, which begins at `bound`.
    fn join(&mut self, bound: &[u8], right: &Self) {
        match (self, right) {
            (Self::Leaf(left), Self::Leaf(right)) => {
                let left = Arc::make_mut(left);
                left.keys.append(&right.keys);
                left.entries.extend(right.entries.iter().cloned());
            }
            (Self::Inner(left), Self::Inner(right)) => {
                let left = Arc::make_mut(left);
                left.bounds.push(bound);
                left.bounds.append(&right.bounds);
                left.children.extend(right.children.iter().cloned());
            }
            _ => unreachable!("all leaves are at one depth"),
        }
    }
}

impl<E: Item> Leaf<E> {
    /// The leaf to change: itself if nobody shares it, else a copy with room for `key` if that is new.
    fn own<'a>(leaf: &'a mut Arc<Self>, key: &[u8]) -> &'a mut Self {
        if Arc::get_mut(leaf).is_none() {
            let added = usize::from(leaf.keys.search(key).is_err());
            let mut entries = Vec::with_capacity(leaf.entries.len() + added);
            entries.extend_from_slice(&leaf.entries);
            *leaf = Arc::new(Self { keys: leaf.keys.copy(added, added * key.len()), entries });
        }
        Arc::make_mut(leaf)
    }

    fn edit<R>(&mut self, key: &[u8], f: impl FnOnce(&mut Option<E>) -> R) -> (R, Edited<E>) {
        match self.keys.search(key) {
            Ok(at) => self.edit_present(at, f),
            Err(at) => self.edit_absent(at, key, f),
        }
    }

    fn edit_present<R>(&mut self, at: usize, f: impl FnOnce(&mut Option<E>) -> R) -> (R, Edited<E>) {
        let before = self.entries[at].summary();
        let vacant = self.entries[at].vacant();
        let mut slot = Some(std::mem::replace(&mut self.entries[at], vacant));
        let result = f(&mut slot);
        let Some(entry) = slot else {
            self.entries.remove(at);
            self.keys.remove(at);
            let small = self.entries.len() < LEAF_MAX / 4;
            return (result, Edited { change: Summary::default().minus(before), split: None, small });
        };
        let change = entry.summary().minus(before);
        self.entries[at] = entry;
        (result, Edited { change, split: None, small: false })
    }

    fn edit_absent<R>(&mut self, at: usize, key: &[u8], f: impl FnOnce(&mut Option<E>) -> R) -> (R, Edited<E>) {
        let mut slot = None;
        let result = f(&mut slot);
        let Some(entry) = slot else {
            return (result, Edited { change: Summary::default(), split: None, small: false });
        };
        let change = entry.summary();
        self.keys.insert(at, key);
        reserve_few(&mut self.entries);
        self.entries.insert(at, entry);
        let full = self.entries.len() > LEAF_MAX || (self.keys.byte_len() > BYTES_MAX && self.entries.len() > 1);
        let split = full.then(|| self.split(at));
        (result, Edited { change, split, small: false })
    }

    /// Splits in the middle, or near the end when keys come in order, which leaves full leaves behind.
    fn split(&mut self, inserted: usize) -> Split<E> {
        let len = self.entries.len();
        let at = if inserted + 1 == len { (len * 7 / 8).max(1) } else { len / 2 };
        let right = Self { keys: self.keys.split_off(at), entries: self.entries.split_off(at) };
        self.keys.shrink();
        self.entries.shrink_to_fit();
        let bound = separator(self.keys.last().unwrap_or_default(), right.keys.get(0)).to_vec();
        let summary = right.summary();
        Split { bound, right: Child { node: Node::Leaf(Arc::new(right)), summary } }
    }

    pub(super) fn summary(&self) -> Summary {
        self.entries.iter().fold(Summary::default(), |sum, entry| sum.plus(entry.summary()))
    }
}

impl<E> Inner<E> {
    /// The child whose stretch holds `key`.
    pub(super) fn child_of(&self, key: &[u8]) -> usize {
        match self.bounds.search(key) {
            Ok(at) => at + 1,
            Err(at) => at,
        }
    }

    pub(super) fn summary(&self) -> Summary {
        self.children.iter().fold(Summary::default(), |sum, child| sum.plus(child.summary))
    }
}

impl<E: Item> Inner<E> {
    fn edit<R>(&mut self, key: &[u8], f: impl FnOnce(&mut Option<E>) -> R) -> (R, Edited<E>) {
        let at = self.child_of(key);
        let child = &mut self.children[at];
        let (result, edited) = child.node.edit(key, f);
        child.summary = child.summary.plus(edited.change);
        if let Some(Split { bound, right }) = edited.split {
            child.summary = child.summary.minus(right.summary);
            self.bounds.insert(at, &bound);
            reserve_few(&mut self.children);
            self.children.insert(at + 1, right);
        } else if edited.small {
            self.join_around(at);
        }
        let full = self.children.len() > INNER_MAX || (self.bounds.byte_len() > BYTES_MAX && self.children.len() > 3);
        let split = full.then(|| self.split(at));
        let small = edited.small && self.children.len() < INNER_MAX / 4;
        (result, Edited { change: edited.change, split, small })
    }

    fn split(&mut self, changed: usize) -> Split<E> {
        let len = self.children.len();
        let at = if changed + 2 >= len { (len * 7 / 8).clamp(2, len - 1) } else { len / 2 };
        let children = self.children.split_off(at);
        let bounds = self.bounds.split_off(at);
        let bound = self.bounds.get(at - 1).to_vec();
        self.bounds.remove(at - 1);
        self.bounds.shrink();
        let right = Self { bounds, children };
        let summary = right.summary();
        Split { bound, right: Child { node: Node::Inner(Arc::new(right)), summary } }
    }

    /// Joins child `at` with a neighbour if they fit well into one node, or drops it if it is empty.
    fn join_around(&mut self, at: usize) {
        if self.children.len() < 2 {
            return;
        }
        if self.children[at].node.width() == 0 {
            self.remove(at);
            return;
        }
        let fits = |left: usize| {
            let (left, right) = (&self.children[left].node, &self.children[left + 1].node);
            left.width() + right.width() <= left.width_max() * 3 / 4
                && left.byte_len() + right.byte_len() <= BYTES_MAX / 2
        };
        let left = if at + 1 < self.children.len() && fits(at) {
            at
        } else if at > 0 && fits(at - 1) {
            at - 1
        } else {
            return;
        };
        let right = self.children[left + 1].clone();
        let bound = self.bounds.get(left).to_vec();
        self.children[left].node.join(&bound, &right.node);
        self.children[left].summary = self.children[left].summary.plus(right.summary);
        self.remove(left + 1);
    }

    fn remove(&mut self, at: usize) {
        self.children.remove(at);
        self.bounds.remove(at.saturating_sub(1));
    }
}
