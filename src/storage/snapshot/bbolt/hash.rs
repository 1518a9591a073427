//! etcd's HashKV of our records, to compare with an etcd that holds the same.
//!
//! ```text
//! "key", then of each record that etcd counts, in order: its key, its value (as in its bucket) ─► CRC-32C
//! counted: all after the compacted revision; before it what still lives, at the revision that is hashed
//! ```
//! Members of rusd compare a digest of their own (`docs/adr/0006-hashkv-digest.md`): this one reads every record.

use super::content::{key_of, revision_bytes, value_of};
use crate::storage::{Record, Snapshot};
use crate::types::{Revision, StorageError};

/// What an etcd with these records, compacted at `compact_revision`, answers to HashKV at the snapshot's revision. The
/// snapshot has to be a pinned one, with all history after `compact_revision`. `marks` are where etcd's bucket
/// has pairs that are no records, in their order: a restore that skips revisions leaves one. Blocks.
///
/// # Errors
/// The engine's.
pub fn etcd_hash_kv(snapshot: &Snapshot, compact_revision: i64, marks: &[Revision]) -> Result<u32, StorageError> {
    let mut crc = crc32c::crc32c(b"key");
    let mut add = |key: &[u8], value: &[u8]| crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, key), value);
    // etcd takes the last mark for a key that lives, and the ones before for its history.
    let mut marks = marks.iter().enumerate().filter(|(at, mark)| mark.main > compact_revision || at + 1 == marks.len());
    let mut marks = marks.by_ref().map(|(_, mark)| *mark).peekable();
    snapshot.each_record(|at: Revision, record: &Record| {
        while let Some(mark) = marks.next_if(|mark| *mark < at) {
            add(&revision_bytes(mark), &[]);
        }
        let lives = || snapshot.meta_of(&record.key).is_some_and(|meta| meta.modified == at);
        if at.main > compact_revision || lives() {
            add(&key_of(at, record), &value_of(at, record));
        }
        Ok::<_, StorageError>(())
    })?;
    for mark in marks.filter(|mark| mark.main <= snapshot.revision()) {
        add(&revision_bytes(mark), &[]);
    }
    Ok(crc)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Store;
    use crate::types::{KeyRange, LeaseId};

    /// What was recorded on an etcd 3.7.1 after the same calls.
    #[test]
    fn it_is_what_etcd_says() {
        let mut store = Store::in_memory();
        let put = |store: &mut Store, key: &'static str, value: &'static str| {
            let mut txn = store.begin();
            txn.put(key.into(), value.into(), LeaseId::NONE);
            txn.commit();
        };
        put(&mut store, "a", "1");
        put(&mut store, "b", "1");
        put(&mut store, "a", "2");
        let mut txn = store.begin();
        txn.delete(&KeyRange::single("b"));
        txn.commit();
        put(&mut store, "c", "1");
        put(&mut store, "b", "2");
        store.publish(Default::default()).unwrap();
        let snapshot = store.reader().snapshot_pinned();
        let hash = |compact| etcd_hash_kv(&snapshot, compact, &[]).unwrap();
        assert_eq!([hash(-1), hash(5), hash(7)], [2_226_761_776, 646_332_474, 646_332_474]);
    }

    #[test]
    fn of_the_marks_before_a_compaction_the_last_one_counts() {
        let mut store = Store::in_memory();
        for key in ["a", "b"] {
            let mut txn = store.begin();
            txn.put(key.into(), "1".into(), LeaseId::NONE);
            txn.commit();
        }
        store.publish(Default::default()).unwrap();
        let snapshot = store.reader().snapshot_pinned();
        let hash = |compact, marks: &[i64]| {
            let marks: Vec<_> = marks.iter().map(|main| Revision::new(*main, 0)).collect();
            etcd_hash_kv(&snapshot, compact, &marks).unwrap()
        };
        assert_eq!(hash(2, &[1, 2]), hash(2, &[2]));
        assert_ne!(hash(2, &[2]), hash(2, &[]));
        assert_ne!(hash(-1, &[1, 2]), hash(-1, &[2]));
        assert_eq!(hash(-1, &[9]), hash(-1, &[]), "one after the revision that is hashed");
    }
}
