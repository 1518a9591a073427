//! The store's rules, one test each (02 §1–§6, with the numbers of the cases in 05).

use bytes::Bytes;

use super::Store;
use crate::storage::{AppliedPosition, Disk, RangeQuery, RangeResult, ReadError, SortOrder, SortTarget};
use crate::types::{EventKind, KeyRange, KeyValue, LeaseId, RaftIndex, RequestError, Revision, Term};

fn position(index: u64) -> AppliedPosition {
    AppliedPosition { index: RaftIndex(index), term: Term(3) }
}

fn put(store: &mut Store, key: &str, value: &str) -> i64 {
    put_leased(store, key, value, 0)
}

fn put_leased(store: &mut Store, key: &str, value: &str, lease: i64) -> i64 {
    let mut txn = store.begin();
    txn.put(Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()), LeaseId(lease));
    txn.commit();
    show(store)
}

fn delete(store: &mut Store, range: &KeyRange) -> i64 {
    let mut txn = store.begin();
    txn.delete(range);
    txn.commit();
    show(store)
}

fn show(store: &mut Store) -> i64 {
    let revision = store.revision();
    store.publish(position(revision.cast_unsigned())).unwrap();
    revision
}

/// The keys of E8 to E24: their values, in key order.
fn filled() -> Store {
    let mut store = Store::in_memory();
    for (key, value) in [("c", "9"), ("a", "2"), ("aa", "zz"), ("b", "x"), ("d", "5"), ("e", "7")] {
        put(&mut store, key, value);
    }
    store
}

fn range(store: &Store, query: &RangeQuery) -> Result<RangeResult, ReadError> {
    let published = store.reader().range(query, Disk::Allowed).map(|found| found.value);
    assert_eq!(store.reader().snapshot().range(query, Disk::Allowed).map(|found| found.value), published);
    published
}

fn keys(result: &RangeResult) -> Vec<&str> {
    result.kvs.iter().map(|kv| std::str::from_utf8(&kv.key).unwrap()).collect()
}

fn all() -> RangeQuery {
    RangeQuery::latest(KeyRange::all())
}

fn kv(key: &'static str, value: &'static str, numbers: [i64; 3]) -> KeyValue {
    let [create_revision, mod_revision, version] = numbers;
    KeyValue { key: key.into(), value: value.into(), create_revision, mod_revision, version, lease: LeaseId::NONE }
}

#[test]
fn an_empty_store_is_at_revision_one() {
    let store = Store::in_memory();
    let reader = store.reader();
    assert_eq!((store.revision(), reader.revision(), reader.compact_revision()), (1, 1, -1));
    assert_eq!(range(&store, &all()), Ok(RangeResult::default()));
}

#[test]
fn create_mod_and_version_follow_the_generations() {
    let mut store = Store::in_memory();
    let get = |store: &Store| store.reader().get(b"k", Disk::Allowed).unwrap().value;
    assert_eq!(put(&mut store, "k", "1"), 2);
    assert_eq!(put(&mut store, "k", "1"), 3, "the same value is a change");
    assert_eq!(get(&store), Some(kv("k", "1", [2, 3, 2])));
    assert_eq!(delete(&mut store, &KeyRange::single("k")), 4);
    assert_eq!(get(&store), None);
    assert_eq!(delete(&mut store, &KeyRange::single("k")), 4, "nothing to delete, no revision");
    put(&mut store, "k", "2");
    assert_eq!(get(&store), Some(kv("k", "2", [5, 5, 1])));
}

#[test]
fn a_command_is_one_revision_and_sees_itself() {
    let mut store = filled();
    let mut txn = store.begin();
    assert_eq!((txn.revision(), txn.changed()), (7, false));
    txn.put("x".into(), "1".into(), LeaseId(4));
    assert_eq!((txn.revision(), txn.changed()), (8, true));
    let deleted = txn.delete(&KeyRange::prefix("a"));
    assert_eq!(
        deleted.iter().map(|(key, meta)| (key.as_ref(), meta.modified.main)).collect::<Vec<_>>(),
        [(&b"a"[..], 3), (b"aa", 4)]
    );
    assert_eq!(keys(&txn.range(&all()).unwrap()), ["b", "c", "d", "e", "x"]);
    assert_eq!(txn.count(&KeyRange::all()), 5);
    let before = RangeQuery { revision: 7, ..all() };
    assert_eq!(keys(&txn.range(&before).unwrap()), ["a", "aa", "b", "c", "d", "e"]);
    assert_eq!(txn.check_revision(8), Ok(()));
    assert_eq!(txn.check_revision(9), Err(RequestError::FutureRevision));
    assert_eq!(txn.value_of(b"x").unwrap().unwrap().mod_revision, 8);
    assert_eq!(txn.meta_of(b"a"), None);
    txn.commit();
    assert_eq!(store.reader().revision(), 7, "not before it is published");
    let batch = store.publish(position(8)).unwrap().unwrap();
    assert_eq!((batch.first_main, batch.last_main), (8, 8));
    let events: Vec<_> =
        batch.events.iter().map(|entry| (entry.event.kind, entry.event.revision, entry.prev)).collect();
    assert_eq!(
        events,
        [
            (EventKind::Put, Revision::new(8, 0), None),
            (EventKind::Delete, Revision::new(8, 1), Some(Revision::new(3, 0))),
            (EventKind::Delete, Revision::new(8, 2), Some(Revision::new(4, 0))),
        ]
    );
    assert_eq!(store.reader().position(), position(8));
}

/// Cause: a command may put a key and then delete it (E62, golden `txn_open_delete`). Symptom: the
/// delete's watcher was told the value that the same command had put. Now: the one before it.
#[test]
fn the_version_before_is_the_one_before_the_revision() {
    let mut store = filled();
    let mut txn = store.begin();
    let before = txn.meta_of(b"a").unwrap().modified;
    txn.put("a".into(), "2".into(), LeaseId::NONE);
    txn.put("new".into(), "1".into(), LeaseId::NONE);
    txn.delete(&KeyRange::single(Bytes::from("a")));
    txn.delete(&KeyRange::single(Bytes::from("new")));
    txn.commit();
    let batch = store.publish(position(9)).unwrap().unwrap();
    let prevs: Vec<_> = batch.events.iter().map(|entry| entry.prev).collect();
    assert_eq!(prevs, [Some(before), None, Some(before), None]);
}

#[test]
fn a_dropped_command_leaves_no_trace() {
    let mut store = filled();
    let before = range(&store, &all()).unwrap();
    let digest = store.reader().snapshot().digest();
    let mut txn = store.begin();
    txn.put("a".into(), "changed".into(), LeaseId::NONE);
    txn.put("new".into(), "1".into(), LeaseId::NONE);
    txn.delete(&KeyRange::all());
    drop(txn);
    assert_eq!(store.publish(position(9)).unwrap().map(|batch| batch.events.len()), None);
    assert_eq!(store.revision(), 7);
    assert_eq!(range(&store, &all()), Ok(before));
    assert_eq!(store.reader().snapshot().digest(), digest);
    assert_eq!(store.reader().snapshot().index_len(), 6);
}

#[test]
fn limit_and_more_and_count() {
    let store = filled();
    for (limit, len, more) in [(0, 6, false), (-1, 6, false), (2, 2, true), (6, 6, false), (i64::MAX, 6, false)] {
        let result = range(&store, &RangeQuery { limit, ..all() }).unwrap();
        assert_eq!((result.kvs.len(), result.more, result.count), (len, more, 6), "limit {limit}");
    }
    let single = RangeQuery { limit: 1, ..RangeQuery::latest(KeyRange::single("b")) };
    let result = range(&store, &single).unwrap();
    assert_eq!((result.kvs.len(), result.more, result.count), (1, false, 1));
    let counted = range(&store, &RangeQuery { limit: 2, min_mod_revision: 5, count_only: true, ..all() }).unwrap();
    assert_eq!(counted, RangeResult { kvs: vec![], more: false, count: 6 });
}

#[test]
fn filters_leave_the_count_alone() {
    let store = filled();
    let result = range(&store, &RangeQuery { limit: 2, min_mod_revision: 4, ..all() }).unwrap();
    assert_eq!((keys(&result), result.more, result.count), (vec!["aa", "b"], true, 6));
    let single = RangeQuery { min_mod_revision: 100, ..RangeQuery::latest(KeyRange::single("a")) };
    assert_eq!(range(&store, &single), Ok(RangeResult { kvs: vec![], more: false, count: 1 }));
    let between = RangeQuery { min_create_revision: 3, max_create_revision: 5, max_mod_revision: 4, ..all() };
    assert_eq!(keys(&range(&store, &between).unwrap()), ["a", "aa"]);
}

#[test]
fn orders() {
    let mut store = filled();
    put(&mut store, "c", "9");
    let sorted = |order, target, limit| {
        let result = range(&store, &RangeQuery { order, target, limit, ..all() }).unwrap();
        (keys(&result).iter().map(ToString::to_string).collect::<Vec<_>>(), result.more)
    };
    use SortOrder::{Ascend, Descend, None};
    use SortTarget::{Create, Key, Mod, Value, Version};
    let of = |keys: &[&str]| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(sorted(Descend, Value, 3), (of(&["aa", "b", "c"]), true));
    assert_eq!(sorted(Descend, Key, 2), (of(&["e", "d"]), true));
    assert_eq!(sorted(Ascend, Key, 2), (of(&["a", "aa"]), true));
    assert_eq!(sorted(Descend, Mod, 1), (of(&["c"]), true));
    assert_eq!(sorted(Ascend, Create, 2), (of(&["c", "a"]), true));
    assert_eq!(sorted(None, Version, 0).0.last(), Some(&"c".to_string()));
    // E17: only the first limit + 1 keys are looked at, then sorted, then cut.
    assert_eq!(sorted(None, Value, 2), (of(&["a", "b"]), true));
    assert_eq!(sorted(None, Create, 3), (of(&["c", "a", "aa"]), true));
}

#[test]
fn keys_only_loses_the_lease_except_when_sorted_by_value() {
    let mut store = Store::in_memory();
    put_leased(&mut store, "k", "v", 77);
    let query = RangeQuery { keys_only: true, ..all() };
    let plain = range(&store, &query).unwrap().kvs.remove(0);
    assert_eq!(plain, kv("k", "", [2, 2, 1]));
    let by_value = RangeQuery { target: SortTarget::Value, order: SortOrder::Ascend, ..query };
    assert_eq!(range(&store, &by_value).unwrap().kvs.remove(0), KeyValue { lease: LeaseId(77), ..plain });
}

#[test]
fn an_old_revision_reads_as_it_was() {
    let mut store = filled();
    delete(&mut store, &KeyRange::all());
    let old = range(&store, &RangeQuery { revision: 6, limit: 2, ..all() }).unwrap();
    assert_eq!((keys(&old), old.more, old.count), (vec!["a", "aa"], true, 5));
    assert_eq!(range(&store, &all()).unwrap().count, 0);
    let future = RangeQuery { revision: 9, count_only: true, ..all() };
    assert_eq!(range(&store, &future), Err(RequestError::FutureRevision.into()));
    assert_eq!(range(&store, &RangeQuery { revision: -5, ..all() }).unwrap().count, 0);
}

#[test]
fn a_never_compacted_store_can_be_compacted_at_zero_and_one() {
    let mut store = Store::in_memory();
    assert_eq!(store.compact(2), Err(RequestError::FutureRevision));
    assert_eq!(store.compact(0), Ok(()));
    assert_eq!(store.compact(0), Err(RequestError::Compacted));
    assert_eq!(store.compact(1), Ok(()));
    for revision in [1, 0, -1, -5] {
        assert_eq!(store.compact(revision), Err(RequestError::Compacted));
    }
    assert_eq!(store.compact(2), Err(RequestError::FutureRevision));
}

#[test]
fn reads_below_the_compact_revision_fail_and_at_it_work() {
    let mut store = filled();
    store.compact(5).unwrap();
    show(&mut store);
    for count_only in [false, true] {
        let at = |revision| range(&store, &RangeQuery { revision, count_only, ..all() }).map(|result| result.count);
        assert_eq!(at(4), Err(RequestError::Compacted.into()));
        assert_eq!(at(5), Ok(4));
    }
    assert_eq!(store.begin().check_revision(4), Err(RequestError::Compacted));
}

#[test]
fn a_snapshot_stays_as_it_was() {
    let mut store = filled();
    let snapshot = store.reader().snapshot();
    let before = snapshot.range(&all(), Disk::Allowed).unwrap();
    put(&mut store, "a", "later");
    delete(&mut store, &KeyRange::single("b"));
    assert_eq!(snapshot.range(&all(), Disk::Allowed), Ok(before));
    assert_eq!((snapshot.revision(), store.reader().revision()), (7, 9));
    assert_eq!(snapshot.get(b"b", Disk::Allowed).unwrap().value, Some(kv("b", "x", [5, 5, 1])));
    assert_eq!(store.reader().snapshots_live(), 1);
    drop(snapshot);
    assert_eq!(store.reader().snapshots_live(), 0);
}

#[test]
fn the_hash_depends_on_the_state_alone() {
    let mut store = filled();
    let at = |store: &Store, revision| store.reader().snapshot().hash_kv(revision).map(|found| found.value);
    let seven = at(&store, 0).unwrap();
    assert_eq!((seven.hash_revision, seven.compact_revision), (7, -1));
    put(&mut store, "a", "later");
    assert_eq!(at(&store, 7), Ok(seven));
    assert_ne!(at(&store, 8).unwrap().hash, seven.hash);
    assert_eq!(at(&store, 9), Err(RequestError::FutureRevision.into()));
    store.compact(6).unwrap();
    store.compact(7).unwrap();
    show(&mut store);
    while !store.compact_step(2).done {}
    let compacted = at(&store, 7).unwrap();
    assert_eq!((compacted.hash, compacted.compact_revision), (seven.hash, 6), "E78: the one before");
    assert_eq!(at(&store, 8).unwrap().compact_revision, 7);
    assert_eq!(at(&store, 6), Err(RequestError::Compacted.into()));
}

/// A publish that the disk had refused was `None`, as if no key had changed: the writer was answered
/// with success, and nobody could read what it wrote.
#[test]
fn a_refused_publish_is_an_error_and_shows_nothing() {
    let mut store = filled();
    let before = range(&store, &all()).unwrap();
    store.reader().values().give_up("damage under a read");
    let mut txn = store.begin();
    txn.put("a".into(), "later".into(), LeaseId::NONE);
    txn.commit();
    let refused = store.publish(position(8)).unwrap_err().to_string();
    assert!(refused.contains("damage under a read"), "{refused}");
    assert_eq!(range(&store, &all()), Ok(before));
    assert_eq!(store.reader().revision(), 7);
}

/// Bytes of which somebody counts the holders.
struct Counted {
    bytes: Vec<u8>,
    _holder: std::sync::Arc<()>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Cause: key and value were kept as they came, slices of the whole request, or of all that was read from a connection with
/// it, until they were on disk, and only their own bytes were counted. Symptom: a hundred transactions a second of a large
/// branch that wasn't taken and a small one that was held hundreds of megabytes, within all limits.
#[test]
fn what_waits_for_the_disk_holds_nothing_of_the_request_around_it() {
    let mut store = Store::in_memory();
    let holders = std::sync::Arc::new(());
    for round in 0..20_i64 {
        let request =
            Bytes::from_owner(Counted { bytes: vec![b'x'; 1 << 16], _holder: std::sync::Arc::clone(&holders) });
        let mut txn = store.begin();
        txn.put(request.slice(..3), request.slice(10..12), LeaseId::NONE);
        txn.delete(&KeyRange::single(request.slice(..3)));
        txn.put(request.slice(..4), request.slice(10..10), LeaseId::NONE);
        txn.commit();
        let batch = store.publish(position(20 + round.cast_unsigned())).unwrap().unwrap();
        drop(request);
        assert_eq!(batch.events.len(), 3);
        assert_eq!(std::sync::Arc::strong_count(&holders), 1, "round {round}");
        assert_eq!(batch.events[0].event.kv.value, "xx");
    }
    let found = range(&store, &all()).unwrap();
    assert_eq!(keys(&found), ["xxxx"]);
}
