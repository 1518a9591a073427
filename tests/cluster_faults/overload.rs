//! Three members that are asked for fifty times what they take, for a while.
//!
//! ```text
//! Flood: at each member, connections that keep 50 × --max-pending-proposals requests under way: puts, ranges, txns
//! meanwhile ─► leases kept alive · pages of health · a watch · samples of ordinary clients · memory of each process
//! after     ─► served at once · memory back · members equal
//! ```
//! What is refused is refused with etcd's codes and words, each answer is looked at. Nothing is judged by speed: where even
//! a thread that does nothing but sleep woke up late, the machine was too busy for heartbeats, and a change of the leader is
//! no fault.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::client;
use crate::cluster::{COMES_MAX, Cluster};
use crate::flood::{Answers, DONE, Flood, put};
use crate::history::History;

/// What a member takes: proposals that wait.
const TAKEN: usize = 100;
/// How many times as much is asked for.
const TIMES: usize = 50;
/// Connections of the flood at each member.
const CONNECTIONS: usize = 25;
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
    let flood = Flood::start(&cluster, CONNECTIONS, TIMES * TAKEN / CONNECTIONS, &stop);
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
    let answers = flood.end().await;
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
    let (mut asked, mut unwell, mut slowest) = (0, Vec::new(), Duration::ZERO);
    for pages in pages {
        let pages = pages.await.unwrap();
        asked += pages.asked;
        unwell.extend(pages.unwell);
        slowest = slowest.max(pages.slowest);
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
        "SUMMARY overload: {TIMES} times {TAKEN} under way at each of 3, answered {answers:?}; samples {sampled:?}, {asked} \
         pages (the slowest {slowest:?}, not well {unwell:?}), {} beats, slept late by {starved:?}; resident before \
         {before:?} peak {peak:?} after {after:?}",
        beats.len()
    );
    only_what_is_too_much(&answers, starved > STARVED);
    assert!(asked > 0, "pages were asked for");
    let terms = (during.ok(), cluster.status_of(0).await.raft_term);
    let is_calm = terms.1 == term && terms.0.is_none_or(|during| during == term);
    assert!(is_calm || starved > STARVED, "the leader changed: {term}, then {terms:?}");
    assert!(unwell.is_empty() || starved > STARVED, "of {asked} pages some said that a member isn't well: {unwell:?}");
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

/// The code and the text that etcd has for what is too much.
const TOO_MANY: &str = "Unknown: etcdserver: too many requests";
/// Those for what was taken and not done in time. The texts go on with the reason.
const TOO_LATE: &str = "Unavailable: etcdserver: request timed out";

/// Those of an election, which only a busy machine brings about.
const NO_LEADER: [&str; 2] = ["Unavailable: etcdserver: no leader", "DeadlineExceeded: context deadline exceeded"];

/// What a client writes for itself whose connection is closed, as one may be that takes nothing for long.
pub(crate) const UNANSWERED: &str = "no answer: ";

/// Some was done, some was too much, and nobody was told anything else.
fn only_what_is_too_much(answers: &Answers, is_starved: bool) {
    let is_expected = |told: &str| {
        let is_starved = is_starved && (NO_LEADER.contains(&told) || told.starts_with(UNANSWERED));
        is_starved || matches!(told, DONE | TOO_MANY) || told.starts_with(TOO_LATE)
    };
    let others: Vec<_> = answers.keys().filter(|told| !is_expected(told)).collect();
    assert!(others.is_empty(), "answered with {others:?}: {answers:?}");
    assert!([DONE, TOO_MANY].iter().all(|told| answers.contains_key(*told)), "it was no overload: {answers:?}");
}

/// What a request was answered: too many, or too late, for whatever reason there was: of a change of the leader it is told
/// elsewhere.
fn is_refusal(status: &Status) -> bool {
    let is_late = matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled);
    is_late || status.message() == "etcdserver: too many requests"
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

/// What became of a member's pages.
#[derive(Default)]
struct Asked {
    asked: u64,
    /// Those that said that it isn't well.
    unwell: Vec<String>,
    slowest: Duration,
}

/// Asks for the pages of health all the while. Without a leader a member isn't well, nor ready, but it lives.
async fn ask_pages(url: String, stop: Arc<AtomicBool>) -> Asked {
    let address = url.trim_start_matches("http://").to_owned();
    let mut all = Asked::default();
    while !stop.load(Ordering::Relaxed) {
        for path in ["/health", "/livez", "/readyz", "/metrics"] {
            let begun = Instant::now();
            let answer = tokio::time::timeout(COMES_MAX, page(&address, path)).await.expect("an answer");
            all.slowest = all.slowest.max(begun.elapsed());
            let is_unwell = matches!(path, "/health" | "/readyz") && answer.starts_with("HTTP/1.0 503 ");
            assert!(is_unwell || answer.starts_with("HTTP/1.0 200 "), "{address}{path}: {answer}");
            all.asked += 1;
            all.unwell.extend(is_unwell.then(|| format!("{path}: {}", answer.lines().last().unwrap_or_default())));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    all
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
