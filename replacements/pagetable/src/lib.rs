//! sled keeps where its objects lie in tables of the crate of this name: one for the objects and one for each of 78 sizes of
//! slots. There a table takes 512 KiB with its first entry, all of it written when the memory was used before; a store of some
//! megabytes needs a dozen of them, each time that it is opened (measured by page faults: 4.5 of 58 MiB that a member touched).
//!
//! ```text
//! key ─ below 2^10 ─────────────────────────► a leaf of 1024
//!     ─ below 2^28 ─► 512 ─► 512 ───────────► a leaf of 1024
//!     ─ all others ─► 512 ─► … six of them ─► a leaf of 1024
//! ```
//! Only what sled 1.0.0-alpha.124 calls is here, without `unsafe`; another version of it fails to compile rather than to lose.

use std::sync::{Arc, OnceLock};

const LEAF_BITS: u32 = 10;
const NODE_BITS: u32 = 9;
/// Where the topmost node's bits begin, of the tables for most keys and for all.
const MIDDLE_SHIFT: u32 = LEAF_BITS + NODE_BITS;
const TOP_SHIFT: u32 = u64::BITS - NODE_BITS;

/// A map from numbers to values that are there with their default before anybody set them. Clones share it.
#[derive(Debug)]
pub struct PageTable<T>(Arc<Root<T>>);

#[derive(Debug)]
struct Root<T> {
    small: OnceLock<Node<T>>,
    middle: OnceLock<Node<T>>,
    all: OnceLock<Node<T>>,
}

#[derive(Debug)]
enum Node<T> {
    Leaf(Box<[T]>),
    Inner(Box<[OnceLock<Node<T>>]>),
}

impl<T> Default for PageTable<T> {
    fn default() -> Self {
        Self(Arc::new(Root { small: OnceLock::new(), middle: OnceLock::new(), all: OnceLock::new() }))
    }
}

impl<T> Clone for PageTable<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Default> PageTable<T> {
    /// The value of a key.
    pub fn get(&self, key: u64) -> &T {
        let (root, mut shift) = if key >> LEAF_BITS == 0 {
            (&self.0.small, 0)
        } else if key >> (MIDDLE_SHIFT + NODE_BITS) == 0 {
            (&self.0.middle, MIDDLE_SHIFT)
        } else {
            (&self.0.all, TOP_SHIFT)
        };
        let mut node = root.get_or_init(|| node(shift));
        loop {
            match node {
                Node::Leaf(values) => return &values[part(key, 0, LEAF_BITS)],
                Node::Inner(children) => {
                    let below = if shift == LEAF_BITS { 0 } else { shift - NODE_BITS };
                    node = children[part(key, shift, NODE_BITS)].get_or_init(|| self::node(below));
                    shift = below;
                }
            }
        }
    }
}

/// An empty node whose bits begin at `shift`; a leaf's begin at 0.
fn node<T: Default>(shift: u32) -> Node<T> {
    match shift {
        0 => Node::Leaf((0..1 << LEAF_BITS).map(|_| T::default()).collect()),
        _ => Node::Inner((0..1 << NODE_BITS).map(|_| OnceLock::new()).collect()),
    }
}

/// So many bits of the key, from `shift` on.
fn part(key: u64, shift: u32, bits: u32) -> usize {
    (key >> shift) as usize & ((1 << bits) - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn every_key_has_a_place_of_its_own() {
        let table = PageTable::<AtomicU64>::default();
        let shared = table.clone();
        let mut keys: HashSet<u64> = (0..5_000).chain([u64::MAX, u64::MAX - 1]).collect();
        for bit in 0..64 {
            keys.extend([1 << bit, (1 << bit) - 1, (1 << bit) + 1, (1 << bit) | 0x155, u64::MAX >> bit]);
        }
        for key in &keys {
            assert_eq!(table.get(*key).swap(!key, Ordering::Relaxed), 0, "{key}");
        }
        assert!(keys.iter().all(|key| shared.get(*key).load(Ordering::Relaxed) == !key));
    }
}
