//! `--lease-reads`: a leader answers without asking the others, and never what is no longer so.

use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use rusd_proto::etcdserverpb::{MoveLeaderRequest, PutRequest, RangeRequest};

use crate::cluster::{COMES_MAX, Cluster};

/// A linearizable read at one member; `None` if it doesn't answer within `limit`.
async fn read(cluster: &Cluster, member: usize, limit: Duration) -> Option<u64> {
    let range = RangeRequest { key: "k".into(), ..Default::default() };
    let mut client = KvClient::new(cluster.channel(member));
    let found = tokio::time::timeout(limit, client.range(range)).await.ok()?.ok()?.into_inner();
    Some(String::from_utf8_lossy(&found.kvs[0].value).parse().unwrap())
}

/// Writes at a member; whether it took it.
pub(crate) async fn put(cluster: &Cluster, member: usize, value: u64) -> bool {
    let put = PutRequest { key: "k".into(), value: value.to_string().into(), ..Default::default() };
    KvClient::new(cluster.channel(member)).put(put).await.is_ok()
}

/// Writes at a member until it takes it.
pub(crate) async fn put_surely(cluster: &Cluster, member: usize, value: u64) {
    let begun = Instant::now();
    while !put(cluster, member, value).await {
        assert!(begun.elapsed() < COMES_MAX, "nothing can be written");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The lease is used, and ends: with both others paused, the leader answers for a moment and then not any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_reads_alone_for_as_long_as_its_lease_lasts() {
    // Long, for a machine on which other tests run: the lease lasts 1.4 s.
    let cluster = Cluster::rusd(3, &["--lease-reads", "--election-timeout=5000", "--heartbeat-interval=100"]).await;
    let leader = cluster.leader().await;
    put_surely(&cluster, leader, 1).await;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    let begun = Instant::now();
    loop {
        others.iter().for_each(|other| cluster.pause(*other));
        let alone = read(&cluster, leader, Duration::from_millis(900)).await;
        let later = {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            read(&cluster, leader, Duration::from_millis(300)).await
        };
        others.iter().for_each(|other| cluster.resume(*other));
        assert_eq!(later, None, "a lease that nobody has renewed");
        if alone == Some(1) {
            return;
        }
        assert!(begun.elapsed() < COMES_MAX, "it never reads alone\n{}", cluster.log(leader));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Cause: a leader that was paused for longer than its lease, and another one that has written meanwhile. Symptom
/// that must not be: the first one, before it hears of it, answers what it knew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_was_paused_reads_nothing_stale() {
    let cluster = Cluster::rusd(3, &["--lease-reads"]).await;
    for round in 1..=5 {
        let old = cluster.leader().await;
        put_surely(&cluster, old, 2 * round).await;
        assert_eq!(read(&cluster, old, COMES_MAX).await, Some(2 * round));
        cluster.pause(old);
        let other = (old + 1) % 3;
        put_surely(&cluster, other, 2 * round + 1).await;
        // It lies there, to be answered before anything else is heard.
        let early = read(&cluster, old, Duration::from_secs(5));
        let resumed = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            cluster.resume(old);
        };
        let (early, ()) = tokio::join!(early, resumed);
        assert!(early.is_none_or(|value| value == 2 * round + 1), "stale: {early:?} in round {round}");
        for _ in 0..20 {
            let value = read(&cluster, old, Duration::from_secs(5)).await;
            assert!(value.is_none_or(|value| value == 2 * round + 1), "stale: {value:?} in round {round}");
        }
        cluster.leader().await;
    }
}

/// A member that is asked to take over is elected although the leader's lease lasts: the lease ends with the request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hands_over_reads_nothing_stale() {
    let cluster = Cluster::rusd(3, &["--lease-reads", "--election-timeout=5000", "--heartbeat-interval=100"]).await;
    for round in 1..=10 {
        let old = cluster.leader().await;
        put_surely(&cluster, old, 2 * round).await;
        let new = (old + 1) % 3;
        let id = cluster.id(new).await;
        let mut client = MaintenanceClient::new(cluster.channel(old));
        let moving = tokio::spawn(async move { client.move_leader(MoveLeaderRequest { target_id: id }).await });
        put_surely(&cluster, new, 2 * round + 1).await;
        for _ in 0..10 {
            let value = read(&cluster, old, Duration::from_secs(5)).await;
            assert!(value.is_none_or(|value| value == 2 * round + 1), "stale: {value:?} in round {round}");
        }
        moving.await.unwrap().unwrap();
    }
}
