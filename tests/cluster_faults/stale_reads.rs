//! Linearizable reads at a leader while it stops to be one, and at the follower that takes no part, without `--lease-reads`.
//!
//! ```text
//! readers at the old leader, all the time ──► it is paused, or hands over ──► another one takes a write ──► it goes on
//!                                              more ask it now, each on a connection of its own ◄──┘
//! ```
//! Every read that began after the write was acknowledged must see it, however long it waited at the old leader. Each story
//! is told twice: as it happens, and with what the others say to the old leader held until later. Then it can't hear
//! of its successor in time, and nothing but the question to a quorum keeps it from answering: these fail without it. At the
//! follower its own word stands for a quorum's, so what counts is that it doesn't give it any more once it has voted for another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use rusd_proto::etcdserverpb::{MoveLeaderRequest, RangeRequest};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::cluster::{CALM, COMES_MAX, Cluster};
use crate::lease_reads::{put, put_surely};
use crate::observed::series;
use crate::process::CALL_MAX;
use crate::settings;

/// Reads under way at a time.
const READERS: usize = 32;

/// A connection of its own, over which something was answered already.
async fn connection(cluster: &Cluster, member: usize) -> Channel {
    let endpoint = Endpoint::from_shared(cluster.url(member)).unwrap().timeout(CALL_MAX);
    let channel = endpoint.connect().await.unwrap();
    let range = RangeRequest { key: "k".into(), serializable: true, ..RangeRequest::default() };
    KvClient::new(channel.clone()).range(range).await.unwrap();
    channel
}

/// Reads at one member.
struct Readers {
    ends: Arc<AtomicBool>,
    /// When each began, and what it found.
    reading: JoinSet<Vec<(Instant, u64)>>,
}

impl Readers {
    fn start(cluster: &Cluster, member: usize) -> Self {
        let mut readers = Self { ends: Arc::default(), reading: JoinSet::new() };
        for _ in 0..READERS {
            readers.add(cluster.channel(member));
        }
        readers
    }

    /// One more, which begins now.
    fn add(&mut self, channel: Channel) {
        let (mut client, ends) = (KvClient::new(channel), self.ends.clone());
        self.reading.spawn(async move {
            let mut found = Vec::new();
            // The last one begins when all is over, and is to be answered.
            let mut over = None;
            loop {
                let begun = Instant::now();
                let ends = ends.load(Ordering::Relaxed).then(|| *over.get_or_insert(begun));
                let range = RangeRequest { key: "k".into(), ..RangeRequest::default() };
                // What isn't answered wasn't answered wrongly.
                let answer = client.range(range).await;
                let answered = answer.is_ok();
                if let Ok(range) = answer {
                    let value = String::from_utf8_lossy(&range.get_ref().kvs[0].value).parse().unwrap();
                    found.push((begun, value));
                }
                if ends.is_some_and(|over| answered || over.elapsed() > COMES_MAX) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
    }

    /// Checks all of them; `new` was acknowledged `at` that time. How many began after that and were answered.
    async fn saw(mut self, new: u64, at: Instant) -> usize {
        self.ends.store(true, Ordering::Relaxed);
        let mut after = 0;
        while let Some(found) = self.reading.join_next().await {
            for (begun, value) in found.unwrap().into_iter().filter(|(begun, _)| *begun > at) {
                let late = begun.duration_since(at);
                assert_eq!(value, new, "stale: begun {late:?} after the write was acknowledged");
                after += 1;
            }
        }
        after
    }
}

/// Holds what the others say to a member.
fn deafen(cluster: &Cluster, member: usize) {
    for other in others(member) {
        cluster.net.hold(other, member);
    }
}

fn others(member: usize) -> [usize; 2] {
    [(member + 1) % 3, (member + 2) % 3]
}

/// Writes at the others, as soon as one of them takes it: a try that meets no leader isn't waited for. When it was taken.
async fn put_elsewhere(cluster: &Cluster, old: usize, value: u64) -> Instant {
    const TRY: Duration = Duration::from_secs(1);
    let begun = Instant::now();
    loop {
        let tries = others(old).map(|member| {
            let tried = tokio::time::timeout(TRY, put(cluster, member, value));
            Box::pin(async { if tried.await == Ok(true) { Ok(()) } else { Err(()) } })
        });
        // The first that is acknowledged: whoever leads no more may still take itself for the leader.
        if futures::future::select_ok(tries).await.is_ok() {
            return Instant::now();
        }
        assert!(begun.elapsed() < COMES_MAX, "nothing can be written");
    }
}

/// What happens to a leader that hears nothing of its successor for a while.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Story {
    /// It isn't heard either.
    CutOff,
    /// It stands still, and goes on once another one has taken a write.
    Paused,
    /// It asks another one to take over.
    HandsOver,
}

/// Where it is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    OldLeader,
    /// The one that neither leads nor is asked to.
    Follower,
}

/// Tells a story some times: what was written elsewhere is seen by all reads at this place that begin afterwards.
async fn reads_are_not_stale(story: Story, place: Place, rounds: u32) {
    let cluster = Cluster::rusd(3, &[]).await;
    for round in 1..=u64::from(rounds) {
        let old = cluster.leader().await;
        put_surely(&cluster, old, 2 * round).await;
        let target_id = cluster.id((old + 1) % 3).await;
        let at = if place == Place::OldLeader { old } else { (old + 2) % 3 };
        let mut readers = Readers::start(&cluster, at);
        let (mut late, mut moving) = (Vec::new(), None);
        match story {
            Story::CutOff => cluster.net.isolate(old, 3),
            Story::Paused => {
                late = futures::future::join_all((0..READERS).map(|_| connection(&cluster, at))).await;
                cluster.pause(old);
                deafen(&cluster, old);
            }
            Story::HandsOver => {
                deafen(&cluster, old);
                let mut client = MaintenanceClient::new(cluster.channel(old));
                moving = Some(tokio::spawn(async move { client.move_leader(MoveLeaderRequest { target_id }).await }));
            }
        }
        let acknowledged = put_elsewhere(&cluster, old, 2 * round + 1).await;
        if story == Story::Paused {
            // In its sockets, to be read before anything else is heard.
            late.into_iter().for_each(|channel| readers.add(channel));
            tokio::time::sleep(Duration::from_millis(50)).await;
            cluster.resume(old);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.net.heal();
        if let Some(moving) = moving {
            // It may have given up waiting for what it couldn't hear.
            let _ = moving.await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        let answered = readers.saw(2 * round + 1, acknowledged).await;
        println!("  round {round}: {answered} reads after the write");
        assert!(answered > 0, "none was answered");
    }
}

/// Reads at a leader from which nothing is heard and to which nothing comes: for a while it takes itself for the leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_at_a_leader_that_is_cut_off_are_not_stale() {
    reads_are_not_stale(Story::CutOff, Place::OldLeader, settings::rounds_or(3, 30)).await;
}

/// etcd 20418 and 21417, with a leader that hears nothing when it goes on: it knows of no successor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_wait_at_a_paused_leader_that_hears_nothing_are_not_stale() {
    reads_are_not_stale(Story::Paused, Place::OldLeader, settings::rounds_or(3, 30)).await;
}

/// etcd 21378, with a leader that asks another one to take over, and doesn't hear that it has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_at_a_leader_that_hands_over_and_hears_nothing_are_not_stale() {
    reads_are_not_stale(Story::HandsOver, Place::OldLeader, settings::rounds_or(4, 40)).await;
}

/// The follower asks the old leader for as long as it knows of no other, and may have voted for another meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_at_a_follower_of_a_leader_that_goes_are_not_stale() {
    for story in [Story::CutOff, Story::Paused, Story::HandsOver] {
        reads_are_not_stale(story, Place::Follower, settings::rounds_or(2, 20)).await;
    }
}

/// A follower's question has its vote with it, which with the leader's is a quorum of three: nobody else is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_at_a_follower_of_three_costs_no_round() {
    const READS: u32 = 60;
    let cluster = Cluster::rusd(3, &CALM).await;
    let leader = cluster.leader().await;
    put_surely(&cluster, leader, 1).await;
    let heartbeats =
        async || series(&cluster, leader, "etcd_network_peer_round_trip_time_seconds_count").await.iter().sum::<f64>();
    for member in [leader, (leader + 1) % 3, (leader + 2) % 3] {
        let mut client = KvClient::new(cluster.channel(member));
        let (before, begun) = (heartbeats().await, Instant::now());
        for _ in 0..READS {
            let range = RangeRequest { key: "k".into(), ..RangeRequest::default() };
            assert_eq!(client.range(range).await.unwrap().get_ref().kvs[0].value, "1");
        }
        let answered = heartbeats().await - before;
        // Those that are sent to two members anyway, each 100 ms.
        let anyway = 2.0 * (begun.elapsed().as_secs_f64() / 0.1 + 2.0);
        if member == leader {
            assert!(answered >= f64::from(READS), "a round for each read: {answered}");
        } else {
            assert!(answered < f64::from(READS) / 2.0 + anyway, "{answered} at a follower, {anyway} anyway");
        }
    }
}

/// etcd 20418 and 21417: reads wait at a leader that stands still; when it goes on, before it has heard of its
/// successor, it answers them from what it had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_wait_at_a_paused_leader_are_not_stale() {
    let cluster = Cluster::rusd(3, &[]).await;
    for round in 1..=u64::from(settings::rounds_or(3, 30)) {
        let old = cluster.leader().await;
        put_surely(&cluster, old, 2 * round).await;
        let mut readers = Readers::start(&cluster, old);
        let late = futures::future::join_all((0..READERS).map(|_| connection(&cluster, old))).await;
        cluster.pause(old);
        put_surely(&cluster, (old + 1) % 3, 2 * round + 1).await;
        let acknowledged = Instant::now();
        // In its sockets, to be read before anything else is heard.
        late.into_iter().for_each(|channel| readers.add(channel));
        tokio::time::sleep(Duration::from_millis(100)).await;
        cluster.resume(old);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let answered = readers.saw(2 * round + 1, acknowledged).await;
        println!("  round {round}: {answered} reads after the write");
        assert!(answered > 0, "none was answered");
    }
}

/// etcd 21378: the same across a change of the leader that was asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_at_a_leader_that_hands_over_are_not_stale() {
    // Nobody else comes to lead before it is asked to hand over.
    let cluster = Cluster::rusd(3, &CALM).await;
    for round in 1..=u64::from(settings::rounds_or(8, 80)) {
        let old = cluster.leader().await;
        put_surely(&cluster, old, 2 * round).await;
        let new = (old + 1) % 3;
        let target_id = cluster.id(new).await;
        let readers = Readers::start(&cluster, old);
        let mut client = MaintenanceClient::new(cluster.channel(old));
        let moving = tokio::spawn(async move { client.move_leader(MoveLeaderRequest { target_id }).await });
        put_surely(&cluster, new, 2 * round + 1).await;
        let acknowledged = Instant::now();
        moving.await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(readers.saw(2 * round + 1, acknowledged).await > 0, "none was answered");
    }
}
