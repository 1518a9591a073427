//! A digest of the state: the sum of the living records' hashes, kept by the index at every change.
//!
//! ```text
//! record ─ BLAKE3, first 8 bytes ─► Version in the index ─ wrapping sums in inner nodes ─► state digest
//! ```
//!
//! A sum doesn't depend on the order of what is added, can be updated by the difference, and is kept
//! for every subtree, so that two members compare states in O(1) and find where they differ in
//! O(log n). It covers what lives at one revision and nothing older, so that it doesn't matter when
//! a compaction has really removed what.

use crate::storage::{KeyMeta, Record};
use crate::types::Revision;

/// The hash of one living record: over its key, its value, its lease and its place in history.
///
/// Never 0 by design of the caller: tombstones count as 0, and a put that hashes to 0 is as good as
/// any other.
pub fn record_hash(key: &[u8], value: &[u8], meta: &KeyMeta) -> u64 {
    let mut head = [0; 40];
    let numbers = [key.len().cast_signed() as i64, meta.create, meta.modified.main, meta.version, meta.lease.get()];
    for (to, number) in head.chunks_exact_mut(8).zip(numbers) {
        to.copy_from_slice(&number.to_be_bytes());
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&head).update(key).update(value);
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_be_bytes(first)
}

/// The hash of a stored record; 0 for a tombstone.
pub fn of_record(at: Revision, record: &Record) -> u64 {
    record.version.as_ref().map_or(0, |version| {
        let meta =
            KeyMeta { create: version.create_revision, modified: at, version: version.version, lease: version.lease };
        record_hash(&record.key, &version.value, &meta)
    })
}

/// The digest in the 32 bits that the wire has for it; an empty store's is not 0, which the wire would leave out.
pub fn fold(digest: u64) -> u32 {
    const EMPTY: u32 = 0x9e37_79b9;
    let (high, low) = ((digest >> 32) as u32, digest as u32);
    high ^ low ^ EMPTY
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LeaseId;

    #[test]
    fn every_part_of_a_record_counts() {
        let meta = KeyMeta { create: 2, modified: Revision::new(3, 0), version: 2, lease: LeaseId(9) };
        let hash = record_hash(b"key", b"value", &meta);
        let others = [
            record_hash(b"keyv", b"alue", &meta),
            record_hash(b"key", b"valuf", &meta),
            record_hash(b"key", b"value", &KeyMeta { create: 1, ..meta }),
            record_hash(b"key", b"value", &KeyMeta { modified: Revision::new(4, 0), ..meta }),
            record_hash(b"key", b"value", &KeyMeta { version: 3, ..meta }),
            record_hash(b"key", b"value", &KeyMeta { lease: LeaseId::NONE, ..meta }),
        ];
        assert!(others.iter().all(|other| *other != hash));
        assert_eq!(hash, record_hash(b"key", b"value", &meta));
    }

    #[test]
    fn folding_keeps_both_halves() {
        assert_ne!(fold(1 << 40), fold(1 << 41));
        assert_ne!(fold(1), fold(2));
    }
}
