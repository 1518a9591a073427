//! Three members that are asked for fifty times what they take, for a while.
//!
//! ```text
//! Flood: at each member, connections that keep 50 × --max-pending-proposals requests under way: puts, ranges, txns
//! meanwhile ─► leases kept alive · pages of health · a watch · samples of ordinary clients · memory of each process
//! after     ─► served at once · memory back · members equal
//! ```
//! What is refused is refused with etcd's words. Nothing is judged by speed: where even a thread that does nothing but
//! sleep woke up late, the machine was too busy for heartbeats, and a change of the leader is no fault.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use rusd_proto::etcdserverpb::request_op::Request as Op;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::client;
use crate::cluster::{COMES_MAX, Cluster};
use crate::frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, RST_STREAM, WINDOW_UPDATE, call, frame};
use crate::history::History;

/// What a member takes: proposals that wait.
const TAKEN: usize = 100;
/// How many times as much is asked for.
const TIMES: usize = 50;
/// Connections of the flood at each member.
const CONNECTIONS: usize = 25;
/// Keys that it writes.
const KEYS: usize = 500;
const LEASES: i64 = 100;
const TTL_SECS: i64 = 20;
/// What a member may grow by meanwhile: 32 MiB of pending requests twice (received, proposed), 16 of answers, 16 of the
/// engine, the log's cache of 64, windows and tasks of 5 000 requests; and what may remain of it.
const GROWTH_MAX: u64 = 320 << 20;
const REMAINS_MAX: u64 = 160 << 20;
/// A thread that wakes up so late was not let run; an election takes a second.
const STARVED: Duration = Duration::from_millis(250);

/// How long the flood goes on.
fn lasts() -> Duration {
    Duration::from_secs(if std::env::var_os("RUSD_FAULT_LONG").is_some() { 120 } else { 8 })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_times_what_is_taken_harms_nothing_but_what_is_too_much() {
    let taken = format!("--max-pending-proposals={TAKEN}");
    let flags = ["--pending-requests-mb=32", "--pending-answers-mb=16", "--backend-cache-mb=16", &*taken];
    let mut cluster = Cluster::rusd(3, &flags).await;
    let pids: Vec<_> = (0..3).map(|at| cluster.process(at).pid()).collect();
    let leases = Leases::grant(&cluster).await;
    let histories: Vec<_> = (0..3).map(|at| follow_beat(&cluster, at)).collect();
    let term = cluster.status_of(0).await.raft_term;
    let before: Vec<_> = pids.iter().map(|pid| resident_bytes(*pid)).collect();
    println!("resident before: {before:?}");

    let stop = Arc::new(AtomicBool::new(false));
    let sleeper = Sleeper::start(stop.clone());
    let flood = Flood::start(&cluster, &stop);
    let pages: Vec<_> = (0..3).map(|at| tokio::spawn(ask_pages(cluster.url(at), stop.clone()))).collect();
    let samples: Vec<_> = (0..3).map(|at| tokio::spawn(sample(cluster.channel(at), at, stop.clone()))).collect();
    let beats = tokio::spawn(beat(cluster.channel(0), stop.clone()));
    let mut peak = before.clone();
    let begun = Instant::now();
    while begun.elapsed() < lasts() {
        for (peak, pid) in peak.iter_mut().zip(&pids) {
            *peak = (*peak).max(resident_bytes(*pid));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let during = cluster.status(0).await.map(|status| status.raft_term);
    stop.store(true, Ordering::Relaxed);
    let (done, refused) = flood.end().await;
    let starved = sleeper.ended();

    // At once: an ordinary client is served as ever.
    let calm = Instant::now();
    let mut kv = KvClient::new(cluster.channel(1));
    // What the flood left behind is done first.
    while let Err(status) = kv.put(put("after", 16)).await {
        assert!(is_refusal(&status) && calm.elapsed() < COMES_MAX, "{status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("a put after it was answered {:?} later", calm.elapsed());
    for number in 0..20 {
        cluster.put(1, put(&format!("after/{number}"), 16)).await;
    }
    println!("and 20 more by {:?}", calm.elapsed());
    let (mut asked, mut unwell) = (0, 0);
    for pages in pages {
        let pages = pages.await.unwrap();
        (asked, unwell) = (asked + pages.0, unwell + pages.1);
    }
    let mut sampled = (0, 0);
    for sample in samples {
        let (taken, refused) = sample.await.unwrap();
        sampled = (sampled.0 + taken, sampled.1 + refused);
    }
    let beats = beats.await.unwrap();
    leases.are_all_there(&cluster).await;
    for (history, follower) in &histories {
        history.reach(*beats.last().expect("some beats"), follower).await;
        let seen: Vec<_> = history.until(i64::MAX).into_iter().map(|change| change.revision).collect();
        assert!(beats.iter().all(|beat| seen.contains(beat)), "a watch missed one: {beats:?} in {seen:?}");
        follower.abort();
    }
    let after = settled(&pids, &before).await;
    println!(
        "SUMMARY overload: {done} answered of {TIMES} times {TAKEN} under way at each of 3, {refused} refused; samples \
         {sampled:?}, {asked} pages ({unwell} not well), {} beats, slept late by {starved:?}; resident before {before:?} peak {peak:?} after \
         {after:?}",
        beats.len()
    );
    assert!(refused > 0 && done > refused && asked > 0, "it was an overload, and some was done: {done}, {refused}");
    let terms = (during.ok(), cluster.status_of(0).await.raft_term);
    let is_calm = terms.1 == term && terms.0.is_none_or(|during| during == term);
    assert!(is_calm || starved > STARVED, "the leader changed: {term}, then {terms:?}");
    assert!(unwell == 0 || starved > STARVED, "{unwell} of {asked} pages said that a member isn't well");
    for at in 0..3 {
        assert!(peak[at] < before[at] + GROWTH_MAX, "m{at} grew from {} to {}", before[at], peak[at]);
        assert!(after[at] < before[at] + REMAINS_MAX, "m{at} keeps {} of {}", after[at], before[at]);
    }
    cluster.agree().await;
}

/// Memory of each process, once it has had time to give back what it doesn't need.
async fn settled(pids: &[u32], before: &[u64]) -> Vec<u64> {
    let begun = Instant::now();
    loop {
        let now: Vec<_> = pids.iter().map(|pid| resident_bytes(*pid)).collect();
        let is_back = now.iter().zip(before).all(|(now, before)| *now < before + REMAINS_MAX);
        if is_back || begun.elapsed() > Duration::from_secs(30) {
            return now;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn resident_bytes(pid: u32) -> u64 {
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm")).expect("it runs");
    pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number of pages") * 4096
}

fn put(key: &str, value: usize) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: vec![7; value].into(), ..Default::default() }
}

/// What a request was answered: too many, or too late, for whatever reason there was: of a change of the leader it is told
/// elsewhere.
fn is_refusal(status: &Status) -> bool {
    let is_late = matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled);
    is_late || status.message() == "etcdserver: too many requests"
}

/// Connections that always have many requests under way.
struct Flood {
    tasks: JoinSet<()>,
    done: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

impl Flood {
    fn start(cluster: &Cluster, stop: &Arc<AtomicBool>) -> Self {
        let mut tasks = JoinSet::new();
        let (done, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        for at in 0..cluster.len() {
            let address = cluster.url(at).trim_start_matches("http://").to_owned();
            for number in 0..CONNECTIONS {
                let (done, refused, stop) = (done.clone(), refused.clone(), stop.clone());
                tasks.spawn(flood(address.clone(), at * CONNECTIONS + number, done, refused, stop));
            }
        }
        Self { tasks, done, refused }
    }

    /// Requests that were answered, and how many of them with a refusal.
    async fn end(self) -> (u64, u64) {
        let ended = tokio::time::timeout(COMES_MAX, self.tasks.join_all()).await;
        ended.expect("the flood can be stopped");
        (self.done.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}

/// One connection: as soon as something is answered, it asks for something else.
async fn flood(address: String, seed: usize, done: Arc<AtomicU64>, refused: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    const AT_A_TIME: usize = TIMES * TAKEN / CONNECTIONS;
    const WINDOW: u32 = 0x7fff_0000;
    // Streams' windows are as large as they get: nobody here opens them again.
    let mut frames = Frames::open(&address, &[(4, 1 << 20)]).await;
    frames.send(&frame(WINDOW_UPDATE, 0, 0, &(WINDOW - 65_535).to_be_bytes())).await;
    let mut next = 1;
    let mut number = seed * 7919;
    let mut ask = |count: usize| {
        let mut all = Vec::new();
        for _ in 0..count {
            let (path, message) = request(number);
            all.extend(call(next, path, END_HEADERS));
            let len = u32::try_from(message.len()).unwrap();
            all.extend(frame(DATA, END_STREAM, next, &[&[0], &len.to_be_bytes()[..], &message].concat()));
            next += 2;
            number += 1;
        }
        all
    };
    let mut open = AT_A_TIME;
    let mut begun = HashSet::new();
    if !frames.send(&ask(AT_A_TIME)).await {
        return;
    }
    while !stop.load(Ordering::Relaxed) {
        // It may be in the middle of a frame, so only the end of all is a reason to stop.
        let (kind, flags, stream, _) = tokio::select! {
            next = frames.next() => match next {
                Some(next) => next,
                None => return,
            },
            () = stopped(&stop) => return,
        };
        let ended = kind == RST_STREAM || flags & END_STREAM != 0 && matches!(kind, DATA | HEADERS);
        if !ended {
            begun.extend((kind == HEADERS).then_some(stream));
            continue;
        }
        done.fetch_add(1, Ordering::Relaxed);
        // A refusal is an end without a beginning.
        refused.fetch_add(u64::from(!begun.remove(&stream)), Ordering::Relaxed);
        open -= 1;
        if open < AT_A_TIME / 2 {
            let count = AT_A_TIME - open;
            if !frames.send(&ask(count)).await {
                return;
            }
            open = AT_A_TIME;
        }
    }
}

async fn stopped(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A request of the flood: path and message.
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

/// Leases with clients that keep them alive.
struct Leases(JoinSet<()>);

impl Leases {
    async fn grant(cluster: &Cluster) -> Self {
        let mut keepers = JoinSet::new();
        for id in 1..=LEASES {
            let mut client = LeaseClient::new(cluster.channel(0));
            client.lease_grant(pb::LeaseGrantRequest { id, ttl: TTL_SECS }).await.expect("before the overload");
        }
        for keeper in 0..10 {
            let url = cluster.url(keeper % cluster.len());
            let ids: Vec<_> = (1..=LEASES).filter(|id| *id as usize % 10 == keeper).collect();
            keepers.spawn(async move {
                let channel = client::connect(&url).await.expect("before the overload");
                keep(&channel, &ids).await;
            });
        }
        Self(keepers)
    }

    /// None of them was lost.
    async fn are_all_there(mut self, cluster: &Cluster) {
        if let Some(ended) = self.0.try_join_next() {
            panic!("somebody who keeps leases alive had to give up: {ended:?}");
        }
        let mut client = LeaseClient::new(cluster.channel(0));
        for id in 1..=LEASES {
            let asked = pb::LeaseTimeToLiveRequest { id, keys: false };
            let left = client.lease_time_to_live(asked).await.expect("the overload is over").into_inner();
            assert!(left.ttl > 0, "lease {id} was lost");
        }
    }
}

/// Renews for ever, as etcd's client does: a stream, a renewal of each a third of its time, a new stream if it ends.
async fn keep(channel: &Channel, ids: &[i64]) {
    let every = Duration::from_millis(TTL_SECS as u64 * 1_000 / 10);
    let mut renewed = Instant::now();
    loop {
        // Each tick is one lease's turn.
        let ids = ids.to_vec();
        let ticks = tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(every / ids.len() as u32));
        let mut turn = 0;
        let requests = ticks.map(move |_| {
            turn += 1;
            pb::LeaseKeepAliveRequest { id: ids[turn % ids.len()] }
        });
        let answers = LeaseClient::new(channel.clone()).lease_keep_alive(requests).await;
        let mut answers = match answers {
            Ok(answers) => answers.into_inner(),
            Err(status) => {
                assert!(renewed.elapsed().as_secs() < TTL_SECS as u64, "no stream of renewals: {status}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        while let Ok(Some(answer)) = answers.message().await {
            assert!(answer.ttl > 0, "lease {} was lost", answer.id);
            renewed = Instant::now();
        }
    }
}

/// Writes one key now and then, as a client that tries again; the revisions that were acknowledged.
async fn beat(channel: Channel, stop: Arc<AtomicBool>) -> Vec<i64> {
    let mut revisions = Vec::new();
    while !stop.load(Ordering::Relaxed) || revisions.is_empty() {
        match KvClient::new(channel.clone()).put(put("beat", 8)).await {
            Ok(answer) => {
                revisions.push(client::header(answer.into_inner().header).revision);
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(status) => assert!(is_refusal(&status), "{status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    revisions
}

/// What ordinary clients are answered: done, and refused.
async fn sample(channel: Channel, at: usize, stop: Arc<AtomicBool>) -> (u64, u64) {
    let (mut taken, mut refused) = (0, 0);
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let answer = KvClient::new(channel.clone()).put(put(&format!("sample/{at}/{number}"), 8)).await;
        match answer {
            Ok(_) => taken += 1,
            Err(status) => {
                assert!(is_refusal(&status), "m{at}: {status:?}");
                refused += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (taken, refused)
}

/// Asks for the pages of health all the while; how many were answered, and how many of those said that this member isn't
/// well: without a leader it isn't, nor ready, but it lives.
async fn ask_pages(url: String, stop: Arc<AtomicBool>) -> (u64, u64) {
    let address = url.trim_start_matches("http://").to_owned();
    let (mut asked, mut unwell) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        for path in ["/health", "/livez", "/readyz", "/metrics"] {
            let answer = tokio::time::timeout(COMES_MAX, page(&address, path)).await.expect("an answer");
            let is_unwell = matches!(path, "/health" | "/readyz") && answer.starts_with("HTTP/1.0 503 ");
            assert!(is_unwell || answer.starts_with("HTTP/1.0 200 "), "{address}{path}: {answer}");
            asked += 1;
            unwell += u64::from(is_unwell);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    (asked, unwell)
}

async fn page(address: &str, path: &str) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

/// A watch on the key that beats, at one member.
fn follow_beat(cluster: &Cluster, at: usize) -> (History, tokio::task::JoinHandle<()>) {
    let history = History::default();
    let follower = history.follow_key(cluster.url(at), Bytes::from_static(b"beat"));
    (history, follower)
}

/// A thread that only sleeps, and by how much it woke up too late.
struct Sleeper(std::thread::JoinHandle<Duration>);

impl Sleeper {
    fn start(stop: Arc<AtomicBool>) -> Self {
        const NAP: Duration = Duration::from_millis(10);
        Self(std::thread::spawn(move || {
            let mut worst = Duration::ZERO;
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                std::thread::sleep(NAP);
                worst = worst.max(begun.elapsed().saturating_sub(NAP));
            }
            worst
        }))
    }

    fn ended(self) -> Duration {
        self.0.join().unwrap()
    }
}
