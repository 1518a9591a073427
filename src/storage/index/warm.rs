//! Looking for some keys at once, so that the processor waits for their memory together and not key by key.

use smallvec::SmallVec;

use super::Index;
use super::node::Node;

/// Keys that are looked for at a time.
const KEYS: usize = 16;

impl Index {
    /// Has the processor bring into its cache what a change of each of these keys looks at.
    ///
    /// In loops whose loads don't depend on each other: first where each key's leaf is, a level at a time; then
    /// the leaves' heads, then their slots, then the keys.
    pub fn warm<K: AsRef<[u8]>>(&self, keys: &[K]) {
        for some in keys.chunks(KEYS) {
            let mut nodes = SmallVec::<[_; KEYS]>::from_elem(self.tree.root(), some.len());
            while let Some(Node::Inner(_)) = nodes.first() {
                for (node, key) in nodes.iter_mut().zip(some) {
                    if let Node::Inner(inner) = *node {
                        *node = &inner.children.at(inner.child_of(key.as_ref())).node;
                    }
                }
                std::hint::black_box(nodes.iter().fold(0, |sum, node| sum ^ node.count()));
            }
            let leaves = || {
                nodes.iter().filter_map(|node| match node {
                    Node::Leaf(leaf) => Some(leaf),
                    Node::Inner(_) => None,
                })
            };
            std::hint::black_box(leaves().fold(0, |sum, leaf| sum ^ leaf.len()));
            std::hint::black_box(leaves().fold(0, |sum, leaf| sum ^ leaf.look_at_slots()));
            std::hint::black_box(leaves().zip(some).fold(0, |sum, (leaf, key)| sum ^ leaf.look_near(key.as_ref())));
        }
    }
}
