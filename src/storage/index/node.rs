//! The nodes of the tree and how one key is edited: copy what is shared, change what isn't.
//!
//! ```text
//! Inner { bounds, children: [Child { node, summary }] }     children[i] < bounds[i] ≤ children[i + 1]
//!   └─► Inner … └─► Leaf { items, spilled }
//! ```

use std::fmt::Debug;
use std::sync::Arc;

use super::entry::Summary;
use super::keys::{Keys, reserve_few, separator};
use super::packed::Buffer;
use super::spilled::{Spill, Spilled};

/// Keys in a leaf before it is split.
pub(super) const LEAF_MAX: usize = 64;
/// Children of an inner node before it is split.
pub(super) const INNER_MAX: usize = 32;
/// Room that the copy of a leaf gets for what an item grows by, or for a new one.
const ITEM_ROOM: usize = 28;
/// Bytes of keys and items in a node before it is split, so that long keys don't make its copies dear.
const BYTES_MAX: usize = 32 * 1024;

/// What a leaf holds for a key: bytes behind the key, and now and then something besides them.
pub(super) trait Item: Clone {
    /// What doesn't lie in the leaf itself.
    type Spill: Clone + Debug;
    /// Adds its bytes; gives what doesn't go into them.
    fn pack(self, out: &mut Buffer) -> Option<Self::Spill>;
    /// The inverse.
    fn unpack(bytes: &[u8], spill: Spill<'_, Self::Spill>) -> Self;
    /// What it adds to the sums of the subtrees that it is in.
    fn summary(bytes: &[u8]) -> Summary;
    /// Whether two spills are one and the same.
    fn is_same(left: &Self::Spill, right: &Self::Spill) -> bool;
}

/// A subtree.
#[derive(Clone, Debug)]
pub(super) enum Node<E: Item> {
    Leaf(Arc<Leaf<E>>),
    Inner(Arc<Inner<E>>),
}

/// Keys with their items.
#[derive(Clone, Debug)]
pub(super) struct Leaf<E: Item> {
    pub(super) items: Keys,
    spilled: Spilled<E::Spill>,
}

impl<E: Item> Default for Leaf<E> {
    fn default() -> Self {
        Self { items: Keys::default(), spilled: Spilled::default() }
    }
}

/// Subtrees in order.
///
/// Invariant: one bound less than children; `bounds[i]` is above every key of child `i` and at or
/// below every key of child `i + 1`.
#[derive(Clone, Debug)]
pub(super) struct Inner<E: Item> {
    pub(super) bounds: Keys,
    pub(super) children: Vec<Child<E>>,
}

/// A subtree with what it adds up to.
#[derive(Clone, Debug)]
pub(super) struct Child<E: Item> {
    pub(super) node: Node<E>,
    pub(super) summary: Summary,
}

/// A node's new right sibling and the bound between the two.
pub(super) struct Split<E: Item> {
    pub(super) bound: Vec<u8>,
    pub(super) right: Child<E>,
}

/// What an edit did to a subtree.
pub(super) struct Edited<E: Item> {
    /// By how much its sums changed, a split-off sibling included.
    pub(super) change: Summary,
    pub(super) split: Option<Split<E>>,
    /// It lost a key and could be joined with a neighbour.
    small: bool,
}

impl<E: Item> Node<E> {
    /// Calls `each` with all keys and their items' bytes in key order.
    pub(super) fn each(&self, each: &mut impl FnMut(&[u8], &[u8])) {
        match self {
            Self::Leaf(leaf) => (0..leaf.len()).for_each(|at| each(leaf.items.get(at), leaf.items.load(at))),
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
            Self::Leaf(leaf) => leaf.len(),
            Self::Inner(inner) => inner.children.len(),
        }
    }

    fn byte_len(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.items.byte_len(),
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
                left.spilled.append(left.items.len(), &right.spilled);
                left.items.append(&right.items);
            }
            (Self::Inner(left), Self::Inner(right)) => {
                let left = Arc::make_mut(left);
                left.bounds.push(bound, &[]);
                left.bounds.append(&right.bounds);
                left.children.extend(right.children.iter().cloned());
            }
            _ => unreachable!("all leaves are at one depth"),
        }
    }
}

impl<E: Item> Leaf<E> {
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// The bytes of the item at a place, and what it has besides.
    pub(super) fn get(&self, at: usize) -> (&[u8], Spill<'_, E::Spill>) {
        (self.items.load(at), self.spilled.get(at))
    }

    /// Adds a key behind all.
    pub(super) fn push(&mut self, key: &[u8], item: E) {
        let mut bytes = Buffer::new();
        let spill = item.pack(&mut bytes);
        self.spilled.set(self.len(), spill);
        self.items.push(key, &bytes);
    }

    /// The leaf to change: itself if nobody shares it, else a copy with room for `key` if that is new.
    fn own<'a>(leaf: &'a mut Arc<Self>, key: &[u8]) -> &'a mut Self {
        if Arc::get_mut(leaf).is_none() {
            let added = usize::from(leaf.items.search(key).is_err());
            let items = leaf.items.copy(added, added * key.len() + ITEM_ROOM);
            *leaf = Arc::new(Self { items, spilled: leaf.spilled.clone() });
        }
        Arc::make_mut(leaf)
    }

    fn edit<R>(&mut self, key: &[u8], f: impl FnOnce(&mut Option<E>) -> R) -> (R, Edited<E>) {
        match self.items.search(key) {
            Ok(at) => self.edit_present(at, f),
            Err(at) => self.edit_absent(at, key, f),
        }
    }

    fn edit_present<R>(&mut self, at: usize, f: impl FnOnce(&mut Option<E>) -> R) -> (R, Edited<E>) {
        let (bytes, spill) = self.get(at);
        let before = E::summary(bytes);
        let mut slot = Some(E::unpack(bytes, spill));
        let result = f(&mut slot);
        let Some(item) = slot else {
            self.items.remove(at);
            self.spilled.removed(at);
            let small = self.len() < LEAF_MAX / 4;
            return (result, Edited { change: Summary::default().minus(before), split: None, small });
        };
        let mut bytes = Buffer::new();
        let spill = item.pack(&mut bytes);
        let change = E::summary(&bytes).minus(before);
        self.items.set_load(at, &bytes);
        let is_same = match (&spill, self.spilled.get(at).get()) {
            (Some(new), Some(old)) => E::is_same(new, old),
            (None, None) => true,
            _ => false,
        };
        if !is_same {
            self.spilled.set(at, spill);
        }
        (result, Edited { change, split: None, small: false })
    }

    fn edit_absent<R>(&mut self, at: usize, key: &[u8], f: impl FnOnce(&mut Option<E>) -> R) -> (R, Edited<E>) {
        let mut slot = None;
        let result = f(&mut slot);
        let Some(item) = slot else {
            return (result, Edited { change: Summary::default(), split: None, small: false });
        };
        let mut bytes = Buffer::new();
        let spill = item.pack(&mut bytes);
        let change = E::summary(&bytes);
        self.items.insert(at, key, &bytes);
        self.spilled.inserted(at);
        self.spilled.set(at, spill);
        let full = self.len() > LEAF_MAX || (self.items.byte_len() > BYTES_MAX && self.len() > 1);
        let split = full.then(|| self.split(at));
        (result, Edited { change, split, small: false })
    }

    /// Splits in the middle, or near the end when keys come in order, which leaves full leaves behind.
    fn split(&mut self, inserted: usize) -> Split<E> {
        let len = self.len();
        let at = if inserted + 1 == len { (len * 7 / 8).max(1) } else { len / 2 };
        let right = Self { items: self.items.split_off(at), spilled: self.spilled.split_off(at) };
        self.items.shrink();
        let bound = separator(self.items.last().unwrap_or_default(), right.items.get(0)).to_vec();
        let summary = right.summary();
        Split { bound, right: Child { node: Node::Leaf(Arc::new(right)), summary } }
    }

    pub(super) fn summary(&self) -> Summary {
        self.summary_upto(self.len())
    }

    /// What the first items add up to.
    pub(super) fn summary_upto(&self, end: usize) -> Summary {
        (0..end).fold(Summary::default(), |sum, at| sum.plus(E::summary(self.items.load(at))))
    }
}

impl<E: Item> Inner<E> {
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

    fn edit<R>(&mut self, key: &[u8], f: impl FnOnce(&mut Option<E>) -> R) -> (R, Edited<E>) {
        let at = self.child_of(key);
        let child = &mut self.children[at];
        let (result, edited) = child.node.edit(key, f);
        child.summary = child.summary.plus(edited.change);
        if let Some(Split { bound, right }) = edited.split {
            child.summary = child.summary.minus(right.summary);
            self.bounds.insert(at, &bound, &[]);
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
