//! The nodes of the tree and how one key is edited: copy what is shared, change what isn't.
//!
//! ```text
//! Inner { bounds, children: [Child { node, summary }] }     children[i] < bounds[i] ≤ children[i + 1]
//!   └─► Inner … └─► Leaf { items, patch, spilled }
//! ```
//!
//! A put over a put copies neither bounds nor keys: those are shared, and what changed lies in the children's
//! piece ([`Chunked`]) and in the leaf's [`Patch`].

use std::fmt::Debug;
use std::sync::Arc;

use super::chunked::Chunked;
use super::entry::Summary;
use super::keys::{Keys, separator, with_length};
use super::packed::Buffer;
use super::patch::Patch;
use super::spilled::{Spill, Spilled};

/// Keys in a leaf before it is split.
pub(super) const LEAF_MAX: usize = 64;
/// Children of an inner node before it is split.
pub(super) const INNER_MAX: usize = 64;
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
    /// Shared with the copies in which only items have changed since.
    items: Arc<Keys>,
    patch: Patch,
    spilled: Spilled<E::Spill>,
}

impl<E: Item> Default for Leaf<E> {
    fn default() -> Self {
        Self { items: Arc::default(), patch: Patch::default(), spilled: Spilled::default() }
    }
}

/// Subtrees in order.
///
/// Invariant: one bound less than children; `bounds[i]` is above every key of child `i` and at or
/// below every key of child `i + 1`.
#[derive(Clone, Debug)]
pub(super) struct Inner<E: Item> {
    pub(super) bounds: Arc<Keys>,
    pub(super) children: Chunked<Child<E>>,
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
            Self::Leaf(leaf) => (0..leaf.len()).for_each(|at| each(leaf.key(at), leaf.load(at))),
            Self::Inner(inner) => inner.children.iter().for_each(|child| child.node.each(each)),
        }
    }

    /// Lets `f` change, insert (`None` → `Some`) or remove (`Some` → `None`) the entry of `key`.
    pub(super) fn edit<R>(&mut self, key: &[u8], f: impl FnOnce(&mut Option<E>) -> R) -> (R, Edited<E>) {
        match self {
            Self::Leaf(leaf) => Leaf::edit(leaf, key, f),
            Self::Inner(inner) => {
                if Arc::strong_count(inner) > 1 {
                    std::hint::black_box(inner.children.count());
                }
                Arc::make_mut(inner).edit(key, f)
            }
        }
    }

    /// How many have it.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Leaf(leaf) => Arc::strong_count(leaf),
            Self::Inner(inner) => Arc::strong_count(inner),
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
            Self::Leaf(leaf) => leaf.byte_len(),
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
                let (items, spilled) = Leaf::own(left, 0, right.byte_len());
                spilled.append(items.len(), &right.spilled);
                if right.patch.is_empty() {
                    items.append(&right.items);
                } else {
                    items.append(&right.items.copy(&right.patch, 0, 0));
                }
            }
            (Self::Inner(left), Self::Inner(right)) => {
                let left = Arc::make_mut(left);
                let bounds = Arc::make_mut(&mut left.bounds);
                bounds.push(bound, &[]);
                bounds.append(&right.bounds);
                left.children.append(&right.children);
            }
            _ => unreachable!("all leaves are at one depth"),
        }
    }
}

impl<E: Item> Leaf<E> {
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// About how many bytes keys and items have.
    pub(super) fn byte_len(&self) -> usize {
        self.items.byte_len() + self.patch.byte_len()
    }

    pub(super) fn key(&self, at: usize) -> &[u8] {
        self.items.get(at)
    }

    pub(super) fn last(&self) -> Option<&[u8]> {
        self.items.last()
    }

    /// Where `key` is (`Ok`), or where it would have to go (`Err`).
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        self.items.search(key)
    }

    /// The bytes of the item at a place, and what it has besides.
    pub(super) fn get(&self, at: usize) -> (&[u8], Spill<'_, E::Spill>) {
        (self.load(at), self.spilled.get(at))
    }

    fn load(&self, at: usize) -> &[u8] {
        self.patch.get(at).unwrap_or_else(|| self.items.load(at))
    }

    /// See [`Keys::look_at_slots`].
    pub(super) fn look_at_slots(&self) -> u32 {
        self.items.look_at_slots()
    }

    /// See [`Keys::look_near`].
    pub(super) fn look_near(&self, key: &[u8]) -> u8 {
        self.items.look_near(key)
    }

    /// Adds a key behind all.
    pub(super) fn push(&mut self, key: &[u8], item: E) {
        let mut bytes = Buffer::new();
        let spill = item.pack(&mut bytes);
        self.spilled.set(self.len(), spill);
        Arc::make_mut(&mut self.items).push(key, &bytes);
    }

    /// Gives spare memory back.
    pub(super) fn shrink(&mut self) {
        Arc::make_mut(&mut self.items).shrink();
    }

    /// What the leaf holds, to change its keys: itself if nobody shares it, else a copy with room for so many more
    /// keys of so many bytes together. There is no patch then.
    fn own(leaf: &mut Arc<Self>, keys: usize, bytes: usize) -> (&mut Keys, &mut Spilled<E::Spill>) {
        let is_own =
            Arc::get_mut(leaf).is_some_and(|own| own.patch.is_empty() && Arc::get_mut(&mut own.items).is_some());
        if !is_own {
            let items = Arc::new(leaf.items.copy(&leaf.patch, keys, bytes));
            *leaf = Arc::new(Self { items, patch: Patch::default(), spilled: leaf.spilled.clone() });
        }
        let own = Arc::make_mut(leaf);
        (Arc::make_mut(&mut own.items), &mut own.spilled)
    }

    /// Changes the item at a place; keys that others share stay shared.
    fn set_load(leaf: &mut Arc<Self>, at: usize, load: &[u8]) {
        if leaf.patch.is_empty()
            && Arc::strong_count(&leaf.items) == 1
            && let Some(own) = Arc::get_mut(leaf)
            && let Some(items) = Arc::get_mut(&mut own.items)
        {
            items.set_load(at, load);
            return;
        }
        let Some(patch) = leaf.patch.with(at, load).filter(|patch| !patch.is_full()) else {
            Self::own(leaf, 0, load.len()).0.set_load(at, load);
            return;
        };
        if Arc::strong_count(leaf) == 1
            && let Some(own) = Arc::get_mut(leaf)
        {
            own.patch = patch;
        } else {
            let (items, spilled) = (Arc::clone(&leaf.items), leaf.spilled.clone());
            *leaf = Arc::new(Self { items, patch, spilled });
        }
    }

    fn edit<R>(leaf: &mut Arc<Self>, key: &[u8], f: impl FnOnce(&mut Option<E>) -> R) -> (R, Edited<E>) {
        match leaf.search(key) {
            Ok(at) => Self::edit_present(leaf, at, f),
            Err(at) => Self::edit_absent(leaf, at, key, f),
        }
    }

    fn edit_present<R>(leaf: &mut Arc<Self>, at: usize, f: impl FnOnce(&mut Option<E>) -> R) -> (R, Edited<E>) {
        let (bytes, spill) = leaf.get(at);
        let before = E::summary(bytes);
        let mut slot = Some(E::unpack(bytes, spill));
        let result = f(&mut slot);
        let Some(item) = slot else {
            let (items, spilled) = Self::own(leaf, 0, 0);
            items.remove(at);
            spilled.removed(at);
            let small = items.len() < LEAF_MAX / 4;
            return (result, Edited { change: Summary::default().minus(before), split: None, small });
        };
        let mut bytes = Buffer::new();
        let spill = item.pack(&mut bytes);
        let change = E::summary(&bytes).minus(before);
        Self::set_load(leaf, at, &bytes);
        let is_same = match (&spill, leaf.spilled.get(at).get()) {
            (Some(new), Some(old)) => E::is_same(new, old),
            (None, None) => true,
            _ => false,
        };
        if !is_same {
            Arc::make_mut(leaf).spilled.set(at, spill);
        }
        (result, Edited { change, split: None, small: false })
    }

    fn edit_absent<R>(
        leaf: &mut Arc<Self>,
        at: usize,
        key: &[u8],
        f: impl FnOnce(&mut Option<E>) -> R,
    ) -> (R, Edited<E>) {
        let mut slot = None;
        let result = f(&mut slot);
        let Some(item) = slot else {
            return (result, Edited { change: Summary::default(), split: None, small: false });
        };
        let mut bytes = Buffer::new();
        let spill = item.pack(&mut bytes);
        let change = E::summary(&bytes);
        let (items, spilled) = Self::own(leaf, 1, key.len() + with_length(bytes.len()));
        items.insert(at, key, &bytes);
        spilled.inserted(at);
        spilled.set(at, spill);
        let full = items.len() > LEAF_MAX || (items.byte_len() > BYTES_MAX && items.len() > 1);
        let split = full.then(|| Self::split(items, spilled, at));
        (result, Edited { change, split, small: false })
    }

    /// Splits in the middle, or near the end when keys come in order, which leaves full leaves behind.
    fn split(items: &mut Keys, spilled: &mut Spilled<E::Spill>, inserted: usize) -> Split<E> {
        let len = items.len();
        let at = if inserted + 1 == len { (len * 7 / 8).max(1) } else { len / 2 };
        let right =
            Self { items: Arc::new(items.split_off(at)), patch: Patch::default(), spilled: spilled.split_off(at) };
        items.shrink();
        let bound = separator(items.last().unwrap_or_default(), right.key(0)).to_vec();
        let summary = right.summary();
        Split { bound, right: Child { node: Node::Leaf(Arc::new(right)), summary } }
    }

    pub(super) fn summary(&self) -> Summary {
        self.summary_upto(self.len())
    }

    /// What the first items add up to.
    pub(super) fn summary_upto(&self, end: usize) -> Summary {
        (0..end).fold(Summary::default(), |sum, at| sum.plus(E::summary(self.load(at))))
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
        let child = self.children.at_mut(at, |child| child.node.count());
        let (result, edited) = child.node.edit(key, f);
        child.summary = child.summary.plus(edited.change);
        if let Some(Split { bound, right }) = edited.split {
            child.summary = child.summary.minus(right.summary);
            Arc::make_mut(&mut self.bounds).insert(at, &bound, &[]);
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
        let own = Arc::make_mut(&mut self.bounds);
        let bounds = Arc::new(own.split_off(at));
        let bound = own.get(at - 1).to_vec();
        own.remove(at - 1);
        own.shrink();
        let right = Self { bounds, children };
        let summary = right.summary();
        Split { bound, right: Child { node: Node::Inner(Arc::new(right)), summary } }
    }

    /// Joins child `at` with a neighbour if they fit well into one node, or drops it if it is empty.
    fn join_around(&mut self, at: usize) {
        if self.children.len() < 2 {
            return;
        }
        if self.children.at(at).node.width() == 0 {
            self.remove(at);
            return;
        }
        let fits = |left: usize| {
            let (left, right) = (&self.children.at(left).node, &self.children.at(left + 1).node);
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
        let right = self.children.at(left + 1).clone();
        let bound = self.bounds.get(left).to_vec();
        let child = self.children.at_mut(left, |child| child.node.count());
        child.node.join(&bound, &right.node);
        child.summary = child.summary.plus(right.summary);
        self.remove(left + 1);
    }

    fn remove(&mut self, at: usize) {
        self.children.remove(at);
        Arc::make_mut(&mut self.bounds).remove(at.saturating_sub(1));
    }
}
