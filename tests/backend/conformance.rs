//! What every engine does.

use std::ops::ControlFlow;
use std::sync::Arc;

use rusd::env::Env;
use rusd::storage::backend::{self, Backend, Batch, Engine, Table};
use rusd::types::StorageError;

use crate::common::{Place, on_each_engine};

on_each_engine!(
    a_batch_is_read_back_from_every_table,
    the_last_write_of_a_key_in_a_batch_counts,
    a_visit_is_in_order_within_bounds_and_stops_when_told,
    removed_keys_are_gone,
    what_is_flushed_is_there_after_reopening,
    large_values_come_back_and_shrink,
    get_many_gives_what_is_there,
    a_closed_engine_says_so,
    an_empty_engine_is_empty,
    it_agrees_with_a_plain_map,
);

fn open(place: &Place) -> Arc<dyn Backend> {
    backend::open(&Env::real(), &place.backend()).unwrap()
}

fn put(engine: &dyn Backend, table: Table, key: &[u8], value: &[u8]) {
    let mut batch = Batch::default();
    batch.put(table, key, value);
    engine.write(&batch).unwrap();
}

fn a_batch_is_read_back_from_every_table(engine: Engine) {
    let place = Place::new(engine);
    let engine = open(&place);
    let mut batch = Batch::default();
    for table in Table::ALL {
        batch.put(table, b"key", &[table.id()]);
        batch.put(table, b"", b"empty key");
    }
    engine.write(&batch).unwrap();
    for table in Table::ALL {
        assert_eq!(engine.get(table, b"key").unwrap(), Some(vec![table.id()]));
        assert_eq!(engine.get(table, b"").unwrap().as_deref(), Some(&b"empty key"[..]));
        assert_eq!(engine.get(table, b"other").unwrap(), None);
        assert_eq!(engine.scan(table, &[], None, 10).unwrap().len(), 2);
    }
}

fn the_last_write_of_a_key_in_a_batch_counts(engine: Engine) {
    let place = Place::new(engine);
    let engine = open(&place);
    let mut batch = Batch::default();
    batch.put(Table::Meta, b"a", b"1");
    batch.delete(Table::Meta, b"a");
    batch.delete(Table::Meta, b"b");
    batch.put(Table::Meta, b"b", b"2");
    engine.write(&batch).unwrap();
    assert_eq!(engine.scan(Table::Meta, &[], None, 9).unwrap(), [(b"b".to_vec(), b"2".to_vec())]);
}

fn a_visit_is_in_order_within_bounds_and_stops_when_told(engine: Engine) {
    let place = Place::new(engine);
    let engine = open(&place);
    let mut batch = Batch::default();
    for number in (0..1000u32).rev() {
        batch.put(Table::Kv, &number.to_be_bytes(), b"v");
    }
    engine.write(&batch).unwrap();
    let keys = |from: u32, to: Option<u32>, limit| -> Vec<u32> {
        let to = to.map(u32::to_be_bytes);
        let pairs = engine.scan(Table::Kv, &from.to_be_bytes(), to.as_ref().map(|to| &to[..]), limit).unwrap();
        pairs.iter().map(|(key, _)| u32::from_be_bytes(key[..].try_into().unwrap())).collect()
    };
    assert_eq!(keys(0, None, usize::MAX), (0..1000).collect::<Vec<_>>());
    assert_eq!(keys(10, Some(500), usize::MAX), (10..500).collect::<Vec<_>>());
    assert_eq!(keys(10, Some(500), 3), [10, 11, 12]);
    assert_eq!(keys(10, Some(10), 3), [0; 0]);
    assert_eq!(keys(10, Some(5), 3), [0; 0]);
    let mut seen = 0;
    let mut stop = |_: &[u8], _: &[u8]| {
        seen += 1;
        if seen < 5 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    engine.visit(Table::Kv, &[], None, &mut stop).unwrap();
    assert_eq!(seen, 5);
}

fn removed_keys_are_gone(engine: Engine) {
    let place = Place::new(engine);
    let engine = open(&place);
    let mut batch = Batch::default();
    for number in 0..2000u32 {
        batch.put(Table::Kv, &number.to_be_bytes(), &[7; 300]);
    }
    engine.write(&batch).unwrap();
    engine.flush().unwrap();
    let keys: Vec<_> =
        (0..2000u32).filter(|number| number % 100 != 0).map(|number| number.to_be_bytes().to_vec()).collect();
    engine.remove(Table::Kv, &keys).unwrap();
    engine.remove(Table::Kv, &keys).unwrap();
    engine.flush().unwrap();
    let left = engine.scan(Table::Kv, &[], None, usize::MAX).unwrap();
    assert_eq!(left.len(), 20);
    assert_eq!(engine.get(Table::Kv, &1u32.to_be_bytes()).unwrap(), None);
    drop(engine);
    assert_eq!(open(&place).scan(Table::Kv, &[], None, usize::MAX).unwrap(), left);
}

fn what_is_flushed_is_there_after_reopening(engine: Engine) {
    let place = Place::new(engine);
    for round in 0..5u8 {
        let engine = open(&place);
        for before in 0..round {
            assert_eq!(engine.get(Table::Lease, &[before]).unwrap(), Some(vec![before; 50]));
        }
        put(&*engine, Table::Lease, &[round], &[round; 50]);
        engine.flush().unwrap();
        if round % 2 == 0 {
            engine.close().unwrap();
        }
    }
}

fn large_values_come_back_and_shrink(engine: Engine) {
    let place = Place::new(engine);
    let engine = open(&place);
    let value = |len: usize| (0..len).map(|at| (at * 7 % 251) as u8).collect::<Vec<_>>();
    for len in [1_500_000, 16 << 10, (16 << 10) + 1, 40_000, 0, 900_000, 5] {
        put(&*engine, Table::Meta, b"large", &value(len));
        assert_eq!(engine.get(Table::Meta, b"large").unwrap(), Some(value(len)));
        assert_eq!(engine.scan(Table::Meta, &[], None, 9).unwrap(), [(b"large".to_vec(), value(len))]);
        engine.flush().unwrap();
    }
    put(&*engine, Table::Kv, b"k", &value(100_000));
    engine.remove(Table::Kv, &[b"k".to_vec()]).unwrap();
    assert_eq!(engine.get(Table::Kv, b"k").unwrap(), None);
    for table in Table::ALL {
        let expected = usize::from(table == Table::Meta);
        assert_eq!(engine.scan(table, &[], None, 9).unwrap().len(), expected, "{table:?}");
    }
}

fn get_many_gives_what_is_there(engine: Engine) {
    let place = Place::new(engine);
    let engine = open(&place);
    for key in [b"a", b"c", b"d"] {
        put(&*engine, Table::Auth, key, key);
    }
    let mut seen = Vec::new();
    let mut keys = [b"d", b"b", b"a", b"c"].into_iter().map(|key| key.to_vec());
    let mut visit = |key: &[u8], value: &[u8]| {
        assert_eq!(key, value);
        seen.push(key[0]);
        if seen.len() < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    engine.get_many(Table::Auth, &mut keys, &mut visit).unwrap();
    assert_eq!(seen, b"da");
}

fn a_closed_engine_says_so(engine: Engine) {
    let place = Place::new(engine);
    let engine = open(&place);
    put(&*engine, Table::Kv, b"k", b"v");
    engine.close().unwrap();
    engine.close().unwrap();
    let mut batch = Batch::default();
    batch.put(Table::Kv, b"k", b"v");
    assert!(matches!(engine.get(Table::Kv, b"k"), Err(StorageError::Closed(_))));
    assert!(matches!(engine.write(&batch), Err(StorageError::Closed(_))));
    assert!(matches!(engine.flush(), Err(StorageError::Closed(_))));
    assert_eq!(open(&place).get(Table::Kv, b"k").unwrap().as_deref(), Some(&b"v"[..]), "closing flushes");
}

fn an_empty_engine_is_empty(engine: Engine) {
    let place = Place::new(engine);
    for _ in 0..2 {
        let engine = open(&place);
        for table in Table::ALL {
            assert!(engine.scan(table, &[], None, 9).unwrap().is_empty());
        }
        engine.flush().unwrap();
        assert!(engine.size().unwrap() < 4 << 20);
    }
}

/// Random writes, removals, flushes and reopenings against a `BTreeMap`.
fn it_agrees_with_a_plain_map(engine: Engine) {
    use rand::{Rng, SeedableRng};
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let place = Place::new(engine);
    let mut engine = open(&place);
    let mut model = std::collections::BTreeMap::new();
    for round in 0..300 {
        let mut batch = Batch::default();
        for _ in 0..random.random_range(1..20) {
            let key = random.random_range(0..400u32).to_be_bytes().to_vec();
            // Records are written once; other tables may change length.
            if random.random_bool(0.8) {
                let len = if random.random_bool(0.02) { 50_000 } else { random.random_range(0..200) };
                let value = vec![random.random::<u8>(); len];
                batch.put(Table::Index, &key, &value);
                model.insert(key, value);
            } else {
                batch.delete(Table::Index, &key);
                model.remove(&key);
            }
        }
        engine.write(&batch).unwrap();
        if random.random_bool(0.3) {
            let keys: Vec<_> = (0..30).map(|_| random.random_range(0..400u32).to_be_bytes().to_vec()).collect();
            engine.remove(Table::Index, &keys).unwrap();
            keys.iter().for_each(|key| drop(model.remove(key)));
        }
        if random.random_bool(0.3) {
            engine.flush().unwrap();
        }
        if round % 60 == 59 {
            engine.close().unwrap();
            engine = open(&place);
        }
        if round % 10 == 0 {
            let expected: Vec<_> = model.clone().into_iter().collect();
            assert_eq!(engine.scan(Table::Index, &[], None, usize::MAX).unwrap(), expected, "round {round}");
        }
    }
}
