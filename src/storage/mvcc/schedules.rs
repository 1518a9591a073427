//! A writer, readers and the store thread, under many schedules: see `env/schedules`.

use bytes::Bytes;

use super::{Store, StoreConfig};
use crate::env::schedules::{block_on, check, env, spawn, turn};
use crate::storage::backend::{Engine, MemoryImage};
use crate::storage::{AppliedPosition, Disk, StoreReader};
use crate::types::{LeaseId, RaftIndex, Term};

/// Commands that are published; the store begins at revision 1.
const COMMANDS: i64 = 6;
/// Three of them close a chunk of what is pending, so that the store thread lets it go.
const VALUE_BYTES: usize = 400 << 10;
/// What readers watch.
const KEYS: [&[u8]; 2] = [b"large", b"small"];

/// One command after the other, each of which puts both keys; gives the store back, since closing it ends reads.
fn write(mut store: Store) -> Store {
    for command in 1..=COMMANDS {
        let mark = command.cast_unsigned();
        let mut value = vec![0; VALUE_BYTES];
        value[..8].copy_from_slice(&mark.to_be_bytes());
        let mut txn = store.begin();
        for (key, value) in KEYS.into_iter().zip([value, mark.to_be_bytes().to_vec()]) {
            txn.put(Bytes::from_static(key), Bytes::from(value), LeaseId::NONE);
        }
        txn.commit();
        store.publish(AppliedPosition { index: RaftIndex(mark), term: Term(1) }).expect("memory has room");
        turn();
    }
    block_on(store.values().flush()).expect("memory doesn't fail");
    store
}

/// What was found wrong, and the last revision seen.
fn read(reader: &StoreReader) -> (Vec<String>, i64) {
    let (mut faults, mut last) = (Vec::new(), 0);
    let mut look = |what: &str, fine: bool, revision: i64| {
        if !fine || revision < last {
            faults.push(format!("{what} at {revision} after {last}"));
        }
        last = last.max(revision);
    };
    for _ in 0..4 {
        let snapshot = reader.snapshot();
        let revision = snapshot.revision();
        let found = KEYS.map(|key| {
            turn();
            snapshot.get(key, Disk::Allowed).ok()?.value
        });
        let marks = found.each_ref().map(|pair| {
            let pair = pair.as_ref()?;
            let mark = u64::from_be_bytes(*pair.value.first_chunk::<8>()?);
            Some((pair.mod_revision, mark.cast_signed() + 1))
        });
        let due = (revision > 1).then_some((revision, revision));
        look("a snapshot is not of one command", marks == [due; 2], revision);

        let key = reader.get(KEYS[0], Disk::Allowed).ok();
        let (found, revision) = key.map_or((None, -1), |key| (key.value.map(|pair| pair.mod_revision), key.revision));
        look("a key is not of the revision that is told", found == (revision > 1).then_some(revision), revision);

        let before = reader.revision();
        let events = reader.events(2, usize::MAX, usize::MAX).map(|history| history.events).unwrap_or_default();
        let mains: Vec<i64> = events.iter().map(|event| event.revision.main).collect();
        let seen = mains.last().copied().unwrap_or(1);
        let due: Vec<i64> = (2..=seen).flat_map(|main| [main, main]).collect();
        look("history has a hole", mains == due && seen >= before, seen);
    }
    (faults, last)
}

/// What is published can be read, all of it and nothing else, whether it is pending, on its way to the engine, or there.
#[test]
fn schedules_what_is_published_is_read_whole() {
    check(&[], || {
        let mut config = StoreConfig::new(Engine::Memory(MemoryImage::default()), "memory");
        config.values.cache_bytes = 16 << 20;
        // The store thread begins with each append.
        config.values.flush_bytes = 1;
        let (store, _) = Store::open(&env().0, config).expect("memory opens");
        let reader = store.reader();
        let readers = [0; 2].map(|_| {
            let reader = reader.clone();
            spawn(move || read(&reader))
        });
        let store = spawn(move || write(store)).join().expect("the writer");
        for thread in readers {
            let (faults, last) = thread.join().expect("a reader");
            assert_eq!(faults, Vec::<String>::new());
            assert!(last <= 1 + COMMANDS);
        }
        assert_eq!(read(&reader), (Vec::new(), 1 + COMMANDS), "when all is written");
        drop(store);
    });
}
