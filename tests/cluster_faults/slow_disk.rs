//! `--slow-disk-hand-over` on processes: a leader whose syncs take long gives the lead away, once.
//!
//! The disk is slowed by a failpoint in the log's sync, so only with the feature `failpoints`:
//! `cargo xtask failpoints`. What is awaited takes a minute by design (no leader hands over in its first one).

use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::failpoint::ask;
use crate::run::Run;

/// A leader's first minute, the ten seconds that it looks, and what a busy machine adds.
const HANDS_OVER_MAX: Duration = Duration::from_secs(240);
/// Longer than a leader keeps the lead before it may hand over.
const WATCHED: Duration = Duration::from_secs(90);

const POINT: &str = "walBeforeSync";
const SLOW: &str = "sleep(120)";

fn slow_down(cluster: &Cluster, member: usize) {
    assert_eq!(ask(cluster.failpoints(member), "PUT", POINT, SLOW).0, 204);
}

fn speed_up(cluster: &Cluster, member: usize) {
    assert_eq!(ask(cluster.failpoints(member), "DELETE", POINT, "").0, 204);
}

fn hand_overs(cluster: &Cluster) -> usize {
    let told = |member| cluster.log(member).matches("disk is slow: handing the lead over").count();
    (0..cluster.len()).map(told).sum()
}

async fn term(cluster: &Cluster) -> u64 {
    let leader = cluster.leader().await;
    cluster.status(leader).await.unwrap().raft_term
}

/// All disks are equally slow: nobody would do better, and the leader stays. Then the others get fast ones: the leader
/// hands over, exactly once; with its slow disk it doesn't get the lead back, and the new leader keeps it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failpoint_slows_the_leaders_disk_and_it_hands_over_once() {
    let flags = ["--slow-disk-hand-over", "--election-timeout=3000", "--heartbeat-interval=100"];
    let run = Run::start("leader's disk slow", 3, &flags).await;
    let cluster = &run.cluster;
    let (old, before) = (cluster.leader().await, term(cluster).await);
    (0..3).for_each(|member| slow_down(cluster, member));
    tokio::time::sleep(WATCHED).await;
    assert_eq!((hand_overs(cluster), cluster.leader().await), (0, old), "all disks are alike");

    (0..3).filter(|member| *member != old).for_each(|member| speed_up(cluster, member));
    let begun = Instant::now();
    while hand_overs(cluster) == 0 {
        assert!(begun.elapsed() < HANDS_OVER_MAX, "it keeps the lead");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let new = cluster.leader_but(Some(old)).await;
    assert_eq!(term(cluster).await, before + 1, "handed over, not elected by a time-out");
    println!("handed over after {:.1} s", begun.elapsed().as_secs_f64());

    tokio::time::sleep(WATCHED).await;
    assert_eq!((hand_overs(cluster), cluster.leader().await), (1, new), "to and fro");
    assert_eq!(term(cluster).await, before + 1);
    run.load.goes_on(100).await;
    run.finish().await;
}
