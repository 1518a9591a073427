//! The two workers on a real runtime, over a store in memory.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::timeout;

use super::{AutoCompaction, AutoCompactor, ReclaimOptions, Reclaimer};
use crate::storage::{AppliedPosition, Store};
use crate::types::{LeaseId, RequestError};

const SOON: Duration = Duration::from_secs(20);

fn filled() -> Store {
    let mut store = Store::in_memory();
    for n in 0..100 {
        let mut txn = store.begin();
        txn.put(format!("key{}", n % 30).into(), "v".into(), LeaseId::NONE);
        txn.commit();
    }
    store.publish(AppliedPosition::default()).unwrap();
    store
}

#[tokio::test]
async fn the_reclaimer_makes_a_compaction_physical_and_says_so() {
    let store = Arc::new(Mutex::new(filled()));
    let reader = store.lock().reader();
    let options = ReclaimOptions { batch_limit: 10, sleep_interval: Duration::from_millis(1) };
    let (owner, mut steps) = (Arc::clone(&store), 0);
    let worker = Reclaimer::new(reader.clone(), options).run(move |keys_max| {
        let step = owner.lock().compact_step(keys_max);
        assert!(step.removed <= 10 * 4, "ten keys have four versions each");
        steps += 1;
        async move { (steps < 100).then_some(step) }
    });
    for revision in [50, 101] {
        store.lock().compact(revision).unwrap();
        store.lock().publish(AppliedPosition::default()).unwrap();
        let mut reclaimed = reader.reclaimed();
        timeout(SOON, reclaimed.wait_for(|reclaimed| *reclaimed >= revision)).await.unwrap().unwrap();
    }
    assert!(!store.lock().is_compacting());
    worker.abort();
}

#[tokio::test]
async fn a_pinned_snapshot_holds_removal_off() {
    let mut store = filled();
    let snapshot = store.reader().snapshot_pinned();
    store.compact(101).unwrap();
    store.publish(AppliedPosition::default()).unwrap();
    for _ in 0..10 {
        assert_eq!(store.compact_step(1000).removed, 0);
    }
    let mut seen = 0;
    let count = |_, _: &crate::storage::Record| {
        seen += 1;
        Ok::<_, crate::types::StorageError>(())
    };
    snapshot.each_record(count).unwrap();
    assert_eq!(seen, 100);
    drop(snapshot);
    assert_eq!(store.compact_step(1000).removed, 70);
}

#[tokio::test(start_paused = true)]
async fn the_auto_compactor_proposes_what_is_due_until_it_is_done() {
    let store = filled();
    let mode = AutoCompaction::Revision(40);
    let compactor = AutoCompactor::new(mode, store.reader()).unwrap();
    let proposed = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&proposed);
    let worker = compactor.run(
        || true,
        move |revision| {
            seen.lock().push(revision);
            let first = seen.lock().len() == 1;
            async move { if first { Err(RequestError::Timeout) } else { Err(RequestError::Compacted) } }
        },
    );
    tokio::time::sleep(Duration::from_secs(3600)).await;
    worker.abort();
    assert_eq!(*proposed.lock(), [61, 61], "tried again after a failure, not after a success");
    assert!(AutoCompactor::new(AutoCompaction::Off, store.reader()).is_none());
}
