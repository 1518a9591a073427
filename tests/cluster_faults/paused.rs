//! Members whose process stands still and goes on.

use std::time::{Duration, Instant};

use crate::cluster::{Cluster, until_answered};
use crate::leases::{ends_in_time, grant_surely, is_there, renew};
use crate::run::Run;
use crate::settings;

/// etcd 20418, 21417 and, across a change of the leader, 21378: a leader that was paused and replaced answered reads from what it had. Here it is
/// paused for longer than an election takes; reads and writes wait in its sockets and are answered when it
/// goes on; none may be older than what the others have acknowledged meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_leader_gives_no_stale_read() {
    let run = Run::start("leader paused", 3, &[]).await;
    for _ in 0..settings::rounds_or(2, 20) {
        let leader = run.cluster.leader().await;
        run.cluster.pause(leader);
        run.cluster.leader_but(Some(leader)).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        run.cluster.resume(leader);
        run.load.goes_on(100).await;
    }
    run.finish().await;
}

const TTL_SECS: i64 = 4;

/// While the leader is paused, another one takes over its leases. None ends before its time, whether it
/// is renewed or not; renewals at followers go to whoever leads; what the paused one answers when it goes on
/// is true (etcd 3.7.1 answers a renewal with a time that the lease doesn't get).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lease_ends_early_through_a_pause_of_the_leader() {
    let cluster = Cluster::rusd(3, &[]).await;
    let leader = cluster.leader().await;
    let (kept_at, reader) = ((leader + 1) % 3, (leader + 2) % 3);
    let follower = cluster.channel(kept_at);
    let (kept, left_alone, late) = (1, 2, 3);
    let mut renewed = vec![grant_surely(&follower, kept, TTL_SECS).await];
    let alone = vec![grant_surely(&follower, left_alone, TTL_SECS).await];
    let mut overtaken = vec![grant_surely(&follower, late, TTL_SECS).await];

    let channel = cluster.channel(reader);
    cluster.pause(leader);
    // It waits in the socket of the one that is paused.
    let old = cluster.channel(leader);
    let asked_old = tokio::spawn(async move { renew(&old, late).await });
    let paused = Instant::now();
    let (mut answered, mut resumed) = (0, false);
    while paused.elapsed() < Duration::from_secs(6) {
        // One that waits for a leader may wait for long.
        if let Ok(Ok(answer)) = tokio::time::timeout(Duration::from_secs(1), renew(&follower, kept)).await {
            renewed.push(answer.expect("a lease that is renewed lives"));
            answered += 1;
        }
        if !resumed && paused.elapsed() > Duration::from_secs(3) {
            cluster.resume(leader);
            resumed = true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(answered >= 5, "{answered} renewals were answered at a follower");
    let (sent, ttl) = *renewed.last().expect("it was granted");
    let is_there = until_answered("its key", || is_there(&channel, kept)).await;
    assert!(is_there || sent.elapsed() >= ttl, "it is renewed all the time");
    overtaken.extend(asked_old.await.unwrap().ok().flatten());
    ends_in_time(&cluster, reader, late, &overtaken).await;
    ends_in_time(&cluster, reader, left_alone, &alone).await;
    ends_in_time(&cluster, reader, kept, &renewed).await;
    cluster.agree().await;
}
