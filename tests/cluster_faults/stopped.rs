//! A leader that is told to end while clients are at it: the lead goes first, then the connections.

use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::watch_client::WatchClient;
use rusd_proto::etcdserverpb::watch_request::RequestUnion;
use rusd_proto::etcdserverpb::{PutRequest, WatchCreateRequest, WatchRequest, WatchResponse};
use rustix::process::Signal;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tonic::Streaming;

use crate::cluster::{CALM, COMES_MAX, Cluster, until_answered};
use crate::leases::{ends_in_time, grant, renew};

/// Streams that wait for something.
const WATCHES: usize = 20;
/// Far above what it takes; the machine may be busy. Below what an election by time-out takes here.
const HANDED_OVER_MAX: Duration = Duration::from_millis(4_000);

async fn watch(cluster: &Cluster, member: usize) -> Streaming<WatchResponse> {
    let create = WatchCreateRequest { key: "idle".into(), ..WatchCreateRequest::default() };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = tokio_stream::once(request).chain(tokio_stream::pending());
    let mut stream = WatchClient::new(cluster.channel(member)).watch(requests).await.unwrap().into_inner();
    assert!(stream.message().await.unwrap().unwrap().created);
    stream
}

/// Writes at a member until another leader than that of `term` has taken it; when that was. What was under way at the old
/// leader may never be answered, so each write goes out without waiting for the one before.
async fn written_after(cluster: &Cluster, member: usize, term: u64) -> Instant {
    let (begun, mut tries) = (Instant::now(), JoinSet::new());
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    loop {
        tokio::select! {
            Some(tried) = tries.join_next() => if tried.unwrap() == Some(true) { return Instant::now() },
            _ = tick.tick() => {
                assert!(begun.elapsed() < COMES_MAX, "nothing can be written");
                let mut kv = KvClient::new(cluster.channel(member));
                tries.spawn(async move {
                    let put = PutRequest { key: "k".into(), ..PutRequest::default() };
                    let header = kv.put(put).await.ok()?.into_inner().header;
                    Some(header.unwrap().raft_term > term)
                });
            }
        }
    }
}

/// Cause: the leader ended its clients' connections first, for which a slow one may take its time, and led meanwhile
/// without serving. Symptom: nobody could write for as long. A lease that is renewed all the time stays, and ends only
/// when its time is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_ends_hands_over_before_its_connections_end() {
    let mut cluster = Cluster::rusd(3, &CALM).await;
    let old = cluster.leader().await;
    let (other, third) = ((old + 1) % 3, (old + 2) % 3);
    let channels = [other, third].map(|member| cluster.channel(member));
    let mut watches = Vec::new();
    for _ in 0..WATCHES {
        watches.push(watch(&cluster, old).await);
    }
    // A client that has begun to ask, and says nothing more.
    let mut slow = TcpStream::connect(cluster.url(old).trim_start_matches("http://")).await.unwrap();
    slow.write_all(b"POST /v3/kv/put HTTP/1.1\r\nhost: m\r\ncontent-length: 99\r\n\r\n{").await.unwrap();
    let mut renewed = vec![grant(&cluster.channel(other), 7, 3).await.unwrap()];
    let term = cluster.status_of(other).await.raft_term;

    let begun = Instant::now();
    cluster.process(old).signal(Signal::TERM);
    let written = written_after(&cluster, other, term).await.duration_since(begun);
    renewed.extend(until_answered("a renewal", || renew(&channels[0], 7)).await);
    cluster.ended(old).await;
    println!("written elsewhere after {written:?}, ended after {:?}", begun.elapsed());
    assert!(written < HANDED_OVER_MAX, "{written:?}\n{}", cluster.log(old));
    let log = cluster.log(old);
    let [handed, closed] = ["handed the lead over", "the clients' connections have ended"].map(|line| log.find(line));
    assert!(handed.is_some() && handed < closed, "{log}");
    for stream in &mut watches {
        // The last word may be that it ends, or nothing.
        let _ = stream.message().await;
    }

    renewed.extend(until_answered("a renewal", || renew(&channels[1], 7)).await);
    assert_eq!(renewed.len(), 3, "it was there all the time");
    ends_in_time(&cluster, third, 7, &renewed).await;
    for member in [other, third] {
        assert_eq!(cluster.status_of(member).await.raft_term, term + 1, "handed over, not elected by a time-out");
    }
    cluster.restart(old).await;
    cluster.agree().await;
}
