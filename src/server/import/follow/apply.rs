//! The source's changes in a store: each at the revision at which it was made there.

use bytes::Bytes;

use super::{Ended, State};
use crate::import::remote::Change;
use crate::storage::{Store, Table};
use crate::types::{KeyRange, RaftIndex, StorageError};

/// Does what the source did, at the revisions at which it did it.
pub(super) async fn apply(state: &mut State, changes: Vec<Change>) -> Result<(), Ended> {
    if changes.is_empty() {
        return Ok(());
    }
    for revision in changes.chunk_by(|a, b| a.kv.mod_revision == b.kv.mod_revision) {
        apply_revision(&mut state.store, revision).map_err(Ended::Again)?;
    }
    state.position.index = RaftIndex(state.position.index.get() + 1);
    state.store.publish(state.position)?;
    let reader = state.store.reader();
    if reader.values().is_full() {
        reader.values().flush().await?;
    }
    Ok(())
}

/// One revision: what comes of it has to be what the source says.
fn apply_revision(store: &mut Store, changes: &[Change]) -> Result<(), String> {
    let revision = changes.first().map_or(0, |change| change.kv.mod_revision);
    if revision != store.revision() + 1 {
        return Err(format!("revision {revision} came after revision {}", store.revision()));
    }
    let mut txn = store.begin();
    for Change { kv, is_delete } in changes {
        if *is_delete {
            if txn.delete(&KeyRange::single(kv.key.clone())).len() != 1 {
                return Err(format!("revision {revision} deletes a key that isn't there"));
            }
            continue;
        }
        txn.put(kv.key.clone(), kv.value.clone(), kv.lease);
        let same = txn.meta_of(&kv.key).is_some_and(|meta| {
            (meta.create, meta.version, meta.modified.main) == (kv.create_revision, kv.version, kv.mod_revision)
        });
        if !same {
            return Err(format!("a key of revision {revision} has another history here than at the source"));
        }
    }
    txn.commit();
    Ok(())
}

/// Puts rows in the place of all that a table has; published, so that the next call finds these as the old ones.
pub(super) fn replace_rows(state: &mut State, table: Table, rows: Vec<(Bytes, Bytes)>) -> Result<(), StorageError> {
    let old = state.store.reader().snapshot().rows().of(table);
    for (key, _) in old {
        state.store.put_meta(table, key, None);
    }
    for (key, value) in rows {
        state.store.put_meta(table, key, Some(value));
    }
    state.position.index = RaftIndex(state.position.index.get() + 1);
    state.store.publish(state.position).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{KeyValue, LeaseId};

    fn put(key: &'static str, at: i64, create_revision: i64, version: i64) -> Change {
        let kv = KeyValue {
            key: key.into(),
            value: Bytes::from(at.to_string()),
            create_revision,
            mod_revision: at,
            version,
            lease: LeaseId(5),
        };
        Change { kv, is_delete: false }
    }

    fn delete(key: &'static str, at: i64) -> Change {
        let kv = KeyValue { key: key.into(), mod_revision: at, ..KeyValue::default() };
        Change { kv, is_delete: true }
    }

    #[test]
    fn a_revision_comes_as_it_was_or_not_at_all() {
        let mut store = Store::in_memory();
        assert_eq!(apply_revision(&mut store, &[put("a", 2, 2, 1), put("b", 2, 2, 1)]), Ok(()));
        assert_eq!(apply_revision(&mut store, &[put("a", 3, 2, 2), delete("b", 3)]), Ok(()));
        let wrong = [
            vec![put("a", 5, 2, 3)],
            vec![put("a", 3, 2, 3)],
            vec![put("a", 4, 2, 2)],
            vec![put("a", 4, 4, 1)],
            vec![put("c", 4, 3, 1)],
            vec![put("a", 4, 2, 3), delete("b", 4)],
        ];
        for changes in wrong {
            assert!(apply_revision(&mut store, &changes).is_err(), "{changes:?}");
            assert_eq!(store.revision(), 3, "nothing of it is left");
        }
        assert_eq!(apply_revision(&mut store, &[put("b", 4, 4, 1), put("a", 4, 2, 3)]), Ok(()));
    }
}
