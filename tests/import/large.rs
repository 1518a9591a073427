//! A million keys there and back; what the reader takes is measured.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::request_op::Request as Op;
use tempfile::TempDir;

use crate::Tools;
use crate::member::{Member, Place, must, rusd, words};

const KEYS: usize = 1_000_000;
const IN_A_TXN: usize = 100;
const VALUE_BYTES: usize = 200;
/// What a page of each level, a chunk and a process take; nothing that grows with the keys.
const READER_BYTES_MAX: u64 = 96 << 20;

async fn write(member: &Member, keys: std::ops::Range<usize>) {
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

/// Runs a command to its end; the most memory it had, and how long it took.
fn measured(arguments: &[String]) -> (u64, Duration) {
    let begun = Instant::now();
    let mut child: Child =
        Command::new(rusd()).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    let ended = loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        most = most.max(kib.unwrap_or(0) << 10);
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
    println!("verify: {} bytes at most, {took:?}, of {} bytes", verifying, file.metadata().unwrap().len());
    let (to, moved) = (Place::free(), dir.path().join("rusd"));
    let mut import = words(&format!("import {}", file.display()));
    import.extend(to.identity(&moved));
    let (importing, took) = measured(&import);
    println!("import: {importing} bytes at most, {took:?}");
    assert!(verifying < READER_BYTES_MAX && importing < READER_BYTES_MAX);

    let begun = Instant::now();
    let flags = [to.flags(&moved), words("--quota-backend-bytes=8000000000")].concat();
    let member = Member::start(&rusd(), to, &flags, &dir.path().join("rusd.log")).await;
    println!("first start: {:?}", begun.elapsed());
    let file = dir.path().join("rusd.db");
    must(&rusd(), &words(&format!("snapshot save {} --endpoints 127.0.0.1:{}", file.display(), member.port)));
    drop(member);
    assert_eq!(restored(&tools, &file, dir.path()).await, hash);
}
