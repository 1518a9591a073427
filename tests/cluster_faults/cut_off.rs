//! Members that the network separates from the others, in both directions or in one.

use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::{PutRequest, RangeRequest};
use tonic::Code;

use crate::cluster::{CALM, CALM_ELECTIONS, COMES_MAX, Cluster};
use crate::run::Run;
use crate::settings::rounds_or;

/// Twice [`CALM`]'s election timeout: a request that began so shortly before a new leader was seen was lost with the old one.
const WITHIN: Duration = Duration::from_secs(8);

/// Leader and term as a member has them.
async fn reign(cluster: &Cluster, member: usize) -> (u64, u64) {
    let status = cluster.status_of(member).await;
    (status.leader, status.raft_term)
}

/// What a member that is alone answers: nothing that needs the others.
async fn answers_as_alone(cluster: &Cluster, member: usize) {
    let mut kv = KvClient::new(cluster.channel(member));
    let read = RangeRequest { key: "k0".into(), ..RangeRequest::default() };
    kv.range(RangeRequest { serializable: true, ..read.clone() }).await.expect("a serializable read needs nobody");
    let mut writer = kv.clone();
    let put = PutRequest { key: "big/alone".into(), ..PutRequest::default() };
    let (read, written) = tokio::join!(kv.range(read), writer.put(put));
    let refused = read.expect_err("a linearizable read needs a quorum");
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "etcdserver: request timed out"));
    let refused = written.expect_err("so does a write");
    assert!(matches!(refused.code(), Code::Unavailable | Code::DeadlineExceeded), "{refused:?}");
}

/// The leader is cut off from the others. They choose another and go on; the one that is cut off answers
/// nothing that needs a quorum, and is a follower of the new one once the network is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off() {
    let run = Run::start("leader cut off", 3, &CALM).await;
    let cluster = &run.cluster;
    let old = cluster.leader().await;
    cluster.net.isolate(old, 3);
    let new = cluster.leader_but(Some(old)).await;
    run.load.goes_on(100).await;
    answers_as_alone(cluster, old).await;
    assert_eq!(cluster.status_of(old).await.leader, 0, "it knows that it leads nobody");
    let before = reign(cluster, new).await;
    cluster.net.heal();
    run.load.goes_on(200).await;
    assert_eq!(reign(cluster, new).await, before, "the one that comes back deposes nobody");
    run.finish().await;
}

/// The leader hears nobody, but the others hear it: its heartbeats must not keep them from choosing another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hears_nobody() {
    let run = Run::start("leader deaf", 3, &CALM).await;
    let cluster = &run.cluster;
    let old = cluster.leader().await;
    for other in (0..3).filter(|other| *other != old) {
        cluster.net.hold(other, old);
    }
    cluster.leader_but(Some(old)).await;
    run.load.goes_on(100).await;
    answers_as_alone(cluster, old).await;
    cluster.net.heal();
    run.load.goes_on(100).await;
    run.finish().await;
}

/// The leader is heard by nobody, but hears the others: it learns from the new leader that it is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_nobody_hears() {
    let run = Run::start("leader mute", 3, &CALM).await;
    let cluster = &run.cluster;
    let old = cluster.leader().await;
    for other in (0..3).filter(|other| *other != old) {
        cluster.net.hold(old, other);
    }
    let new = cluster.leader_but(Some(old)).await;
    run.load.goes_on(100).await;
    answers_as_alone(cluster, old).await;
    let before = reign(cluster, new).await;
    cluster.net.heal();
    run.load.goes_on(200).await;
    assert_eq!(reign(cluster, new).await, before, "the one that comes back deposes nobody");
    run.finish().await;
}

/// A follower hears nobody, but the others hear it: it asks for votes again and again, and nobody gives it
/// one while the leader is there. Then the other way round.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_cut_off_in_one_direction_deposes_nobody() {
    let run = Run::start("follower one-way", 3, &CALM).await;
    let cluster = &run.cluster;
    let leader = cluster.leader().await;
    let before = reign(cluster, leader).await;
    let follower = (leader + 1) % 3;
    for deaf in [true, false] {
        for other in (0..3).filter(|other| *other != follower) {
            let (from, to) = if deaf { (other, follower) } else { (follower, other) };
            cluster.net.hold(from, to);
        }
        tokio::time::sleep(CALM_ELECTIONS).await;
        run.load.goes_on(50).await;
        let mut kv = KvClient::new(cluster.channel(follower));
        let read = RangeRequest { key: "k0".into(), ..RangeRequest::default() };
        kv.range(read).await.expect_err("it can't know what the others have acknowledged");
        assert_eq!(reign(cluster, leader).await, before, "deaf: {deaf}");
        cluster.net.heal();
        run.load.goes_on(100).await;
        assert_eq!(reign(cluster, leader).await, before, "deaf: {deaf}; after the network was mended");
    }
    run.finish().await;
}

/// A slow network: everything between members takes 40 ms more in one direction, 10 ms in the other.
/// Slower, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_network() {
    let run = Run::start("slow network", 3, &CALM).await;
    for (from, to) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
        run.cluster.net.delay(from, to, Duration::from_millis(if from < to { 40 } else { 10 }));
    }
    let leader = run.cluster.leader().await;
    let before = reign(&run.cluster, leader).await;
    run.load.goes_on(200).await;
    assert_eq!(reign(&run.cluster, leader).await, before);
    run.cluster.net.heal();
    run.finish().await;
}

/// A bad network: every direction between members is late by its own time, unevenly, and loses one piece in fifty, which TCP
/// repeats a fifth of a second later, so what follows is late as well. Writes go on; then the leader is killed in it, and
/// the others find another one. Nothing else happens: nothing is lost, no read is old.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_network() {
    let mut run = Run::start("bad network", 3, &[]).await;
    for (from, to) in (0..3).flat_map(|from| (0..3).map(move |to| (from, to))).filter(|(from, to)| from != to) {
        let (delay, jitter) = (Duration::from_millis(10 * (from + 1) as u64), Duration::from_millis(40));
        run.cluster.net.worsen(from, to, delay, jitter, 2);
    }
    for _ in 0..rounds_or(1, 10) {
        run.load.goes_on(150).await;
        let leader = run.cluster.leader().await;
        run.cluster.kill(leader);
        run.cluster.leader_but(Some(leader)).await;
        run.load.goes_on(100).await;
        run.cluster.restart(leader).await;
    }
    run.cluster.net.heal();
    run.finish().await;
}

/// A write at a leader that is cut off is in its log alone; the next leader's entries take its place. It is told as
/// etcd tells it: the outcome is unknown, and the previous leader is to blame, if it is replaced within two elections' time.
/// Where a busy machine took longer, it is told another time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_at_a_leader_that_fails_is_told_so() {
    let cluster = Cluster::rusd(3, &CALM).await;
    for round in 1..=5 {
        let old = cluster.leader().await;
        let id = cluster.id(old).await;
        cluster.net.isolate(old, 3);
        // From here on it hears of nobody else.
        let before = reign(&cluster, old).await;
        let mut kv = KvClient::new(cluster.channel(old));
        let begun = Instant::now();
        let lost = tokio::spawn(async move {
            let put = PutRequest { key: "lost".into(), ..PutRequest::default() };
            kv.put(put).await
        });
        let new = cluster.leader_but(Some(old)).await;
        cluster.put(new, PutRequest { key: "kept".into(), ..PutRequest::default() }).await;
        cluster.net.heal();
        while matches!(reign(&cluster, old).await, (leader, term) if leader == 0 || term == before.1) {
            assert!(begun.elapsed() < COMES_MAX, "it hears of no other leader\n{}", cluster.log(old));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let counts = before.0 == id && begun.elapsed() < WITHIN;
        let told = lost.await.unwrap();
        println!("  round {round}: counts: {counts}, {told:?}");
        if counts {
            let refused = told.expect_err("it is nowhere");
            let told = (refused.code(), refused.message());
            let blamed = "etcdserver: request timed out, possibly due to previous leader failure";
            assert_eq!(told, (Code::Unavailable, blamed));
            return;
        }
    }
    panic!("it always took longer than two elections");
}
