//! `IntervalTree`: which of many key ranges hold a key, in O(log n + hits).
//!
//! A treap by (start, id) in one arena; each node knows which node below it ends last, so a whole subtree that
//! ends before the key is left out. Its shape is random and never shows in an answer.

use std::cmp::Ordering;
use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;

const NIL: u32 = u32::MAX;

#[derive(Debug)]
struct Node {
    start: Bytes,
    /// `None` is no end.
    end: Option<Bytes>,
    id: u32,
    priority: u64,
    left: u32,
    right: u32,
    /// The node of this subtree that ends last.
    last: u32,
}

/// Ranges with an id each.
#[derive(Debug)]
pub(crate) struct IntervalTree {
    nodes: Vec<Node>,
    free: Vec<u32>,
    root: u32,
    /// Seeds the priorities: a client must not be able to choose the tree's depth.
    seed: RandomState,
    inserted: u64,
}

impl Default for IntervalTree {
    fn default() -> Self {
        Self { nodes: Vec::new(), free: Vec::new(), root: NIL, seed: RandomState::new(), inserted: 0 }
    }
}

impl IntervalTree {
    /// Adds `[start, end)`; `(start, id)` must not be in the tree.
    pub(crate) fn insert(&mut self, start: Bytes, end: Option<Bytes>, id: u32) {
        self.inserted += 1;
        let priority = self.seed.hash_one(self.inserted);
        let node = Node { start, end, id, priority, left: NIL, right: NIL, last: NIL };
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        };
        self.update(at);
        let (left, right) = self.split(self.root, at);
        let left = self.merge(left, at);
        self.root = self.merge(left, right);
    }

    /// Takes the range with this start and id out; whether it was there.
    pub(crate) fn remove(&mut self, start: &[u8], id: u32) -> bool {
        let (root, removed) = self.remove_below(self.root, start, id);
        self.root = root;
        if let Some(at) = removed {
            let node = &mut self.nodes[at as usize];
            (node.start, node.end) = (Bytes::new(), None);
            self.free.push(at);
        }
        removed.is_some()
    }

    /// Calls `hit` with the id of every range that holds `key`.
    pub(crate) fn stab(&self, key: &[u8], hit: &mut impl FnMut(u32)) {
        self.stab_below(self.root, key, hit);
    }

    fn stab_below(&self, at: u32, key: &[u8], hit: &mut impl FnMut(u32)) {
        if at == NIL || !self.ends_after(self.nodes[at as usize].last, key) {
            return;
        }
        let node = &self.nodes[at as usize];
        self.stab_below(node.left, key, hit);
        if node.start.as_ref() <= key {
            if self.ends_after(at, key) {
                hit(node.id);
            }
            self.stab_below(node.right, key, hit);
        }
    }

    fn ends_after(&self, at: u32, key: &[u8]) -> bool {
        self.nodes[at as usize].end.as_ref().is_none_or(|end| end.as_ref() > key)
    }

    fn order(&self, at: u32, start: &[u8], id: u32) -> Ordering {
        let node = &self.nodes[at as usize];
        node.start.as_ref().cmp(start).then(node.id.cmp(&id))
    }

    /// Which of two nodes ends later.
    fn later(&self, a: u32, b: u32) -> u32 {
        if b == NIL {
            return a;
        }
        match (&self.nodes[a as usize].end, &self.nodes[b as usize].end) {
            (None, _) => a,
            (_, None) => b,
            (Some(one), Some(other)) => {
                if one >= other {
                    a
                } else {
                    b
                }
            }
        }
    }

    fn update(&mut self, at: u32) {
        let (left, right) = (self.nodes[at as usize].left, self.nodes[at as usize].right);
        let mut last = at;
        for child in [left, right] {
            if child != NIL {
                last = self.later(last, self.nodes[child as usize].last);
            }
        }
        self.nodes[at as usize].last = last;
    }

    /// Splits a subtree into what sorts before the node `pivot` and the rest.
    fn split(&mut self, at: u32, pivot: u32) -> (u32, u32) {
        if at == NIL {
            return (NIL, NIL);
        }
        let (start, id) = (self.nodes[pivot as usize].start.clone(), self.nodes[pivot as usize].id);
        if self.order(at, &start, id) == Ordering::Less {
            let (left, right) = self.split(self.nodes[at as usize].right, pivot);
            self.nodes[at as usize].right = left;
            self.update(at);
            (at, right)
        } else {
            let (left, right) = self.split(self.nodes[at as usize].left, pivot);
            self.nodes[at as usize].left = right;
            self.update(at);
            (left, at)
        }
    }

    /// Joins two subtrees of which everything in the first sorts before the second.
    fn merge(&mut self, left: u32, right: u32) -> u32 {
        if left == NIL {
            return right;
        }
        if right == NIL {
            return left;
        }
        if self.nodes[left as usize].priority > self.nodes[right as usize].priority {
            let joined = self.merge(self.nodes[left as usize].right, right);
            self.nodes[left as usize].right = joined;
            self.update(left);
            left
        } else {
            let joined = self.merge(left, self.nodes[right as usize].left);
            self.nodes[right as usize].left = joined;
            self.update(right);
            right
        }
    }

    fn remove_below(&mut self, at: u32, start: &[u8], id: u32) -> (u32, Option<u32>) {
        if at == NIL {
            return (NIL, None);
        }
        let (left, right) = (self.nodes[at as usize].left, self.nodes[at as usize].right);
        match self.order(at, start, id) {
            Ordering::Equal => (self.merge(left, right), Some(at)),
            Ordering::Greater => {
                let (child, removed) = self.remove_below(left, start, id);
                self.nodes[at as usize].left = child;
                self.update(at);
                (at, removed)
            }
            Ordering::Less => {
                let (child, removed) = self.remove_below(right, start, id);
                self.nodes[at as usize].right = child;
                self.update(at);
                (at, removed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range() -> impl Strategy<Value = (Vec<u8>, Option<Vec<u8>>)> {
        let key = || proptest::collection::vec(0_u8..4, 1..4);
        (key(), proptest::option::of(key()))
    }

    proptest! {
        #[test]
        fn finds_exactly_the_ranges_that_hold_a_key(
            ranges in proptest::collection::vec(range(), 0..40),
            removed in proptest::collection::vec(any::<bool>(), 40),
            keys in proptest::collection::vec(proptest::collection::vec(0_u8..4, 1..4), 1..20),
        ) {
            let mut tree = IntervalTree::default();
            for (id, (start, end)) in ranges.iter().enumerate() {
                tree.insert(start.clone().into(), end.clone().map(Bytes::from), id as u32);
            }
            for (id, (start, _)) in ranges.iter().enumerate() {
                if removed[id] {
                    prop_assert!(tree.remove(start, id as u32));
                    prop_assert!(!tree.remove(start, id as u32));
                }
            }
            for key in keys {
                let mut hits = Vec::new();
                tree.stab(&key, &mut |id| hits.push(id));
                hits.sort_unstable();
                let expected: Vec<u32> = ranges.iter().enumerate()
                    .filter(|(id, (start, end))| !removed[*id] && *start <= key && end.as_ref().is_none_or(|end| *end > key))
                    .map(|(id, _)| id as u32)
                    .collect();
                prop_assert_eq!(hits, expected);
            }
        }
    }
}
