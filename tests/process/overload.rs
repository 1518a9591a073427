//! Far more than the server takes, on a real process: what is too much is refused with etcd's words, memory stays
//! bounded, and nothing that was acknowledged is lost by a kill.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::server::{Kind, Server};
use bytes::Bytes;
use futures::StreamExt;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

/// Bytes of a value; 400 of them are offered at a time to a server that takes 4 MiB.
const VALUE: usize = 512 * 1024;
const PUTS: usize = 400;
/// What the process may grow by, of the 200 MiB that are offered: the limit three times (received, proposed, in the
/// log), eight connections' windows of 4 MiB as received and as copied, the engine's 16 MiB, slack.
const GROWTH_MAX: f64 = 128.0 * 1024.0 * 1024.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_times_too_much_is_refused_and_holds_no_memory() {
    let flags = ["--pending-requests-mb=4".to_owned(), "--backend-cache-mb=16".to_owned()];
    let mut server = Server::start(Kind::Rusd, &flags, "overload").await.expect("our own is always there");
    let before = resident(&server).await;
    let done = Arc::new(AtomicBool::new(false));
    let peak = peak(&server, &done);
    let value = Bytes::from(vec![7; VALUE]);
    let mut channels = Vec::new();
    for _ in 0..8 {
        channels.push(server.connect().await);
    }
    let storm = async {
        let puts = (0..PUTS).map(|number| {
            let mut kv = KvClient::new(channels[number % channels.len()].clone());
            let put = pb::PutRequest { key: key(number), value: value.clone(), ..Default::default() };
            async move { (number, kv.put(put).await) }
        });
        let outcomes: Vec<_> = futures::stream::iter(puts).buffer_unordered(PUTS).collect().await;
        done.store(true, Ordering::Relaxed);
        outcomes
    };
    let (peak, outcomes) = tokio::join!(peak, storm);
    let mut kv = KvClient::new(server.connect().await);
    kv.put(pb::PutRequest { key: "after".into(), value, ..Default::default() }).await.expect("it has recovered");
    server.restart().await;
    let mut kv = KvClient::new(server.connect().await);
    let mut acknowledged = 0;
    for (number, outcome) in outcomes {
        match outcome {
            Ok(_) => {
                let get = pb::RangeRequest { key: key(number), keys_only: true, ..Default::default() };
                assert_eq!(kv.range(get).await.unwrap().get_ref().count, 1, "{number} was acknowledged");
                acknowledged += 1;
            }
            Err(status) => {
                assert_eq!((status.code(), status.message()), (Code::Unknown, "etcdserver: too many requests"));
            }
        }
    }
    assert!(acknowledged > 0 && acknowledged < PUTS, "{acknowledged} of {PUTS} were taken");
    assert!(peak - before < GROWTH_MAX, "from {before} to {peak} bytes with {acknowledged} taken");
}

fn key(number: usize) -> Bytes {
    format!("k{number}").into()
}

/// The most that the process takes until it is `done`.
async fn peak(server: &Server, done: &AtomicBool) -> f64 {
    let mut peak = 0.0_f64;
    while !done.load(Ordering::Relaxed) {
        peak = peak.max(resident(server).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    peak
}

async fn resident(server: &Server) -> f64 {
    let [url, _] = server.urls();
    let address = url.strip_prefix("http://").expect("plain HTTP").to_owned();
    let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
    socket.write_all(format!("GET /metrics HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let line = answer.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    line.expect("the figure is there").parse().unwrap()
}

// Cause: how much a transaction reads is known when it is applied, and answers were counted when they went out. Symptom:
// twenty that each write a key and read all of them, proposed together, took twenty times all of them. Now: an answer
// counts as it is made; of those for which there is no room the writes are done, and their clients hear that they timed out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_that_write_and_read_much_hold_little_memory() {
    const ALL: usize = 32;
    const VALUE: usize = 256 << 10;
    const TXNS: usize = 20;
    /// What there is, twenty times. It takes about half of that, most of it the engine's, and took twice as much.
    const GROWTH_MAX: f64 = (TXNS * ALL * VALUE) as f64;
    let flags = ["--pending-answers-mb=4".to_owned(), "--backend-cache-mb=16".to_owned()];
    let mut server = Server::start(Kind::Rusd, &flags, "overload, reads").await.expect("our own is always there");
    let mut kv = KvClient::new(server.connect().await);
    for number in 0..ALL {
        let value = (0..VALUE).map(|_| rand::random()).collect::<Vec<u8>>().into();
        kv.put(pb::PutRequest { key: format!("all/{number}").into(), value, ..Default::default() }).await.unwrap();
    }
    // What is read comes from the disk, each time anew.
    server.restart().await;
    let mut kv = KvClient::new(server.connect().await);
    let before = resident(&server).await;
    let done = AtomicBool::new(false);
    let channel = server.connect().await;
    let storm = async {
        let txns = (0..TXNS).map(|number| {
            let mut kv = KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
            async move { (number, kv.txn(writing_and_reading(number)).await.map(drop)) }
        });
        let outcomes: Vec<_> = futures::stream::iter(txns).buffer_unordered(TXNS).collect().await;
        done.store(true, Ordering::Relaxed);
        outcomes
    };
    let (peak, outcomes) = tokio::join!(peak(&server, &done), storm);
    let (mut told, mut untold) = (0, 0);
    for (number, outcome) in outcomes {
        let count_only = pb::RangeRequest { key: key(number), count_only: true, ..Default::default() };
        let is_there = kv.range(count_only).await.unwrap().get_ref().count == 1;
        match outcome.map_err(|status| (status.code(), status.message().to_owned())) {
            Ok(()) => {
                assert!(is_there, "{number} was acknowledged");
                told += 1;
            }
            Err((Code::Unknown, text)) if text == "etcdserver: too many requests" => {
                assert!(!is_there, "{number} was refused");
            }
            Err((Code::Unavailable, text)) if text.starts_with("etcdserver: request timed out") => untold += 1,
            Err(other) => panic!("{number}: {other:?}"),
        }
    }
    println!("of {TXNS} {told} were told what they read, {untold} that they timed out; from {before} to {peak} bytes");
    assert!(peak - before < GROWTH_MAX, "from {before} to {peak} bytes with {told} told");
    let mut kv = kv.max_decoding_message_size(usize::MAX);
    let alone = async {
        loop {
            match kv.txn(writing_and_reading(TXNS)).await {
                Ok(told) => return told.into_inner(),
                // The last answer is written, and may not be let go yet: not before, or only when this one is made.
                Err(status) => {
                    let text = status.message();
                    let is_late = text.starts_with("etcdserver: request timed out");
                    assert!(is_late || text == "etcdserver: too many requests", "{text}");
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let alone = tokio::time::timeout(Duration::from_secs(60), alone).await.expect("whoever is alone is told");
    assert_eq!(alone.responses.len(), 2);
}

/// A put of one key, and a read of all that are large.
fn writing_and_reading(number: usize) -> pb::TxnRequest {
    let put = pb::PutRequest { key: key(number), value: "v".into(), ..Default::default() };
    let range = pb::RangeRequest { key: "all/".into(), range_end: "all0".into(), ..Default::default() };
    let ops = [pb::request_op::Request::RequestPut(put), pb::request_op::Request::RequestRange(range)];
    let success = ops.map(|op| pb::RequestOp { request: Some(op) }).into();
    pb::TxnRequest { success, ..Default::default() }
}
