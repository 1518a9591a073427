//! Members that are killed while clients write, and come back.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::{CALM, COMES_MAX, Cluster};
use crate::run::Run;
use crate::settings;

/// The leader is killed under load. The others choose another and go on; what was acknowledged is
/// there; it comes back as a follower and catches up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_killed_and_comes_back() {
    let mut run = Run::start("leader killed", 3, &[]).await;
    for _ in 0..settings::rounds_or(2, 20) {
        let leader = run.cluster.leader().await;
        run.cluster.kill(leader);
        run.cluster.leader_but(Some(leader)).await;
        run.load.goes_on(100).await;
        run.cluster.restart(leader).await;
        run.load.goes_on(100).await;
    }
    run.finish().await;
}

/// A follower is killed under load. Nobody else notices; it comes back and catches up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_is_killed_and_comes_back() {
    let mut run = Run::start("follower killed", 3, &CALM).await;
    let leader = run.cluster.leader().await;
    for round in 0..settings::rounds_or(2, 20) {
        let follower = (leader + 1 + round as usize % 2) % 3;
        run.cluster.kill(follower);
        run.load.goes_on(200).await;
        run.cluster.restart(follower).await;
        run.load.goes_on(100).await;
    }
    assert_eq!(run.cluster.leader().await, leader, "the leader was never away");
    run.finish().await;
}

/// All members are killed at once under load, as by a power cut of a rack (their disks live on). They
/// come back with everything that was acknowledged; a linearizable read is no older than those before (a
/// leader that took up its old term knew only the commits that it had noted).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_are_killed_at_once() {
    let mut run = Run::start("all killed", 3, &[]).await;
    for _ in 0..settings::rounds_or(8, 80) {
        for member in 0..3 {
            run.cluster.kill(member);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        for member in 0..3 {
            run.cluster.spawn(member);
        }
        for member in 0..3 {
            run.cluster.serves(member).await;
        }
        run.load.goes_on(100).await;
    }
    run.finish().await;
}

/// Cause: a leader that ends asked voters to take over that it knew to be gone, and waited for each. Symptom: nothing was
/// written meanwhile, and where the time was over before a living one's turn came, until an election by time-out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_ends_asks_nobody_who_is_gone() {
    let mut cluster = Cluster::rusd(3, &[&CALM[..], &["--log-level=debug"]].concat()).await;
    let leader = cluster.leader().await;
    cluster.agree().await;
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    let ids = [cluster.id(others[0]).await, cluster.id(others[1]).await];
    // The one that would be asked first: with equal logs they go by their ids.
    let dead = others[usize::from(ids[1] < ids[0])];
    cluster.kill(dead);
    // Longer than a member may be silent.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let leader = cluster.leader().await;
    cluster.terminate(leader).await;
    let log = cluster.log(leader);
    assert!(log.contains("handed the lead over") && !log.contains("the lead was not taken over"), "{log}");
}

/// The leader is ended in order under load. It hands the lead over before it goes, so that there is no election by
/// time-out: exactly one term more, and nobody waited for `--election-timeout`. Each member's log tells of both leaders in
/// etcd's words: nothing in it told who had led when, at the usual level.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_ends_hands_the_lead_over() {
    let mut run = Run::start("leader ended", 3, &CALM).await;
    let leader = run.cluster.leader().await;
    let term = run.cluster.status_of(leader).await.raft_term;
    run.load.goes_on(50).await;
    run.cluster.terminate(leader).await;
    assert!(run.cluster.log(leader).contains("handed the lead over"), "{}", run.cluster.log(leader));
    let next = run.cluster.leader_but(Some(leader)).await;
    assert_eq!(run.cluster.status_of(next).await.raft_term, term + 1);
    run.load.goes_on(50).await;
    run.cluster.restart(leader).await;
    let (first, second) = (run.cluster.id(leader).await, run.cluster.id(next).await);
    for member in 0..3 {
        let own = run.cluster.id(member).await;
        let url = run.cluster.process(member).flag("listen-peer-urls").to_owned();
        let address = url.trim_start_matches("http://");
        says(&run.cluster, member, |line| line["msg"] == "serving peer traffic" && line["address"] == address).await;
        for (id, term) in [(first, term), (second, term + 1)] {
            let elected = format!("raft.node: {own:x} elected leader {id:x} at term {term}");
            let changed = format!("raft.node: {own:x} changed leader from {first:x} to {id:x} at term {term}");
            says(&run.cluster, member, |line| {
                let is_told = line["msg"] == elected || line["msg"] == changed;
                is_told && line["level"] == "info" && line["leader-id"] == format!("{id:x}") && line["term"] == term
            })
            .await;
        }
    }
    run.finish().await;
}

/// Waits until a member's log has such a line.
async fn says(cluster: &Cluster, member: usize, wished: impl Fn(&Value) -> bool) {
    let begun = Instant::now();
    loop {
        let log = cluster.log(member);
        // One that is being written may not be whole yet.
        if log.lines().filter_map(|line| serde_json::from_str(line).ok()).any(|line| wished(&line)) {
            return;
        }
        assert!(begun.elapsed() < COMES_MAX, "m{member} doesn't say it: {log}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
