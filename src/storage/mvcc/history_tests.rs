//! The past: events from a revision on, compaction made physical, restart.

use bytes::Bytes;

use super::{Store, StoreConfig};
use crate::env::Env;
use crate::storage::backend::{Engine, MemoryImage};
use crate::storage::{AppliedPosition, Disk, HistoryError, RangeQuery, Record, SnapshotItem, Table, values};
use crate::types::{EventKind, KeyRange, KeyValue, LeaseId, RaftIndex, Revision, StorageError, Term};

fn config(image: &MemoryImage) -> StoreConfig {
    let mut config = StoreConfig::new(Engine::Memory(image.clone()), "memory");
    config.values.cache_bytes = 16 << 20;
    config
}

fn open(image: &MemoryImage) -> (Store, super::Opened) {
    Store::open(&Env::real(), config(image)).unwrap()
}

fn show(store: &mut Store) -> i64 {
    let revision = store.revision();
    store.publish(AppliedPosition { index: RaftIndex(revision.cast_unsigned()), term: Term(1) }).unwrap();
    revision
}

fn put(store: &mut Store, key: &str, value: &str) -> i64 {
    let mut txn = store.begin();
    txn.put(Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()), LeaseId::NONE);
    txn.commit();
    show(store)
}

fn delete(store: &mut Store, key: &str) -> i64 {
    let mut txn = store.begin();
    txn.delete(&KeyRange::single(Bytes::copy_from_slice(key.as_bytes())));
    txn.commit();
    show(store)
}

fn compact(store: &mut Store, revision: i64) {
    store.compact(revision).unwrap();
    show(store);
    while !store.compact_step(1).done {}
}

/// Closes and opens the store; with the main revisions of the records that are stored.
fn reopen(store: Store, image: &MemoryImage) -> (Store, Vec<i64>) {
    drop(store);
    let (writer, _, loaded) = values::open(&Env::real(), config(image).values).unwrap();
    let stored = loaded.records.map(|head| head.unwrap().0.main).collect();
    drop(writer);
    (open(image).0, stored)
}

#[test]
fn compaction_removes_what_nobody_can_read_any_more() {
    let image = MemoryImage::default();
    let (mut store, _) = open(&image);
    for value in ["1", "2", "3"] {
        put(&mut store, "k", value);
    }
    put(&mut store, "gone", "1");
    let end = delete(&mut store, "gone");
    put(&mut store, "k", "4");
    let (mut store, stored) = reopen(store, &image);
    assert_eq!(stored, [2, 3, 4, 5, 6, 7]);
    let mut reclaimed = store.reader().reclaimed();
    compact(&mut store, end);
    assert_eq!(futures::executor::block_on(reclaimed.wait_for(|at| *at >= end)).map(|at| *at).ok(), Some(end));
    let (mut store, stored) = reopen(store, &image);
    assert_eq!(stored, [4, 6, 7], "the tombstone at the revision itself stays");
    compact(&mut store, end + 1);
    let (store, stored) = reopen(store, &image);
    assert_eq!(stored, [7]);
    assert_eq!(store.reader().snapshot().index_len(), 1);
}

/// etcd 18089 and 19179. Cause: a compaction removed a tombstone of its own revision. Symptom: a watch from that revision
/// missed the deletion. Here the newest change up to the compact revision stays, if it is of that revision or a put.
#[test]
fn issue_18089_19179_a_watcher_from_the_compact_revision_still_sees_the_deletion() {
    let image = MemoryImage::default();
    let (mut store, _) = open(&image);
    put(&mut store, "k", "1");
    let end = delete(&mut store, "k");
    compact(&mut store, end);
    for _ in 0..2 {
        let history = store.reader().events(end, 10, 1000).unwrap();
        assert_eq!(history.events.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::Delete]);
        assert!(matches!(store.reader().events(end - 1, 10, 1000), Err(HistoryError::Compacted(at)) if at == end));
        store = reopen(store, &image).0;
    }
}

/// A txn may put a key in one nested txn and delete it in a later one. As etcd has it, a compaction at
/// that revision leaves the deletion alone; here at once, however far the removal of records is.
#[test]
fn of_one_keys_changes_at_the_compact_revision_the_last_stays() {
    let mut store = Store::in_memory();
    put(&mut store, "was", "0");
    let mut txn = store.begin();
    for key in ["new", "was"] {
        txn.put(key.into(), "1".into(), LeaseId::NONE);
    }
    for key in ["new", "was"] {
        txn.delete(&KeyRange::single(Bytes::from(key)));
    }
    txn.put("stays".into(), "1".into(), LeaseId::NONE);
    txn.commit();
    let at = show(&mut store);
    put(&mut store, "new", "2");
    let seen = |store: &Store| {
        let events = store.reader().events(at, 10, 1000).unwrap().events;
        events.iter().map(|event| (event.kind, event.revision)).collect::<Vec<_>>()
    };
    let all = seen(&store);
    assert_eq!(all.len(), 6, "nothing is left out before the compaction");
    let kept = [
        (EventKind::Delete, Revision::new(at, 2)),
        (EventKind::Delete, Revision::new(at, 3)),
        (EventKind::Put, Revision::new(at, 4)),
        (EventKind::Put, Revision::new(at + 1, 0)),
    ];
    store.compact(at).unwrap();
    show(&mut store);
    assert_eq!(seen(&store), kept, "with all records still there");
    while !store.compact_step(1).done {}
    futures::executor::block_on(store.values().flush()).unwrap();
    assert_eq!(seen(&store), kept, "with the records gone");
}

#[test]
fn events_come_in_whole_revisions_and_within_bounds() {
    let mut store = Store::in_memory();
    for _ in 0..600 {
        let mut txn = store.begin();
        txn.put("a".into(), "1234".into(), LeaseId::NONE);
        txn.put("b".into(), "1234".into(), LeaseId::NONE);
        txn.commit();
    }
    show(&mut store);
    let reader = store.reader();
    let mains = |from, revisions, bytes| {
        let history = reader.events(from, revisions, bytes).unwrap();
        (history.events.iter().map(|event| event.revision.main).collect::<Vec<_>>(), history.next_main)
    };
    assert_eq!(mains(600, 9, 1000), (vec![600, 600, 601, 601], 602));
    assert_eq!(mains(3, 2, 1000), (vec![3, 3, 4, 4], 5));
    assert_eq!(mains(3, 0, 0), (vec![3, 3], 4));
    assert_eq!(mains(3, 9, 11), (vec![3, 3, 4, 4], 5));
    assert_eq!(mains(602, 9, 1000), (vec![], 602));
    assert_eq!(mains(700, 9, 1000), (vec![], 700));
    let mut from = 0;
    let mut seen = Vec::new();
    while from < 602 {
        let history = reader.events(from, 77, usize::MAX).unwrap();
        seen.extend(history.events.iter().map(|event| event.revision));
        from = history.next_main;
    }
    let want: Vec<_> = (2..602).flat_map(|main| [Revision::new(main, 0), Revision::new(main, 1)]).collect();
    assert_eq!(seen, want);
}

#[test]
fn a_restart_finds_the_same_state_and_goes_on_compacting() {
    let image = MemoryImage::default();
    let (mut store, opened) = open(&image);
    assert_eq!((opened.position, opened.meta.len()), (AppliedPosition::default(), 0));
    for n in 0..50 {
        put(&mut store, &format!("key{}", n % 7), &n.to_string());
    }
    delete(&mut store, "key3");
    store.put_meta(Table::Lease, "l".into(), Some("x".into()));
    store.compact(40).unwrap();
    show(&mut store);
    store.compact_step(3);
    let digest = store.reader().snapshot().digest();
    let (store, stored) = reopen(store, &image);
    assert_eq!(stored.len(), 51, "only begun");
    drop(store);

    let (mut store, opened) = open(&image);
    assert_eq!(opened.position.index, RaftIndex(52));
    assert_eq!(opened.leases, [(Bytes::from("l"), Bytes::from("x"))]);
    let snapshot = store.reader().snapshot();
    assert_eq!((snapshot.revision(), snapshot.compact_revision(), snapshot.digest()), (52, 40, digest));
    assert_eq!(snapshot.get(b"key5", Disk::Allowed).unwrap().value.unwrap().value, "47");
    assert!(store.is_compacting());
    while !store.compact_step(1000).done {}
    let (store, stored) = reopen(store, &image);
    assert_eq!(stored.len(), 7 + 12);
    assert_eq!(store.reader().snapshot().digest(), digest);
}

/// etcd 17780. Cause: the revision was taken from the stored records, and a compaction had removed the newest. Symptom:
/// after a crash the revision was lower than before. Here the compact revision is stored before anything goes.
#[test]
fn issue_17780_revision_never_goes_down_after_crash_in_compaction() {
    for steps in 0..6 {
        let image = MemoryImage::default();
        let (mut store, _) = open(&image);
        for key in ["a", "b", "c"] {
            put(&mut store, key, "1");
            delete(&mut store, key);
        }
        let end = delete(&mut store, "none");
        assert_eq!(end, 7);
        store.compact(end).unwrap();
        show(&mut store);
        for _ in 0..steps {
            store.compact_step(1);
        }
        let (mut store, _) = reopen(store, &image);
        assert_eq!((store.revision(), store.compact_revision()), (end, end), "after {steps} steps");
        assert_eq!(put(&mut store, "a", "2"), end + 1);
    }
}

/// etcd 20650. Cause: a snapshot was installed while a compaction's work on the disk was under way, which then went on
/// with the records of the new state. Symptom: damaged data. Here an install forgets the pass and what it had found.
#[test]
fn issue_20650_an_install_ends_the_reclaiming_of_the_old_state() {
    let mut source = Store::in_memory();
    for n in 0..60 {
        put(&mut source, &format!("key{}", n % 6), &n.to_string());
    }
    let snapshot = source.reader().snapshot_pinned();
    let mut items: Vec<Result<SnapshotItem, StorageError>> = Vec::new();
    let collect = |at, record: &Record| {
        items.push(Ok(SnapshotItem::Record(at, record.clone())));
        Ok::<_, StorageError>(())
    };
    snapshot.each_record(collect).unwrap();

    let image = MemoryImage::default();
    let (mut store, _) = open(&image);
    for n in 0..50 {
        put(&mut store, &format!("key{}", n % 6), &n.to_string());
    }
    store.compact(40).unwrap();
    show(&mut store);
    assert!(!store.compact_step(2).done, "under way, with something found");
    store.install(snapshot.position(), items).unwrap();
    while !store.compact_step(1).done {}
    futures::executor::block_on(store.values().flush()).unwrap();
    for _ in 0..2 {
        let shown = store.reader().snapshot();
        assert_eq!((shown.digest(), shown.compact_revision()), (snapshot.digest(), -1));
        let old = store.reader().events(2, 100, usize::MAX).unwrap();
        assert_eq!(old.events.len(), 60, "nothing of the snapshot is gone");
        drop(shown);
        store = reopen(store, &image).0;
    }
}

#[test]
fn the_revision_survives_when_everything_is_deleted_and_compacted() {
    let image = MemoryImage::default();
    let (mut store, _) = open(&image);
    put(&mut store, "k", "1");
    put(&mut store, "k", "2");
    let end = delete(&mut store, "k");
    compact(&mut store, end);
    let (mut store, _) = reopen(store, &image);
    assert_eq!((store.revision(), store.compact_revision()), (end, end));
    assert_eq!(put(&mut store, "k", "3"), end + 1);
    compact(&mut store, end + 1);
    let (mut store, stored) = reopen(store, &image);
    assert_eq!(stored, [end + 1]);
    assert_eq!(store.begin().meta_of(b"k").unwrap().version, 1);
}

#[test]
fn a_pass_under_way_isnt_begun_anew_by_the_next_compaction() {
    let mut store = Store::in_memory();
    for n in 0..100 {
        put(&mut store, &format!("key{}", n % 10), "v");
    }
    store.compact(50).unwrap();
    show(&mut store);
    assert!(!store.compact_step(1).done);
    store.compact(90).unwrap();
    show(&mut store);
    let mut reclaimed = store.reader().reclaimed();
    let mut reached = vec![store.reclaim.finished];
    while !store.compact_step(5).done {
        reached.push(store.reclaim.finished);
    }
    reached.dedup();
    assert_eq!((reached, store.reclaim.finished), (vec![-1, 50], 90));
    assert_eq!(futures::executor::block_on(reclaimed.wait_for(|at| *at >= 90)).map(|at| *at).ok(), Some(90));
}

#[test]
fn a_snapshot_takes_the_place_of_everything() {
    let (mut source, image) = (Store::in_memory(), MemoryImage::default());
    for n in 0..300 {
        put(&mut source, &format!("key{}", n % 40), &n.to_string());
    }
    delete(&mut source, "key7");
    source.put_meta(Table::Lease, "lease".into(), Some("row".into()));
    source.compact(200).unwrap();
    let revision = show(&mut source);
    source.compact_step(50);
    let snapshot = source.reader().snapshot_pinned();
    put(&mut source, "key1", "later than the snapshot");
    let mut items: Vec<Result<SnapshotItem, StorageError>> = Vec::new();
    for table in [Table::Meta, Table::Lease, Table::Auth] {
        items
            .extend(snapshot.rows().of(table).into_iter().map(|(key, value)| Ok(SnapshotItem::Row(table, key, value))));
    }
    let collect = |at, record: &Record| {
        items.push(Ok(SnapshotItem::Record(at, record.clone())));
        Ok::<_, StorageError>(())
    };
    snapshot.each_record(collect).unwrap();

    let (mut store, _) = open(&image);
    put(&mut store, "old", "goes");
    assert!(store.install(snapshot.position(), broken_off(&items)).is_err());
    assert!(store.begin().meta_of(b"old").is_some(), "a failed one changes nothing");
    let held = store.reader().snapshot();

    let opened = store.install(snapshot.position(), items).unwrap();
    assert_eq!((opened.position, opened.leases), (snapshot.position(), vec![("lease".into(), "row".into())]));
    let check = |store: &Store| {
        let installed = store.reader().snapshot();
        assert_eq!((installed.revision(), installed.compact_revision()), (revision, 200));
        assert_eq!((installed.digest(), installed.rows().len()), (snapshot.digest(), snapshot.rows().len()));
        assert_eq!(installed.hash_kv(230).unwrap().value, snapshot.hash_kv(230).unwrap().value);
        assert_eq!(installed.get(b"key1", Disk::Allowed), snapshot.get(b"key1", Disk::Allowed));
    };
    check(&store);
    assert_eq!(held.revision(), 2);
    drop(held);
    let (mut store, _) = reopen(store, &image);
    assert_eq!(store.begin().meta_of(b"old"), None);
    check(&store);
    assert_eq!(put(&mut store, "key1", "and on"), revision + 1);
    while !store.compact_step(1000).done {}
    let snapshot = store.reader().snapshot();
    assert_eq!((snapshot.count(&KeyRange::all()), snapshot.index_len()), (39, 40), "the tombstone is younger");
}

/// The first items of a stream, which then breaks off.
fn broken_off(items: &[Result<SnapshotItem, StorageError>]) -> Vec<Result<SnapshotItem, StorageError>> {
    let whole = items.iter().take(10).map(|item| Ok(item.as_ref().unwrap().clone()));
    whole.chain([Err(StorageError::Closed("broken off".into()))]).collect()
}

/// Cause: values that aren't in memory are brought in another order than the keys', as far as some bytes go. Symptom: a
/// pair with another's value, or one that is missing.
#[test]
fn what_is_read_cold_is_what_was_written() {
    const KEYS: usize = 700;
    let image = MemoryImage::default();
    let (mut store, _) = open(&image);
    let value = |key: usize, round: usize| {
        let len = if key.is_multiple_of(50) { 90_000 } else { key % 97 * 31 };
        format!("{key} {round} {}", "v".repeat(len))
    };
    let mut revisions = Vec::new();
    for round in 0..3 {
        // Each time in another order, and in the last round not all of them.
        for key in (0..KEYS).map(|at| at * [1, 11, 13][round] % KEYS).filter(|key| round < 2 || key % 3 == 0) {
            put(&mut store, &format!("{key:04}"), &value(key, round));
        }
        revisions.push(store.revision());
    }
    delete(&mut store, "0005");
    for limit in [0, 1, 300] {
        let reopened = reopen(store, &image).0;
        for _ in ["cold", "warm"] {
            for (round, revision) in [(0, revisions[0]), (1, revisions[1]), (2, revisions[2]), (2, 0)] {
                let query = RangeQuery { limit, revision, ..RangeQuery::latest(KeyRange::all()) };
                let read = reopened.reader().range(&query, Disk::Allowed).unwrap().value;
                let keys = (0..KEYS).filter(|key| revision > 0 || *key != 5);
                let all: Vec<_> = keys
                    .map(|key| (format!("{key:04}"), value(key, if round == 2 && key % 3 != 0 { 1 } else { round })))
                    .collect();
                let wanted = if limit == 0 { &all[..] } else { &all[..limit as usize] };
                let pair = |(key, value): &(String, String), kv: &KeyValue| kv.key == *key && kv.value == *value;
                assert_eq!((read.kvs.len(), read.count), (wanted.len(), all.len() as i64));
                assert!(wanted.iter().zip(&read.kvs).all(|(wanted, kv)| pair(wanted, kv)), "at {revision}");
            }
        }
        store = reopened;
    }
}

/// Cause: what a batch has written and not published is in neither memory nor engine. Symptom: a transaction that reads a
/// range with its own writes in it, and cold values, doesn't see them.
#[test]
fn a_transaction_reads_its_own_writes_among_cold_values() {
    let image = MemoryImage::default();
    let (mut store, _) = open(&image);
    for key in 0..200 {
        put(&mut store, &format!("{key:03}"), "old");
    }
    let mut store = reopen(store, &image).0;
    let mut txn = store.begin();
    for key in (0..200).step_by(3) {
        txn.put(format!("{key:03}").into(), "new".into(), LeaseId::NONE);
    }
    let kvs = txn.range(&RangeQuery::latest(KeyRange::all())).unwrap().kvs;
    assert_eq!(kvs.len(), 200);
    for (key, kv) in kvs.iter().enumerate() {
        assert_eq!(kv.value, if key % 3 == 0 { "new" } else { "old" });
    }
}

#[test]
fn the_newest_living_versions_are_known() {
    let mut store = Store::in_memory();
    for key in 0..100 {
        put(&mut store, &format!("{:02}", key * 7 % 100), "1");
    }
    put(&mut store, "00", "2");
    delete(&mut store, "01");
    let snapshot = store.reader().snapshot();
    let mains = |max| snapshot.newest_living(max).iter().map(|at| at.main).collect::<Vec<_>>();
    // "00" was written first, and "01" as the 44th.
    let living: Vec<i64> = (3..=101).filter(|main| *main != 45).chain([102]).collect();
    assert_eq!(mains(1_000), living);
    assert_eq!(mains(10), living[living.len() - 10..]);
    assert_eq!(mains(1), [102]);
    assert!(mains(0).is_empty());
}
