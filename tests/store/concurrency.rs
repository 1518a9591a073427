//! Readers beside a writer at full speed: what they hold doesn't move, and nothing torn is ever seen.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bytes::Bytes;
use rusd::storage::{AppliedPosition, Disk, HistoryError, RangeQuery, Store};
use rusd::types::{KeyRange, LeaseId, RaftIndex, Term};

const KEYS: i64 = 50;

/// Every command puts its own revision as the value of all keys, so that any mixture shows.
fn write(store: &mut Store) {
    let mut txn = store.begin();
    let value = Bytes::from((txn.revision() + 1).to_string());
    for key in 0..KEYS {
        txn.put(Bytes::from(format!("key{key:02}")), value.clone(), LeaseId::NONE);
    }
    txn.commit();
    let revision = store.revision();
    store.publish(AppliedPosition { index: RaftIndex(revision.cast_unsigned()), term: Term(1) }).unwrap();
}

#[test]
fn readers_see_whole_revisions_that_stay_as_they_are() {
    let mut store = Store::in_memory();
    write(&mut store);
    let (reader, done) = (store.reader(), AtomicBool::new(false));
    let query = RangeQuery::latest(KeyRange::all());
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    let snapshot = reader.snapshot();
                    assert!(snapshot.revision() >= last, "a revision never goes back");
                    last = snapshot.revision();
                    let scoped = snapshot.range(&query, Disk::Allowed);
                    let Ok(scoped) = scoped else {
                        assert!(reader.compact_revision() > last, "only a compaction takes a value away");
                        continue;
                    };
                    assert_eq!((scoped.revision, scoped.value.count), (last, KEYS));
                    let value = Bytes::from(last.to_string());
                    assert!(scoped.value.kvs.iter().all(|kv| kv.mod_revision == last && kv.value == value));
                    let one = reader.get(b"key07", Disk::Allowed).map(|found| (found.revision, found.value));
                    if let Ok((revision, kv)) = one {
                        assert_eq!(kv.map(|kv| kv.mod_revision), Some(revision));
                    }
                }
            });
        }
        scope.spawn(|| {
            let mut from = 2;
            while !done.load(Ordering::Relaxed) {
                match reader.events(from, 3, usize::MAX) {
                    Ok(history) => {
                        assert_eq!(
                            history.events.len() as i64,
                            (history.next_main - from) * KEYS,
                            "no event is missing"
                        );
                        assert!(history.events.iter().all(|event| event.kv.value == event.kv.mod_revision.to_string()));
                        from = history.next_main;
                    }
                    Err(HistoryError::Compacted(at)) => from = at + 1,
                    Err(HistoryError::Storage(error)) => panic!("{error}"),
                }
            }
        });
        for n in 0..400 {
            write(&mut store);
            if n % 20 == 19 {
                store.compact(store.revision() - 10).unwrap();
            }
            store.compact_step(100);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(reader.snapshots_live(), 0);
}
