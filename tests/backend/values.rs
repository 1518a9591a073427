//! Values over each engine: visible at once, durable in order, the same after a restart.

use bytes::Bytes;
use rusd::storage::backend::{Engine, Table};
use rusd::storage::values::{RECORD_OVERHEAD_BYTES, record_bytes};
use rusd::storage::{Record, VersionRecord};
use rusd::types::{LeaseId, Revision, StorageError};

use crate::common::{Place, append, at, block_on, flush, is_everything, on_each_engine, position, record};

on_each_engine!(
    appended_is_readable_at_once_and_after_a_restart,
    what_is_durable_is_a_position_with_all_that_belongs_to_it,
    removed_records_are_gone_and_counted_out,
    rows_come_back_and_their_own_keys_are_refused,
    a_scan_joins_engine_and_memory,
    a_large_value_and_a_large_transaction_come_back,
    the_logical_size_is_the_same_on_every_engine,
    a_snapshot_takes_the_place_of_everything,
    an_abandoned_snapshot_changes_nothing,
    another_engine_is_refused,
);

fn appended_is_readable_at_once_and_after_a_restart(engine: Engine) {
    let place = Place::new(engine);
    for round in 0..3 {
        let (mut writer, reader, loaded) = place.open().unwrap();
        assert_eq!(loaded.position, position(round * 500));
        is_everything(&reader, loaded.records, 1..round * 500 + 1, 100);
        for main in round * 500 + 1..=round * 500 + 500 {
            append(&mut writer, main, 100);
            assert_eq!(reader.cached(at(main)), Some(record(main, 100)));
        }
        assert_eq!(flush(&writer), position(round * 500 + 500));
        for main in 1..=round * 500 + 500 {
            assert_eq!(reader.record(at(main)).unwrap(), Some(record(main, 100)));
        }
        assert_eq!(reader.record(at(9999)).unwrap(), None);
    }
}

fn what_is_durable_is_a_position_with_all_that_belongs_to_it(engine: Engine) {
    let place = Place::new(engine);
    let (mut writer, _reader, _) = place.open().unwrap();
    let durable = writer.durable();
    let mut last = position(0);
    for main in 1..=3000 {
        let row = (Table::Meta, Bytes::from_static(b"main"), Some(Bytes::from(main.to_string())));
        writer.append(vec![(at(main), record(main, 20))], vec![row], position(main)).unwrap();
        let now = *durable.borrow();
        assert!(now >= last && now <= position(main));
        last = now;
    }
    drop(writer);
    let (_writer, reader, loaded) = place.open().unwrap();
    assert_eq!(loaded.position, position(3000), "dropping the writer flushes");
    assert_eq!(loaded.meta, [(Bytes::from_static(b"main"), Bytes::from_static(b"3000"))]);
    is_everything(&reader, loaded.records, 1..3001, 20);
}

fn removed_records_are_gone_and_counted_out(engine: Engine) {
    let place = Place::new(engine);
    let (mut writer, reader, _) = place.open().unwrap();
    for main in 1..=2000 {
        append(&mut writer, main, 300);
    }
    let whole = writer.logical_size();
    flush(&writer);
    let kept = |main: &i64| main % 10 == 0;
    writer.remove((1..=2000).filter(|main| !kept(main)).map(at).collect(), None);
    while writer.logical_size() > whole / 9 {
        flush(&writer);
    }
    flush(&writer);
    for round in 0..2 {
        assert_eq!(writer.logical_size(), whole / 10);
        let left: Vec<i64> = reader.scan(at(0), at(5000), 5000).unwrap().iter().map(|(at, _)| at.main).collect();
        assert_eq!(left, (1..=2000).filter(kept).collect::<Vec<_>>(), "round {round}");
    }
    drop((writer, reader));
    let (writer, reader, loaded) = place.open().unwrap();
    let left: Vec<i64> = loaded.records.map(|head| head.unwrap().0.main).collect();
    assert_eq!(left, (1..=2000).filter(kept).collect::<Vec<_>>());
    assert_eq!(writer.logical_size(), whole / 10);
    assert_eq!(reader.record(at(1)).unwrap(), None);
    assert_eq!(reader.record(at(10)).unwrap(), Some(record(10, 300)));
}

fn rows_come_back_and_their_own_keys_are_refused(engine: Engine) {
    let place = Place::new(engine);
    let row = |table, key: &'static [u8], value: Option<&'static [u8]>| {
        (table, Bytes::from_static(key), value.map(Bytes::from_static))
    };
    let (mut writer, _reader, _) = place.open().unwrap();
    let rows = vec![
        row(Table::Lease, b"\0\0\x01", Some(b"1")),
        row(Table::Lease, b"\0\0\x02", Some(b"2")),
        row(Table::Auth, b"u", Some(b"x")),
    ];
    writer.append(vec![], rows, position(1)).unwrap();
    let rows = vec![row(Table::Lease, b"\0\0\x01", None), row(Table::Lease, b"\0\0\x02", Some(b"3"))];
    flush(&writer);
    writer.append(vec![], rows, position(2)).unwrap();
    for wrong in
        [row(Table::Meta, b"\0state", Some(b"x")), row(Table::Kv, b"k", Some(b"x")), row(Table::Index, b"k", None)]
    {
        assert!(matches!(writer.append(vec![], vec![wrong], position(3)), Err(StorageError::Mismatch(_))));
    }
    drop(writer);
    let (_writer, _reader, loaded) = place.open().unwrap();
    assert_eq!(loaded.position, position(2));
    assert_eq!(loaded.lease, [(Bytes::from_static(b"\0\0\x02"), Bytes::from_static(b"3"))]);
    assert_eq!(loaded.auth, [(Bytes::from_static(b"u"), Bytes::from_static(b"x"))]);
    assert!(loaded.meta.is_empty());
}

fn a_scan_joins_engine_and_memory(engine: Engine) {
    let place = Place::new(engine);
    let (mut writer, reader, _) = place.open().unwrap();
    for main in 1..=1500 {
        append(&mut writer, main, 10);
        if main == 1000 {
            flush(&writer);
        }
        if main % 100 == 0 {
            let all = reader.scan(at(0), at(i64::MAX), usize::MAX).unwrap();
            assert_eq!(all.len() as i64, main);
            assert!(
                all.iter()
                    .zip(1..)
                    .all(|((found, record_found), main)| { *found == at(main) && *record_found == record(main, 10) })
            );
        }
    }
    let mains = |from, to, limit| -> Vec<i64> {
        reader.scan(at(from), at(to), limit).unwrap().iter().map(|(at, _)| at.main).collect()
    };
    assert_eq!(mains(300, 1400, 800), (300..1100).collect::<Vec<_>>());
    assert_eq!(mains(127, 129, 9), [127, 128]);
    assert_eq!(mains(5, 5, 9), [0; 0]);
}

fn a_large_value_and_a_large_transaction_come_back(engine: Engine) {
    let place = Place::new(engine);
    let (mut writer, reader, _) = place.open().unwrap();
    append(&mut writer, 1, 1_500_000);
    let many: Vec<_> = (0..128).map(|sub| (Revision::new(2, sub), record(sub, 9_000))).collect();
    writer.append(many.clone(), vec![], position(2)).unwrap();
    let tombstone = Record { key: Bytes::from_static(b"gone"), version: None };
    writer.append(vec![(at(3), tombstone.clone())], vec![], position(3)).unwrap();
    flush(&writer);
    drop((writer, reader));
    let (_writer, reader, loaded) = place.open().unwrap();
    assert_eq!(loaded.records.count(), 130);
    assert_eq!(reader.record(at(1)).unwrap(), Some(record(1, 1_500_000)));
    assert_eq!(reader.scan(at(2), at(3), 1000).unwrap(), many);
    assert_eq!(reader.record(at(3)).unwrap(), Some(tombstone));
}

fn the_logical_size_is_the_same_on_every_engine(engine: Engine) {
    let place = Place::new(engine);
    let (mut writer, _reader, _) = place.open().unwrap();
    let mut expected = 0;
    for main in 1..=100 {
        expected += record_bytes(&record(main, main as usize));
        append(&mut writer, main, main as usize);
    }
    assert_eq!(writer.logical_size(), expected);
    assert_eq!(expected, 100 * (RECORD_OVERHEAD_BYTES + 10) + 100 * 101 / 2);
    flush(&writer);
    assert_eq!(writer.logical_size(), expected);
    assert!(writer.disk_size().unwrap() > 0);
    drop(writer);
    assert_eq!(place.open().unwrap().0.logical_size(), expected);
}

fn new_record(main: i64) -> Record {
    let version =
        VersionRecord { value: vec![1; 3000].into(), create_revision: main, version: 1, lease: LeaseId::NONE };
    Record { key: Bytes::from(format!("new/{main}")), version: Some(version) }
}

fn a_snapshot_takes_the_place_of_everything(engine: Engine) {
    let place = Place::new(engine);
    let (mut writer, reader, _) = place.open().unwrap();
    for main in 1..=500 {
        append(&mut writer, main, 100);
    }
    flush(&writer);
    append(&mut writer, 501, 100);
    let waiter = writer.flush();
    let mut new = writer.replace().unwrap();
    for main in (1000..9000).step_by(3) {
        new.record(at(main), &new_record(main)).unwrap();
    }
    assert!(matches!(new.record(at(5), &new_record(5)), Err(StorageError::Mismatch(_))));
    new.row(Table::Lease, Bytes::from_static(b"l"), Bytes::from_static(b"x")).unwrap();
    new.seal(position(9000)).unwrap();
    writer.take_over(new).unwrap();
    assert!(block_on(waiter).unwrap() >= position(501));
    assert_eq!(*writer.durable().borrow(), position(9000));
    assert_eq!((reader.cached(at(501)), reader.record(at(5)).unwrap()), (None, None));
    assert_eq!(reader.record(at(1003)).unwrap(), Some(new_record(1003)));
    append(&mut writer, 9001, 50);
    flush(&writer);
    let size = writer.logical_size();
    drop((writer, reader));

    let (writer, reader, loaded) = place.open().unwrap();
    assert_eq!((loaded.position, loaded.lease.len()), (position(9001), 1));
    let mains: Vec<i64> = loaded.records.map(|head| head.unwrap().0.main).collect();
    assert_eq!(mains, (1000..9000).step_by(3).chain([9001]).collect::<Vec<_>>());
    assert_eq!(reader.scan(at(0), at(1010), 99).unwrap().len(), 4);
    assert_eq!(writer.logical_size(), size);
}

fn an_abandoned_snapshot_changes_nothing(engine: Engine) {
    let place = Place::new(engine);
    let (mut writer, reader, _) = place.open().unwrap();
    append(&mut writer, 1, 100);
    for _ in 0..2 {
        let mut new = writer.replace().unwrap();
        for main in 1000..4000 {
            new.record(at(main), &new_record(main)).unwrap();
        }
    }
    append(&mut writer, 2, 100);
    flush(&writer);
    drop((writer, reader));
    let (_writer, reader, loaded) = place.open().unwrap();
    is_everything(&reader, loaded.records, 1..3, 100);
}

fn another_engine_is_refused(engine: Engine) {
    let place = Place::new(engine);
    let other = match place.engine {
        Engine::Memory(_) => return,
        Engine::Sled => Engine::Redb,
        Engine::Redb => Engine::Sled,
    };
    drop(place.open().unwrap());
    let place = Place { engine: other, ..place };
    assert!(matches!(place.open(), Err(StorageError::Mismatch(_))));
}
