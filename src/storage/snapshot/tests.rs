//! A snapshot comes back as it was, or not at all.

use super::*;
use crate::env::Env;
use crate::storage::Record;
use crate::storage::VersionRecord;
use crate::storage::backend::{Engine, MemoryImage};
use crate::storage::values::{self, ValueReader, ValueWriter, ValuesConfig};
use crate::types::Limits;
use crate::types::Revision;
use crate::types::{LeaseId, RaftIndex, Term};

fn position(index: u64) -> AppliedPosition {
    AppliedPosition { index: RaftIndex(index), term: Term(3) }
}

fn record(main: i64, bytes: usize) -> Record {
    let version =
        VersionRecord { value: vec![main as u8; bytes].into(), create_revision: main, version: 1, lease: LeaseId(5) };
    Record { key: Bytes::from(format!("key{main}")), version: Some(version) }
}

fn open() -> (ValueWriter, ValueReader) {
    let (writer, reader, _) =
        values::open(&Env::real(), ValuesConfig::new(Engine::Memory(MemoryImage::default()), "memory")).unwrap();
    (writer, reader)
}

fn fill(writer: &mut ValueWriter, mains: std::ops::RangeInclusive<i64>, bytes: usize) {
    for main in mains {
        let row = (Table::Lease, Bytes::from(main.to_be_bytes().to_vec()), Some(Bytes::from_static(b"lease")));
        let rows = if main % 4 == 0 { vec![row] } else { vec![] };
        let mut records = vec![(Revision::new(main, 0), record(main, bytes))];
        if main % 5 == 0 {
            records.push((Revision::new(main, 1), Record { key: Bytes::from_static(b"gone"), version: None }));
        }
        writer.append(records, rows, position(main as u64)).unwrap();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn sample(bytes: usize) -> (Vec<u8>, Frozen, Vec<(Revision, Record)>) {
    let (mut writer, reader) = open();
    let meta = |key: &'static [u8], value: Vec<u8>| (Table::Meta, Bytes::from_static(key), Some(Bytes::from(value)));
    let rows = vec![meta(MEMBERSHIP_KEY, b"three members".to_vec()), meta(COMPACT_KEY, 3i64.to_be_bytes().to_vec())];
    writer.append(vec![], rows, position(1)).unwrap();
    fill(&mut writer, 2..=60, bytes);
    let frozen = block_on(reader.freeze()).unwrap();
    let records = reader.scan(Revision::default(), Revision::new(61, 0), 1000).unwrap();
    // What comes later is not in it.
    fill(&mut writer, 61..=70, bytes);
    let mut out = Vec::new();
    let (header, written) = write_snapshot(&frozen, &reader, &mut out).unwrap();
    assert_eq!((header.position, written), (position(60), out.len() as u64));
    (out, frozen, records)
}

fn read(bytes: &[u8]) -> Result<(SnapshotHeader, Vec<SnapshotItem>), SnapshotError> {
    let mut items = Vec::new();
    let header = read_snapshot(bytes, |item| {
        items.push(item);
        Ok(())
    })?;
    Ok((header, items))
}

#[test]
fn it_comes_back_as_it_was() {
    for bytes in [10, 300_000] {
        let (out, frozen, records) = sample(bytes);
        let (header, items) = read(&out).unwrap();
        assert_eq!((header.position, header.revision, header.compact_revision), (position(60), 60, 3));
        assert_eq!(
            (header.membership.as_ref(), read_header(&out[..]).unwrap()),
            (&b"three members"[..], header.clone())
        );
        let rows = frozen.rows.iter().cloned().map(|(table, key, value)| SnapshotItem::Row(table, key, value));
        let records = records.into_iter().map(|(at, record)| SnapshotItem::Record(at, record));
        assert_eq!(items, rows.chain(records).collect::<Vec<_>>());
        let again = sample(bytes).0;
        assert!(out == again, "the bytes are a function of the state");
    }
}

/// The bytes that were checked, if it is whole.
fn check(bytes: &[u8]) -> Result<u64, SnapshotError> {
    let mut check = SnapshotCheck::new(bytes)?;
    let mut checked = 0;
    while let Some(bytes) = check.step()? {
        checked += bytes;
    }
    Ok(checked)
}

#[test]
fn every_flipped_byte_and_every_cut_is_seen() {
    let (out, ..) = sample(10);
    for at in 0..out.len() {
        let mut damaged = out.clone();
        damaged[at] ^= 1 << (at % 8);
        assert!(read(&damaged).is_err() && check(&damaged).is_err(), "byte {at}");
        assert!(read(&out[..at]).is_err() && check(&out[..at]).is_err(), "cut at {at}");
    }
    let longer = [&out[..], b"x"].concat();
    assert!(read(&longer).is_err() && check(&longer).is_err());
    assert!(check(&out).unwrap() > out.len() as u64 / 2);
}

#[test]
fn what_is_frozen_is_of_the_last_append_before() {
    let (mut writer, reader) = open();
    assert_eq!(block_on(reader.freeze()).unwrap(), Frozen::default());
    for round in 0..50u64 {
        let main = round as i64 * 10;
        fill(&mut writer, main + 1..=main + 10, 10);
        let frozen = reader.freeze();
        fill(&mut writer, main + 11..=main + 11, 10);
        let frozen = block_on(frozen).unwrap();
        assert_eq!((frozen.position, frozen.last_main), (position(round * 10 + 10), main + 10));
        // Revisions have to go up: this test lets the values begin anew each time.
        let mut new = writer.replace().unwrap();
        new.seal(position(round * 10 + 10)).unwrap();
        writer.take_over(new).unwrap();
    }
}

#[test]
fn any_bytes_are_refused_or_read_without_a_panic() {
    let (out, ..) = sample(10);
    bolero::check!().with_type::<(u16, Vec<u8>)>().for_each(|(at, bytes)| {
        let _ = read(bytes);
        let mut damaged = out.clone();
        let at = usize::from(*at) % damaged.len();
        let end = (at + bytes.len()).min(damaged.len());
        damaged[at..end].copy_from_slice(&bytes[..end - at]);
        assert!(damaged == out || read(&damaged).is_err());
    });
}

#[test]
fn a_file_is_the_whole_snapshot_or_not_there() {
    use crate::env::MemDisk;
    use std::path::Path;
    use std::sync::Arc;
    let disk = MemDisk::new();
    let env = Env { disk: Arc::new(disk.clone()), ..Env::real() };
    let dir = Path::new("/snapshots");
    env.disk.create_dir_all(dir).unwrap();
    let (mut writer, reader) = open();
    fill(&mut writer, 1..=40, 100);
    let frozen = block_on(reader.freeze()).unwrap();
    let path = dir.join("a");
    let (header, _) = save_snapshot(&env, &frozen, &reader, &path).unwrap();
    disk.crash(crate::env::CrashStyle::LoseAll);
    let read = |path| read_snapshot(open_snapshot(&env, path)?, |_| Ok(())).map_err(|error| error.at(path));
    assert_eq!(read(&path).unwrap(), header);
    disk.fail(crate::env::DiskOp::Sync, 0, 5);
    let other = dir.join("b");
    assert!(save_snapshot(&env, &frozen, &reader, &other).is_err());
    assert!(read(&other).is_err());
    assert_eq!(read(&path).unwrap(), header);
}

// Cause: a role was one row without a bound, and no row of more than 64 MiB goes into a snapshot. Symptom: none could be made
// any more, so the log was never purged and filled the disk.
#[test]
fn rows_as_long_as_one_may_grow_fit() {
    let (mut writer, reader) = open();
    let row = |name: u8| {
        let key = [b"role/".as_slice(), &[name]].concat();
        let value = vec![name; Limits::AUTH_ROW_BYTES_MAX - key.len()];
        (Table::Auth, Bytes::from(key), Some(Bytes::from(value)))
    };
    writer.append(vec![], (b'a'..b'g').map(row).collect(), position(1)).unwrap();
    let mut out = Vec::new();
    write_snapshot(&block_on(reader.freeze()).unwrap(), &reader, &mut out).unwrap();
    let (_, items) = read(&out).unwrap();
    assert_eq!(items, (b'a'..b'g').map(row).map(item).collect::<Vec<_>>());
    // As many requests too much as there are members may come together: there is room for 30 of them.
    let beyond = Bytes::from(vec![7; 30 * Limits::AUTH_ROW_BYTES_MAX]);
    writer.append(vec![], vec![(Table::Auth, Bytes::from_static(b"role/z"), Some(beyond))], position(2)).unwrap();
    write_snapshot(&block_on(reader.freeze()).unwrap(), &reader, &mut std::io::sink()).unwrap();
}

fn item((table, key, value): (Table, Bytes, Option<Bytes>)) -> SnapshotItem {
    SnapshotItem::Row(table, key, value.expect("it is written"))
}
