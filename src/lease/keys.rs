//! `LeaseKeys`: the keys that hang on a lease, sorted.

use std::collections::BTreeSet;

use bytes::Bytes;

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
}
