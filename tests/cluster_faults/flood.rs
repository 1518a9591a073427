//! Connections that always have many requests under way, and what each of them was answered.
//!
//! ```text
//! Flood::start ─► thread, nice ─► task for each connection ─► requests, as many as there may be
//!                                                  Answers: how many of each ◄─ grpc-status, of head or trailers ◄┘
//! ```
//! Other machines' clients would leave the members their processors: so it is by `h2` itself and not by `tonic`, and its
//! thread runs where the members leave something.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use h2::client::SendRequest;
use http::Request;
use prost::Message;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::request_op::Request as Op;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::Status;

use crate::cluster::{COMES_MAX, Cluster};
use crate::load::ops::told;
use crate::overload::UNANSWERED;

/// Keys that it writes.
const KEYS: usize = 500;
/// Windows are as large as they get: nobody here is slow on purpose.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// What was done.
pub(crate) const DONE: &str = "Ok: ";

/// How many answers there were of each code and text.
pub(crate) type Answers = BTreeMap<String, u64>;

/// How nice its thread is.
const NICE: i32 = 10;

/// The thread of all connections.
pub(crate) struct Flood(JoinHandle<Answers>);

impl Flood {
    /// At each member so many connections, with so many requests under way on each.
    pub(crate) fn start(cluster: &Cluster, connections: usize, at_a_time: usize, stop: &Arc<AtomicBool>) -> Self {
        let addresses = (0..cluster.len()).flat_map(|at| vec![cluster.url(at); connections]);
        let addresses: Vec<_> = addresses.map(|url| url.trim_start_matches("http://").to_owned()).collect();
        let stop = stop.clone();
        Self(std::thread::spawn(move || {
            // Of this thread alone.
            rustix::process::setpriority_process(None, NICE).unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(run(addresses, at_a_time, stop))
        }))
    }

    /// All answers, once nobody asks any more.
    pub(crate) async fn end(self) -> Answers {
        let ended = tokio::task::spawn_blocking(|| self.0.join().unwrap());
        tokio::time::timeout(COMES_MAX, ended).await.expect("the flood can be stopped").unwrap()
    }
}

async fn run(addresses: Vec<String>, at_a_time: usize, stop: Arc<AtomicBool>) -> Answers {
    let answers = Arc::new(Mutex::new(Answers::new()));
    let connections = addresses
        .into_iter()
        .enumerate()
        .map(|(at, address)| flood(address, at * 7919, at_a_time, answers.clone(), stop.clone()));
    let connections: JoinSet<()> = connections.collect();
    connections.join_all().await;
    std::mem::take(&mut *answers.lock().unwrap())
}

/// One connection: as soon as something is answered, it asks for something else.
async fn flood(
    address: String,
    mut number: usize,
    at_a_time: usize,
    answers: Arc<Mutex<Answers>>,
    stop: Arc<AtomicBool>,
) {
    let socket = TcpStream::connect(address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    let (sender, connection) = builder.handshake(socket).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut under_way = FuturesUnordered::new();
    while !stop.load(Ordering::Relaxed) {
        while under_way.len() < at_a_time {
            under_way.push(call(sender.clone(), number));
            number += 1;
        }
        if let Ok(Some(answer)) = tokio::time::timeout(Duration::from_millis(100), under_way.next()).await {
            *answers.lock().unwrap().entry(answer).or_default() += 1;
        }
    }
    // The socket is closed at once: to give up one request after the other would be another test.
    connection.abort();
    let _ = connection.await;
}

/// A request and its answer's code and text.
async fn call(sender: SendRequest<Bytes>, number: usize) -> String {
    match answered(sender, number).await {
        Ok(status) => told(&status),
        Err(error) => format!("{UNANSWERED}{error}"),
    }
}

async fn answered(sender: SendRequest<Bytes>, number: usize) -> Result<Status, h2::Error> {
    let (path, message) = request(number);
    let head = Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a request's head");
    let (answer, mut body) = sender.ready().await?.send_request(head, false)?;
    let len = u32::try_from(message.len()).expect("a short message");
    body.send_data([&[0], &len.to_be_bytes()[..], &message].concat().into(), true)?;
    let (head, mut body) = answer.await?.into_parts();
    // A refusal is all in the head.
    if let Some(status) = Status::from_header_map(&head.headers) {
        return Ok(status);
    }
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data?.len())?;
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    Ok(Status::from_header_map(&trailers).unwrap_or_else(|| Status::unknown("an answer without a code")))
}

/// A request: path and message.
fn request(number: usize) -> (&'static str, Vec<u8>) {
    let key = format!("flood/{}", number % KEYS);
    match number % 10 {
        0 => {
            let range =
                pb::RangeRequest { key: "flood/".into(), range_end: "flood0".into(), limit: 100, ..Default::default() };
            ("/etcdserverpb.KV/Range", range.encode_to_vec())
        }
        1 => {
            let op = |key: &str| pb::RequestOp { request: Some(Op::RequestPut(put(key, 100))) };
            let txn = pb::TxnRequest { success: vec![op(&key), op(&format!("{key}x"))], ..Default::default() };
            ("/etcdserverpb.KV/Txn", txn.encode_to_vec())
        }
        _ => ("/etcdserverpb.KV/Put", put(&key, 256).encode_to_vec()),
    }
}

/// A put of so many bytes.
pub(crate) fn put(key: &str, value: usize) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: vec![7; value].into(), ..Default::default() }
}
