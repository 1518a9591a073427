//! A million keys there and back, and files of gigabytes; what the reader takes is measured.
//!
//! `cargo xtask import` runs these, against a release build by `--rusd PATH`.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::request_op::Request as Op;
use tempfile::TempDir;

use crate::Tools;
use crate::member::{Member, Place, must, rusd, words};

pub(crate) const KEYS: usize = 1_000_000;
const IN_A_TXN: usize = 100;
const VALUE_BYTES: usize = 200;
const LARGE_BYTES: usize = 1_000_000;
/// What a page of each level, a chunk and a process take; nothing that grows with the keys.
const READER_BYTES_MAX: u64 = 96 << 20;
/// What a server may take by the guide with few keys: 100 MiB and `--backend-cache-mb`.
const SERVER_BYTES_MAX: u64 = 356 << 20;

pub(crate) async fn write(member: &Member, keys: std::ops::Range<usize>) {
    let mut kv = KvClient::new(member.channel());
    for first in keys.step_by(IN_A_TXN) {
        let put = |at: usize| {
            let value = format!("{at:0VALUE_BYTES$}").into();
            let put = pb::PutRequest { key: format!("key/{at:010}").into(), value, ..Default::default() };
            pb::RequestOp { request: Some(Op::RequestPut(put)) }
        };
        let success = (first..first + IN_A_TXN).map(put).collect();
        kv.txn(pb::TxnRequest { success, ..Default::default() }).await.unwrap();
    }
}

/// The most memory that a process ever had; 0 once it has ended.
fn peak(process: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) << 10
}

/// Runs a command to its end; the most memory it had, and how long it took.
fn measured(arguments: &[String]) -> (u64, Duration) {
    let begun = Instant::now();
    let mut child: Child =
        Command::new(rusd()).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let mut most = 0;
    let ended = loop {
        most = most.max(peak(child.id()));
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(ended.success(), "{arguments:?}");
    (most, begun.elapsed())
}

async fn restored(tools: &Tools, file: &Path, dir: &Path) -> (u32, i64) {
    let (place, data) = (Place::free(), dir.join("etcd-on"));
    let mut arguments = words(&format!("snapshot restore {}", file.display()));
    arguments.extend(place.identity(&data));
    must(&tools.etcdutl, &arguments);
    let etcd = Member::start(&tools.etcd, place, &place.flags(&data), &dir.join("etcd-on.log")).await;
    let hash = etcd.hash_kv(None).await;
    drop(etcd);
    std::fs::remove_dir_all(data).unwrap();
    hash
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes a gigabyte, and takes minutes"]
async fn a_million_keys_go_round() {
    let Some(tools) = Tools::find("a_million_keys_go_round") else { return };
    let dir = TempDir::new().unwrap();
    let (place, data) = (Place::free(), dir.path().join("etcd"));
    let flags = [place.flags(&data), words("--unsafe-no-fsync --quota-backend-bytes=8000000000")].concat();
    let etcd = Member::start(&tools.etcd, place, &flags, &dir.path().join("etcd.log")).await;
    let parts = (0..4).map(|part| write(&etcd, part * KEYS / 4..(part + 1) * KEYS / 4));
    futures::future::join_all(parts).await;
    let file = dir.path().join("etcd.db");
    must(&rusd(), &words(&format!("snapshot save {} --endpoints 127.0.0.1:{}", file.display(), etcd.port)));
    etcd.end();
    std::fs::remove_dir_all(&data).unwrap();
    let hash = restored(&tools, &file, dir.path()).await;

    let (verifying, took) = measured(&words(&format!("snapshot verify {}", file.display())));
    println!(
        "SUMMARY verify: {verifying} bytes of memory at most, {took:?}, of {} bytes",
        file.metadata().unwrap().len()
    );
    let (to, moved) = (Place::free(), dir.path().join("rusd"));
    let mut import = words(&format!("import {}", file.display()));
    import.extend(to.identity(&moved));
    let (importing, took) = measured(&import);
    println!("SUMMARY import: {importing} bytes of memory at most, {took:?}");
    assert!(verifying < READER_BYTES_MAX && importing < READER_BYTES_MAX);

    let begun = Instant::now();
    let flags = [to.flags(&moved), words("--quota-backend-bytes=8000000000")].concat();
    let member = Member::start(&rusd(), to, &flags, &dir.path().join("rusd.log")).await;
    println!("SUMMARY first start: {:?}", begun.elapsed());
    let file = dir.path().join("rusd.db");
    must(&rusd(), &words(&format!("snapshot save {} --endpoints 127.0.0.1:{}", file.display(), member.port)));
    drop(member);
    assert_eq!(restored(&tools, &file, dir.path()).await, hash);
}

/// Values as large as etcd takes them, until the file has so many gigabytes: no command's memory grows with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "writes gigabytes, and takes minutes"]
async fn a_file_of_gigabytes_takes_no_more_memory() {
    let Some(tools) = Tools::find("a_file_of_gigabytes_takes_no_more_memory") else { return };
    let wanted = std::env::var("RUSD_IMPORT_GIGABYTES").map_or(1.0, |text| text.parse::<f64>().unwrap());
    let values = (wanted * 1e9) as usize / LARGE_BYTES;
    let dir = TempDir::new().unwrap();
    let (place, data) = (Place::free(), dir.path().join("etcd"));
    // So few entries are kept in its log that the disk holds the values once.
    let flags = words("--unsafe-no-fsync --quota-backend-bytes=16000000000 --snapshot-count=100 --max-wals=2");
    let flags = [place.flags(&data), flags].concat();
    let etcd = Member::start(&tools.etcd, place, &flags, &dir.path().join("etcd.log")).await;
    let mut kv = KvClient::new(etcd.channel());
    for at in 0..values {
        // Not one value again and again.
        let value = format!("{at:016x}").repeat(LARGE_BYTES / 16);
        let put = pb::PutRequest { key: format!("large/{at:08}").into(), value: value.into(), ..Default::default() };
        kv.put(put).await.unwrap();
    }
    let file = dir.path().join("etcd.db");
    let from =
        |port: u16, file: &Path| words(&format!("snapshot save {} --endpoints 127.0.0.1:{port}", file.display()));
    let (saving, took) = measured(&from(etcd.port, &file));
    let bytes = file.metadata().unwrap().len();
    println!("SUMMARY a file of {bytes} bytes; saved from etcd: {saving} bytes of memory at most, {took:?}");
    let hash = etcd.hash_kv(None).await;
    etcd.end();
    std::fs::remove_dir_all(&data).unwrap();

    let (to, moved) = (Place::free(), dir.path().join("rusd"));
    let mut most = saving;
    for command in ["verify", "status", "restore"] {
        let mut arguments = words(&format!("snapshot {command} {}", file.display()));
        if command == "restore" {
            arguments.extend(to.identity(&moved));
        }
        let (memory, took) = measured(&arguments);
        println!("SUMMARY snapshot {command}: {memory} bytes of memory at most, {took:?}");
        most = most.max(memory);
    }
    std::fs::remove_file(&file).unwrap();

    let begun = Instant::now();
    let flags = [to.flags(&moved), words("--quota-backend-bytes=16000000000")].concat();
    let member = Member::start(&rusd(), to, &flags, &dir.path().join("rusd.log")).await;
    println!("SUMMARY first start: {:?}, {} bytes of memory at most", begun.elapsed(), peak(member.child.id()));
    let (saving, took) = measured(&from(member.port, &file));
    let server = peak(member.child.id());
    println!("SUMMARY saved from rusd: {saving} bytes of memory at most, {took:?}; the server's: {server}");
    most = most.max(saving);
    drop(member);
    std::fs::remove_dir_all(&moved).unwrap();
    assert!(most < READER_BYTES_MAX, "{most}");
    assert!(server < SERVER_BYTES_MAX, "{server}");
    assert_eq!(restored(&tools, &file, dir.path()).await, hash);
}
