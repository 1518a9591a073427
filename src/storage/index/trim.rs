//! Compaction of the index, a few keys at a time.

use super::Index;
use super::entry::Entry;
use super::node::Node;
use super::packed::Packed;
use crate::types::Revision;

/// Where a compaction stands, so that it can go on later.
#[derive(Debug)]
pub struct Trim {
    /// Compact at this main revision.
    at: i64,
    /// The first key not looked at yet; `None` when all were.
    from: Option<Vec<u8>>,
}

impl Trim {
    /// A compaction at main revision `at` that has done nothing yet.
    pub fn new(at: i64) -> Self {
        Self { at, from: Some(Vec::new()) }
    }

    /// The revision that it compacts at.
    pub fn at(&self) -> i64 {
        self.at
    }

    /// Whether all keys were looked at.
    pub fn is_done(&self) -> bool {
        self.from.is_none()
    }
}

impl Index {
    /// Looks at about `keys_max` keys that may have something to forget, and forgets it.
    ///
    /// What went is added to `removed`, each key's versions oldest first and all of a key in one step.
    pub fn trim_step(&mut self, trim: &mut Trim, keys_max: usize, removed: &mut Vec<Revision>) {
        let Some(from) = trim.from.take() else { return };
        let mut search = Search { at: trim.at, left: keys_max.max(1), keys: Vec::new(), next: None };
        search.visit(self.tree.root(), &from);
        trim.from = search.next;
        for key in search.keys {
            self.tree.edit(&key, |slot| *slot = slot.take().and_then(|entry| entry.trim(trim.at, removed)));
        }
    }
}

/// Collects keys to trim from a place on.
struct Search {
    at: i64,
    left: usize,
    keys: Vec<Vec<u8>>,
    /// Where to go on, once `left` is used up.
    next: Option<Vec<u8>>,
}

impl Search {
    fn visit(&mut self, node: &Node<Entry>, from: &[u8]) {
        match node {
            Node::Leaf(leaf) => {
                let first = leaf.search(from).unwrap_or_else(|at| at);
                for at in first..leaf.len() {
                    let (bytes, older) = leaf.get(at);
                    let entry = Packed::new(bytes, older);
                    if entry.summary().garbage > 0 && !self.take(leaf.key(at), entry) {
                        return;
                    }
                }
            }
            Node::Inner(inner) => {
                for child in inner.children.iter().skip(inner.child_of(from)) {
                    if child.summary.garbage > 0 {
                        self.visit(&child.node, from);
                    }
                    if self.next.is_some() {
                        return;
                    }
                }
            }
        }
    }

    /// False once there is no room for this key.
    fn take(&mut self, key: &[u8], entry: Packed<'_>) -> bool {
        if self.left == 0 {
            self.next = Some(key.to_vec());
            return false;
        }
        self.left -= 1;
        if entry.is_trimmable(self.at) {
            self.keys.push(key.to_vec());
        }
        true
    }
}
