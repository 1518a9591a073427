//! Files and logs of etcd's, damaged in every byte: named, or read as far as they are whole; never a panic.

use std::path::Path;

use bytes::Bytes;
use prost::Message;

use super::*;
use crate::env::{Access, Disk, Env, MemDisk};
use crate::lease::LeaseRecord;
use crate::storage::snapshot::bbolt::{BboltContent, export_bbolt};
use crate::storage::{AppliedPosition, Store, Table, compact_row};
use crate::types::{LeaseId, RaftIndex, Term};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// A file with keys, deletions, a lease, an alarm and a user.
fn file() -> (MemDisk, Vec<u8>) {
    let disk = MemDisk::new();
    disk.create_dir_all(Path::new("/d")).unwrap();
    let mut store = Store::in_memory();
    for at in 0..60 {
        let mut txn = store.begin();
        txn.put(format!("k{}", at % 7).into(), vec![at; usize::from(at) * 3].into(), LeaseId(i64::from(at % 2)));
        if at % 9 == 8 {
            txn.delete(&crate::types::KeyRange::single("k3"));
        }
        txn.commit();
    }
    let (key, value) = compact_row(20, -1);
    store.put_meta(Table::Meta, key, Some(value));
    store.publish(AppliedPosition { index: RaftIndex(77), term: Term(4) }).unwrap();
    let reader = store.reader();
    let frozen = block_on(reader.values().freeze()).unwrap();
    let mut content = BboltContent::new("3.7.0", "3.7.0");
    content.lease(LeaseId(1), 600, 20);
    content.alarm(crate::types::MemberId(9), 1);
    content.auth(true, 12);
    let user = rusd_proto::authpb::User { name: "ann".into(), password: "$2a$".into(), ..Default::default() };
    content.auth_user(b"ann", &user.encode_to_vec());
    let permission = rusd_proto::authpb::Permission { perm_type: 2, key: "k".into(), range_end: "l".into() };
    let role = rusd_proto::authpb::Role { name: "r".into(), key_permission: vec![permission] };
    content.auth_role(b"r", &role.encode_to_vec());
    let env = Env { disk: std::sync::Arc::new(disk.clone()), ..Env::real() };
    let (mut stream, _) = export_bbolt(&env, &frozen, reader.values(), &content, Path::new("/d")).unwrap();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut bytes).unwrap();
    disk.open(Path::new("/d/db"), Access::CreateNew).unwrap();
    (disk, bytes)
}

/// Everything that an import reads.
fn read(disk: &MemDisk) -> Result<(Rows, usize, Status), ImportError> {
    let database = Database::open(disk, Path::new("/d/db"))?;
    database.check(&mut |_| ())?;
    database.position()?;
    database.revision()?;
    let mut records = 0;
    database.records(|_, _| {
        records += 1;
        Ok(())
    })?;
    Ok((database.rows()?, records, database.status(&mut |_| ())?))
}

#[test]
fn a_whole_file_is_read() {
    let (disk, bytes) = file();
    disk.set_bytes(Path::new("/d/db"), bytes);
    let database = Database::open(&disk, Path::new("/d/db")).unwrap();
    assert_eq!(database.position().unwrap(), AppliedPosition { index: RaftIndex(77), term: Term(4) });
    assert_eq!((database.revision().unwrap(), database.compact_revision().unwrap()), (61, 20));
    let (rows, records, status) = read(&disk).unwrap();
    assert_eq!((records, status.revision, status.total_key), (66, 61, 7));
    let lease = LeaseRecord { ttl_secs: 600, remaining_secs: 20 };
    assert!(rows.contains(&(Table::Lease, LeaseRecord::key(LeaseId(1)), lease.encode())));
    assert_eq!(rows.iter().filter(|(table, ..)| *table == Table::Auth).count(), 3);
    assert_eq!(rows.iter().filter(|(table, ..)| *table == Table::Meta).count(), 2, "an alarm, and the compaction");
    assert_eq!(database.auth_revision().unwrap(), 12);
}

#[test]
fn any_byte_of_a_file_may_be_wrong() {
    let (disk, bytes) = file();
    let mut refused = 0;
    // Of the room that nothing is in, a few will do.
    for at in (0..bytes.len()).filter(|at| bytes[*at] != 0 || at % 64 < 8 || at % 16 == 0) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        disk.set_bytes(Path::new("/d/db"), damaged);
        refused += usize::from(read(&disk).is_err());
    }
    assert!(refused > 500, "{refused}");
    for len in (0..bytes.len()).step_by(97) {
        disk.set_bytes(Path::new("/d/db"), bytes[..len].to_vec());
        assert!(read(&disk).is_err(), "cut at {len}");
    }
}

/// Writes a log as etcd does.
struct Writer {
    bytes: Vec<u8>,
    crc: u32,
}

impl Writer {
    fn new(crc: u32) -> Self {
        let mut writer = Self { bytes: Vec::new(), crc };
        writer.record(4, &[]);
        writer
    }

    fn record(&mut self, kind: u8, data: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, data);
        let mut record = vec![8, kind, 16];
        prost::encoding::encode_varint(u64::from(self.crc), &mut record);
        if kind != 4 {
            record.push(26);
            prost::encoding::encode_varint(data.len() as u64, &mut record);
            record.extend_from_slice(data);
        }
        let padding = (8 - record.len() % 8) % 8;
        let mut head = record.len() as u64;
        if padding > 0 {
            head |= (0x80 | padding as u64) << 56;
        }
        self.bytes.extend_from_slice(&head.to_le_bytes());
        self.bytes.extend_from_slice(&record);
        self.bytes.resize(self.bytes.len() + padding, 0);
    }

    fn entry(&mut self, term: u64, index: u64, data: &[u8]) {
        let mut entry = Vec::new();
        for (tag, value) in [(8, 0), (16, term), (24, index)] {
            entry.push(tag);
            prost::encoding::encode_varint(value, &mut entry);
        }
        entry.push(34);
        prost::encoding::encode_varint(data.len() as u64, &mut entry);
        entry.extend_from_slice(data);
        self.record(2, &entry);
    }

    fn state(&mut self, term: u64, commit: u64) {
        self.record(3, &[8, term as u8, 24, commit as u8]);
    }
}

const WAL: &str = "/wal";
const FILES: [&str; 2] = ["0000000000000000-0000000000000000.wal", "0000000000000001-0000000000000006.wal"];

/// Entries 1 to 9 in two files; entry 5 came twice, and a longer one stands at the end.
fn log() -> (MemDisk, [Vec<u8>; 2]) {
    let disk = MemDisk::new();
    disk.create_dir_all(Path::new(WAL)).unwrap();
    let mut first = Writer::new(0);
    first.record(1, b"metadata");
    for index in 1..=4 {
        first.entry(2, index, format!("{index}").as_bytes());
    }
    first.entry(2, 5, b"void");
    first.entry(2, 6, b"void, too");
    first.entry(3, 5, b"5");
    first.state(3, 5);
    let mut second = Writer::new(first.crc);
    for index in 6..=8 {
        second.entry(3, index, format!("{index}").as_bytes());
    }
    second.state(3, 7);
    second.entry(3, 9, &[b'9'; 3_000]);
    let mut second = second.bytes;
    second.resize(second.len() + 4_096, 0);
    for name in FILES {
        disk.open(&Path::new(WAL).join(name), Access::CreateNew).unwrap();
    }
    (disk, [first.bytes, second])
}

fn put(disk: &MemDisk, files: &[Vec<u8>; 2]) {
    for (name, bytes) in FILES.iter().zip(files) {
        disk.set_bytes(&Path::new(WAL).join(name), bytes.clone());
    }
}

/// Index, term and data of each entry, and up to where they are committed.
type Found = (Vec<(u64, u64, Bytes)>, u64);

fn entries(disk: &MemDisk, after: u64, term: u64) -> Result<Found, ImportError> {
    let log = Log::read(disk, Path::new(WAL), after, term)?;
    Ok((log.entries.into_iter().map(|entry| (entry.index, entry.term, entry.data)).collect(), log.committed))
}

#[test]
fn what_a_log_holds_after_an_entry_is_read() {
    let (disk, files) = log();
    put(&disk, &files);
    let (all, committed) = entries(&disk, 3, 2).unwrap();
    assert_eq!(committed, 7);
    assert_eq!(
        all.iter().map(|(index, term, _)| (*index, *term)).collect::<Vec<_>>(),
        [(4, 2), (5, 3), (6, 3), (7, 3), (8, 3), (9, 3)]
    );
    assert_eq!(&all[1].2[..], b"5", "the later one counts");
    assert_eq!(entries(&disk, 9, 3).unwrap().0, vec![]);
    assert!(entries(&disk, 4, 3).is_err(), "another database's");
    disk.remove(&Path::new(WAL).join(FILES[0])).unwrap();
    assert!(entries(&disk, 3, 2).is_err(), "those between are missing");
    assert_eq!(entries(&disk, 6, 3).unwrap().0.len(), 3, "a log that was cut at its beginning");
}

/// A log cut anywhere gives the entries before the cut: etcd was killed there, and had acknowledged nothing of it.
#[test]
fn a_log_that_ends_early_gives_what_is_before() {
    let (disk, files) = log();
    put(&disk, &files);
    let (all, _) = entries(&disk, 3, 2).unwrap();
    for len in 0..files[1].len() {
        put(&disk, &[files[0].clone(), files[1][..len].to_vec()]);
        let (some, _) = entries(&disk, 3, 2).unwrap();
        assert!(some.len() >= 2 && all.starts_with(&some), "cut at {len}");
    }
    let torn = files[1].len() - 4_096 - 2_000;
    let mut bytes = files[1].clone();
    bytes[torn..torn + 1_024].fill(0);
    put(&disk, &[files[0].clone(), bytes]);
    assert_eq!(entries(&disk, 3, 2).unwrap().0.len(), 5, "sectors of the last record were never written");
}

#[test]
fn any_byte_of_a_log_may_be_wrong() {
    let (disk, files) = log();
    put(&disk, &files);
    let (all, _) = entries(&disk, 3, 2).unwrap();
    let mut refused = 0;
    for file in 0..2 {
        for at in 0..files[file].len() {
            let mut damaged = files.clone();
            damaged[file][at] ^= 1 << (at % 8);
            put(&disk, &damaged);
            match entries(&disk, 3, 2) {
                Err(_) => refused += 1,
                // Beyond the last record, or its length: then it ends there.
                Ok((some, _)) => assert!(all.starts_with(&some), "file {file}, byte {at}"),
            }
        }
    }
    assert!(refused > 3_000, "{refused}");
}

#[test]
fn a_log_that_does_not_reach_the_database_is_refused() {
    let (disk, files) = log();
    put(&disk, &files);
    let says = |after, term, text: &str| {
        let refused = entries(&disk, after, term).unwrap_err().to_string();
        assert!(refused.contains(text), "{refused}");
    };
    says(10, 3, "the log ends at entry 9");
    assert_eq!(entries(&disk, 6, 3).unwrap().0.len(), 3, "entry 6 was another one before");
    says(6, 2, "is of term 3");
    disk.remove(&Path::new(WAL).join(FILES[1])).unwrap();
    assert_eq!(entries(&disk, 3, 2).unwrap().0.len(), 2);
    says(7, 3, "the log ends at entry 5");
    // It says that more was committed than there is.
    let mut first = Writer::new(0);
    first.entry(2, 1, b"1");
    first.state(2, 3);
    disk.set_bytes(&Path::new(WAL).join(FILES[0]), first.bytes);
    says(1, 2, "entry 3 was committed");
}

#[test]
fn a_snapshot_that_was_received_and_not_taken_in_is_refused() {
    let (disk, _) = log();
    disk.remove(&Path::new(WAL).join(FILES[1])).unwrap();
    let write = |commit| {
        let mut first = Writer::new(0);
        first.entry(2, 1, b"1");
        first.record(5, &[8, 40, 16, 2]);
        first.state(2, commit);
        disk.set_bytes(&Path::new(WAL).join(FILES[0]), first.bytes);
    };
    write(40);
    assert!(entries(&disk, 1, 2).unwrap_err().to_string().contains("a snapshot up to entry 40 was received"));
    assert_eq!(entries(&disk, 40, 2).unwrap().0, vec![], "the database is that far");
    write(1);
    assert_eq!(entries(&disk, 1, 2).unwrap().0, vec![], "it was never committed");
}

fn commands_of(tag: u32, request: &impl Message, user: &str) -> Result<Vec<crate::apply::Command>, ImportError> {
    let mut data = Vec::new();
    prost::encoding::bytes::encode(tag, &request.encode_to_vec(), &mut data);
    let mut header = Vec::new();
    prost::encoding::string::encode(2, &user.to_owned(), &mut header);
    prost::encoding::uint64::encode(3, &4, &mut header);
    prost::encoding::bytes::encode(100, &header, &mut data);
    commands(&LogEntry { index: 1, term: 1, is_request: true, data: data.into() })
}

/// Those that etcd asks nobody for where it applies them are done, whoever asked, and whatever changed since.
#[test]
fn requests_are_applied_as_etcd_applies_them() {
    use crate::apply::{Command, Op};
    use crate::auth::Caller;
    use rusd_proto::etcdserverpb as pb;
    let one = |commands: Result<Vec<Command>, ImportError>| commands.unwrap().pop().unwrap();
    let compact = Command::Compact { revision: 5 };
    let asked = pb::CompactionRequest { revision: 5, physical: true };
    assert_eq!(one(commands_of(7, &asked, "ann")), compact.by(Caller::Member));
    let grant = |ttl| commands_of(8, &pb::LeaseGrantRequest { id: 3, ttl }, "");
    let granted = Command::LeaseGrant { id: LeaseId(3), ttl_secs: 9_000_000_000 };
    assert_eq!(one(grant(9_000_000_000)), granted.by(Caller::Member));
    assert_eq!(grant(9_000_000_001).unwrap(), vec![], "refused, as there");
    let put = pb::PutRequest { key: "k".into(), prev_kv: true, ..Default::default() };
    let Command::As(on_behalf) = one(commands_of(4, &put, "ann")) else { panic!("nobody's") };
    assert_eq!(on_behalf.caller, Caller::User { name: "ann".into(), revision: 4 });
    assert!(matches!(&on_behalf.command, Command::Put(put) if !put.prev_kv), "nobody hears it");
    let operation = |request| pb::RequestOp { request: Some(request) };
    let range = pb::RangeRequest { key: "k".into(), revision: 9, ..Default::default() };
    let success = vec![operation(pb::request_op::Request::RequestRange(range))];
    let Command::Txn(txn) = one(commands_of(6, &pb::TxnRequest { success, ..Default::default() }, "")) else {
        panic!("no transaction")
    };
    assert!(matches!(&txn.success[..], [Op::Range(query)] if query.count_only && query.revision == 9));
    let odd = pb::TxnRequest { success: vec![pb::RequestOp { request: None }], ..Default::default() };
    assert!(commands_of(6, &odd, "").is_err(), "what etcd can't have let in isn't passed over");
}

#[test]
fn a_name_that_was_told_by_the_old_api_changes_nothing() {
    let mut data = Vec::new();
    for (tag, text) in [(2, "PUT"), (3, "/0/members/8e9e05c52164694d/attributes"), (4, r#"{"name":"a"}"#)] {
        prost::encoding::string::encode(tag, &text.to_owned(), &mut data);
    }
    assert_eq!(commands(&LogEntry { index: 1, term: 1, is_request: true, data: data.into() }).unwrap(), vec![]);
}

#[test]
fn revisions_beyond_all_are_refused() {
    let (disk, bytes) = file();
    disk.set_bytes(Path::new("/d/db"), bytes);
    let database = Database::open(&disk, Path::new("/d/db")).unwrap();
    for (main, is_one) in [(REVISION_MAX, true), (REVISION_MAX + 1, false), (i64::MAX, false), (0, false)] {
        let key = [&main.to_be_bytes()[..], b"_", &0i64.to_be_bytes()].concat();
        let kv = rusd_proto::mvccpb::KeyValue {
            key: "k".into(),
            create_revision: 1,
            mod_revision: main,
            version: 1,
            ..Default::default()
        };
        assert_eq!(database.record(&key, &kv.encode_to_vec()).is_ok(), is_one, "{main}");
    }
}

#[test]
fn entries_of_any_bytes_never_panic() {
    bolero::check!().with_iterations(20_000).for_each(|bytes: &[u8]| {
        let data = Bytes::copy_from_slice(bytes);
        let _ = commands(&LogEntry { index: 1, term: 1, is_request: true, data });
    });
}
