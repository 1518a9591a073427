//! Members in network namespaces on wires that lose packets by chance, have them late, out of order or twice.
//!
//! `split.rs` cuts wires through; here they are bad. What is lost is repeated by TCP, later each time, so that a heartbeat may
//! be late by more than an election takes, and an answer may come when nobody waits for it any more.

use std::time::Duration;

use rusd_proto::etcdserverpb::RangeRequest;
use rusd_proto::etcdserverpb::kv_client::KvClient;

use crate::cluster::{CALM, CALM_ELECTIONS, Cluster, Setup};
use crate::namespaces::Namespaces;
use crate::run::Run;
use crate::settings::rounds_or;
use crate::weather::Weather;

/// Three members, if there can be bad weather between them.
async fn start(name: &'static str, flags: &[&str]) -> Option<Run> {
    let space = Namespaces::new(3, name)?;
    if !space.can_worsen(name) {
        return None;
    }
    Some(Run::of(name, Setup { space: Some(space), ..Setup::rusd(3, flags) }).await)
}

fn space(run: &Run) -> &Namespaces {
    run.cluster.space.as_ref().expect("they have one")
}

/// Makes what a member hears from the others bad, or what they hear from it.
fn worsen_one_way(run: &Run, member: usize, hears: bool, weather: Weather) {
    for other in (0..3).filter(|other| *other != member) {
        let (from, to) = if hears { (other, member) } else { (member, other) };
        space(run).worsen(from, to, weather).unwrap();
    }
}

/// Lets it clear up; what was bad must have been.
fn clear_up(run: &Run) {
    let [lost, late, twice] = space(run).suffered();
    println!("  {lost} packets lost, {late} late, {twice} twice");
    assert!(lost > 0, "the weather was good");
    space(run).clear_up();
}

async fn reign(cluster: &Cluster, member: usize) -> (u64, u64) {
    let status = cluster.status_of(member).await;
    (status.leader, status.raft_term)
}

/// Every wire is bad in both directions, worse from round to round. Writes go on; the leader is killed in it, another one is
/// found, and the killed one comes back. Slower, and nothing else: nothing is lost, no read is old, no event is missed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_wires_are_bad() {
    let Some(mut run) = start("bad wires", &[]).await else { return };
    for round in 0..rounds_or(1, 10) {
        let weather = Weather { lost: (5 + round).min(12) as u8, late: 20, twice: 5 };
        println!("  {weather:?}");
        let pairs: Vec<_> = space(&run).pairs().collect();
        pairs.into_iter().for_each(|(from, to)| space(&run).worsen(from, to, weather).unwrap());
        run.load.goes_on(150).await;
        let leader = run.cluster.leader().await;
        run.cluster.kill(leader);
        run.cluster.leader_but(Some(leader)).await;
        run.load.goes_on(100).await;
        run.cluster.restart(leader).await;
        clear_up(&run);
        run.load.goes_on(100).await;
    }
    run.finish().await;
}

/// A follower's wire loses all or half of what goes one way: what it hears, then what it says. It asks for votes when it
/// hears nobody, and must neither depose the leader nor answer a linearizable read that it can't have asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_loses_one_way_deposes_nobody() {
    let Some(mut run) = start("follower loses one way", &CALM).await else { return };
    let leader = run.cluster.leader().await;
    let before = reign(&run.cluster, leader).await;
    let follower = (leader + 1) % 3;
    for _ in 0..rounds_or(1, 5) {
        for (hears, lost) in [(true, 100), (false, 100), (true, 50), (false, 50)] {
            println!("  m{follower} loses {lost} of a hundred of what it {}", if hears { "hears" } else { "says" });
            worsen_one_way(&run, follower, hears, Weather { lost, late: 0, twice: 0 });
            tokio::time::sleep(CALM_ELECTIONS).await;
            run.load.goes_on(50).await;
            if lost == 100 {
                let mut kv = KvClient::new(run.cluster.channel(follower));
                let read = RangeRequest { key: "k0".into(), ..RangeRequest::default() };
                kv.range(read.clone()).await.expect_err("it can't know what the others have acknowledged");
                kv.range(RangeRequest { serializable: true, ..read }).await.expect("this needs nobody");
            }
            assert_eq!(reign(&run.cluster, leader).await, before, "it is deposed");
            clear_up(&run);
            run.cluster.serves(follower).await;
            run.load.goes_on(50).await;
            assert_eq!(reign(&run.cluster, leader).await, before, "it is deposed when the wire is good again");
        }
    }
    run.finish().await;
}

/// The leader's wire loses a third of what it hears, then of what it says: it may go on leading or not, but there is a leader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_loses_one_way() {
    let Some(mut run) = start("leader loses one way", &[]).await else { return };
    for _ in 0..rounds_or(1, 10) {
        for hears in [true, false] {
            let leader = run.cluster.leader().await;
            println!("  m{leader} loses a third of what it {}", if hears { "hears" } else { "says" });
            worsen_one_way(&run, leader, hears, Weather { lost: 33, late: 10, twice: 5 });
            run.load.goes_on(100).await;
            tokio::time::sleep(Duration::from_secs(3)).await;
            run.load.goes_on(100).await;
            clear_up(&run);
            run.cluster.serves(leader).await;
        }
    }
    run.finish().await;
}
