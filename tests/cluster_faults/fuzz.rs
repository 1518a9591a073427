//! Every method of every service, and every path of the JSON gateway, with messages of extremes and with bytes that
//! are no message.
//!
//! ```text
//! workers ─► a method, a message from a seed (`messages`) ─► any member ─► any answer, but one
//! beside   ─► alarms that were raised are ended, members that were added are removed
//! after    ─► all members run, none has panicked, memory is bounded, they hold the same
//! ```
//! `RUSD_FAULT_SEED` repeats the messages. What they are answered is for the other tests.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use prost_reflect::{DescriptorPool, MethodDescriptor};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::cluster_client::ClusterClient;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::client;
use crate::cluster::{COMES_MAX, Cluster};
use crate::messages::{broken, json, message};
use crate::settings;
use crate::wire::{CallOptions, Wire, path_of};

const WORKERS: usize = 12;
/// What a member may grow by: 16 MiB of the engine, the log's cache of 64, what was written, indexes, slack.
const GROWTH_MAX: u64 = 400 << 20;
/// How long a stream, or a call that may wait for ever, is listened to.
const GLANCE: Duration = Duration::from_millis(100);
/// Calls that take long by what they do, and how many there are of each.
const FEW: [(&str, usize); 7] = [
    ("Snapshot", 10),
    ("Defragment", 5),
    ("Lock", 60),
    ("Campaign", 60),
    ("Observe", 60),
    ("MoveLeader", 20),
    ("MemberAdd", 40),
];

/// How many messages of each kind a method gets.
fn each() -> usize {
    if std::env::var_os("RUSD_FAULT_LONG").is_some() { 10_000 } else { 250 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_harms_a_member() {
    let seed = settings::seed();
    let flags = ["--backend-cache-mb=16", "--bcrypt-cost=4", "--max-learners=3"];
    let mut cluster = Cluster::rusd(3, &flags).await;
    let before: Vec<_> = (0..3).map(|at| resident_bytes(cluster.process(at).pid())).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let nurse = tokio::spawn(nurse(cluster.channel(0), stop.clone()));
    let asked = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for number in 0..WORKERS {
        let urls = (0..3).map(|at| cluster.url(at)).collect();
        workers.spawn(work(number, seed, urls, asked.clone()));
    }
    while let Some(worker) = workers.join_next().await {
        worker.expect("every call is answered");
    }
    stop.store(true, Ordering::Relaxed);
    nurse.await.expect("the cluster is kept in order");
    let after: Vec<_> = (0..3).map(|at| resident_bytes(cluster.process(at).pid())).collect();
    let asked = asked.load(Ordering::Relaxed);
    println!("SUMMARY fuzz: seed {seed}, {asked} requests, resident before {before:?}, after {after:?}");
    assert!(asked as usize > 50 * each(), "only {asked} requests were made");
    for at in 0..3 {
        assert!(cluster.process(at).has_ended().is_none(), "m{at} has ended");
        let log = cluster.log(at);
        assert!(
            !log.contains("panicked"),
            "m{at} panicked:\n{}",
            log.lines().filter(|line| line.contains("panicked")).collect::<Vec<_>>().join("\n")
        );
        assert!(after[at] < before[at] + GROWTH_MAX, "m{at} grew from {} to {}", before[at], after[at]);
        let put = pb::PutRequest { key: format!("after/{at}").into(), ..Default::default() };
        KvClient::new(cluster.channel(at)).put(put).await.expect("it serves");
    }
    cluster.agree().await;
}

fn resident_bytes(pid: u32) -> u64 {
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm")).expect("it runs");
    pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number of pages") * 4096
}

fn methods() -> Vec<MethodDescriptor> {
    let pool = DescriptorPool::decode(rusd_proto::FILE_DESCRIPTOR_SET).expect("our own descriptors are well formed");
    // What members say to each other has a port of its own.
    let services = pool.services().filter(|service| service.package_name() != "rusdpeer");
    services.flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}

/// One worker's part of all calls.
async fn work(number: usize, seed: u64, urls: Vec<String>, asked: Arc<AtomicU64>) {
    let mut rng = StdRng::seed_from_u64(seed.wrapping_add(number as u64));
    let mut wires = Vec::new();
    for url in &urls {
        wires.push(Wire::new(client::connect(url).await.expect("it serves")));
    }
    let methods = methods();
    let most = |method: &MethodDescriptor| {
        let few = FEW.iter().find(|(name, _)| *name == method.name()).map(|(_, count)| *count);
        few.unwrap_or_else(each).div_ceil(WORKERS)
    };
    let rounds = methods.iter().map(most).max().unwrap_or(0);
    for round in 0..rounds {
        for method in methods.iter().filter(|method| round < most(method)) {
            let well_formed = message(&method.input(), &mut rng);
            let bytes = if rng.random_bool(0.3) { broken(&well_formed, &mut rng) } else { well_formed };
            let at = rng.random_range(0..wires.len());
            if let Err(status) = call(&wires[at], method, bytes.clone()).await {
                // A connection that breaks is the sign of a panic.
                let broke = [
                    "transport error",
                    "h2 protocol",
                    "connection error",
                    "connection reset",
                    "stream no longer",
                    "broken pipe",
                ];
                let is_broken =
                    matches!(status.code(), Code::Unknown | Code::Internal | Code::Unavailable | Code::Cancelled)
                        && broke.iter().any(|word| status.message().contains(word));
                assert!(!is_broken, "{} of {} bytes at m{at}: {status:?}", method.full_name(), bytes.len());
            }
            asked.fetch_add(1, Ordering::Relaxed);
        }
        for route in rusd_proto::routes() {
            let method = methods
                .iter()
                .find(|method| method.parent_service().full_name() == route.service && method.name() == route.method);
            let method = method.expect("every path has its method");
            if round < most(method) / 2 {
                let text = json(&method.input(), &mut rng);
                post(&urls[rng.random_range(0..urls.len())], route.path, &text).await;
                asked.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Makes a call and takes what comes first.
async fn call(wire: &Wire, method: &MethodDescriptor, bytes: Bytes) -> Result<(), Status> {
    let (path, options) = (path_of(method), CallOptions::default());
    if matches!(method.name(), "Lock" | "Campaign") {
        let answer = tokio::time::timeout(GLANCE, wire.unary(&path, bytes, &options)).await;
        return answer.unwrap_or(Ok(Bytes::new())).map(drop);
    }
    if !method.is_server_streaming() {
        let answer = tokio::time::timeout(COMES_MAX, wire.unary(&path, bytes, &options)).await;
        return answer.unwrap_or_else(|_| panic!("{} isn't answered", method.full_name())).map(drop);
    }
    let requests: BoxStream<'static, Bytes> = futures::stream::iter([bytes.clone(), bytes]).boxed();
    let first = async {
        let mut answers = wire.streaming(&path, requests, &options).await?;
        answers.next().await.transpose()
    };
    tokio::time::timeout(GLANCE, first).await.unwrap_or(Ok(None)).map(drop)
}

/// The same by the gateway; any answer will do, as long as there is one or a stream that says nothing.
async fn post(url: &str, path: &str, text: &str) {
    let address = url.trim_start_matches("http://");
    let mut socket = TcpStream::connect(address).await.expect("it serves");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        text.len()
    );
    // It may answer before it has read all.
    let _ = socket.write_all(format!("{head}{text}").as_bytes()).await;
    let mut answer = vec![0; 16];
    let may_be_silent = ["/watch", "/lease/keepalive", "/observe", "/lock/lock", "/campaign"];
    let patience = if may_be_silent.iter().any(|end| path.ends_with(end)) { GLANCE } else { COMES_MAX };
    match tokio::time::timeout(patience, socket.read(&mut answer)).await {
        Ok(Ok(read)) => assert!(answer[..read].starts_with(b"HTTP/1.1 "), "{path} {text}: {:?}", &answer[..read]),
        // A socket that was closed with something unread in it.
        Ok(Err(error)) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{path} {text}"),
        Err(_) => assert_eq!(patience, GLANCE, "{path} isn't answered: {text}"),
    }
}

/// Ends alarms and takes away members that were made by accident, until there is nothing to do and `stop` is set.
async fn nurse(channel: Channel, stop: Arc<AtomicBool>) {
    let mut maintenance = MaintenanceClient::new(channel.clone());
    let mut members = ClusterClient::new(channel);
    let mut own = BTreeSet::new();
    loop {
        let ending = stop.load(Ordering::Relaxed);
        let mut found = 0;
        if let Ok(list) = members.member_list(pb::MemberListRequest { linearizable: false }).await {
            let ids: BTreeSet<_> = list.into_inner().members.iter().map(|member| member.id).collect();
            if own.is_empty() {
                own = ids.clone();
            }
            for id in ids.difference(&own) {
                found += 1;
                // Refused while another change is under way.
                let _ = members.member_remove(pb::MemberRemoveRequest { id: *id }).await;
            }
        }
        if let Ok(list) = maintenance.alarm(pb::AlarmRequest::default()).await {
            for alarm in list.into_inner().alarms {
                found += 1;
                let clear = pb::AlarmRequest { action: 2, member_id: alarm.member_id, alarm: alarm.alarm };
                let _ = maintenance.alarm(clear).await;
            }
        }
        if ending && found == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
