//! `LeaseKeys`: the keys that hang on a lease, sorted.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;

/// What is said of a key, and of those behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass<'a> {
    /// It doesn't pass.
    No,
    /// It passes, and so do all keys from it to below this one.
    Below(&'a [u8]),
    /// It passes, and so do all keys behind it.
    All,
}

/// A sorted set of keys that is small for the usual lease with none or one.
#[derive(Debug, Default)]
pub(super) enum LeaseKeys {
    #[default]
    None,
    One(Bytes),
    Many(BTreeSet<Bytes>),
}

impl LeaseKeys {
    pub(super) fn insert(&mut self, key: Bytes) {
        match self {
            Self::None => *self = Self::One(key),
            Self::One(first) => {
                if *first != key {
                    *self = Self::Many(BTreeSet::from([std::mem::take(first), key]));
                }
            }
            Self::Many(keys) => {
                keys.insert(key);
            }
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) {
        match self {
            Self::None => {}
            Self::One(first) => {
                if first.as_ref() == key {
                    *self = Self::None;
                }
            }
            Self::Many(keys) => {
                keys.remove(key);
                if keys.is_empty() {
                    *self = Self::None;
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Whether all keys pass. `pass` is asked once for each stretch of those that do, however many keys it has.
    pub(super) fn all_pass<'a>(&self, pass: impl Fn(&[u8]) -> Pass<'a>) -> bool {
        match self {
            Self::None => true,
            Self::One(key) => pass(key) != Pass::No,
            Self::Many(keys) => {
                let mut next = keys.first();
                while let Some(key) = next {
                    match pass(key) {
                        Pass::No => return false,
                        Pass::All => return true,
                        // A stretch that ends at or before its own key would be asked for again and again.
                        Pass::Below(end) if end <= key.as_ref() => return false,
                        Pass::Below(end) => {
                            next = keys.range::<[u8], _>((Bound::Included(end), Bound::Unbounded)).next();
                        }
                    }
                }
                true
            }
        }
    }

    pub(super) fn to_vec(&self) -> Vec<Bytes> {
        match self {
            Self::None => Vec::new(),
            Self::One(key) => vec![key.clone()],
            Self::Many(keys) => keys.iter().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_sorted_and_once() {
        let mut keys = LeaseKeys::default();
        for key in ["l0", "z1", "a1", "z1", "l0"] {
            keys.insert(key.into());
        }
        assert_eq!(keys.to_vec(), ["a1", "l0", "z1"]);
        for key in ["z1", "none", "a1", "l0"] {
            keys.remove(key.as_bytes());
        }
        assert!(matches!(keys, LeaseKeys::None));
        keys.insert("a".into());
        keys.insert("a".into());
        assert!(matches!(keys, LeaseKeys::One(_)));
        keys.remove(b"b");
        assert_eq!(keys.to_vec(), ["a"]);
    }

    #[test]
    fn stretches_are_asked_for_once() {
        let mut keys = LeaseKeys::default();
        for key in ["a1", "a2", "a3", "c1", "c2", "z"] {
            keys.insert(key.into());
        }
        let asked = std::cell::Cell::new(0);
        let pass = |key: &[u8]| {
            asked.set(asked.get() + 1);
            match key.first() {
                Some(b'a') => Pass::Below(b"b"),
                Some(b'c') => Pass::Below(b"c2\0"),
                Some(b'z') => Pass::All,
                _ => Pass::No,
            }
        };
        assert!(keys.all_pass(pass));
        assert_eq!(asked.get(), 3);
        keys.insert("c3".into());
        assert!(!keys.all_pass(|key: &[u8]| if key == b"c3" { Pass::No } else { pass(key) }));
        assert!(!keys.all_pass(|key: &[u8]| if key == b"z" { Pass::Below(b"z") } else { pass(key) }));
        let (mut one, none) = (LeaseKeys::default(), LeaseKeys::default());
        one.insert("b".into());
        assert!(none.all_pass(pass) && none.is_empty());
        assert!(!one.all_pass(pass) && !one.is_empty());
    }
}
