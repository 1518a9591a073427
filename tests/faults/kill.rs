//! SIGKILL at random moments: under load, while starting, while compacting and taking snapshots.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::check::check;
use crate::history::History;
use crate::load::Load;
use crate::member::Member;
use crate::settings;

const WORKERS: usize = 12;

/// etcd 13766, 14370, 17780: a kill under load lost acknowledged writes, applied some twice, or set
/// the revision back. Here each round kills, sometimes again while it starts, and checks everything.
async fn killed_under_load(backend: &str) {
    let seed = settings::seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().unwrap();
    let mut member = Member::new(&dir.path().join("data"), &dir.path().join("log"), &settings::eager(backend));
    let history = History::default();
    let follower = history.follow(member.url());
    let mut load = Load::new(seed, WORKERS);
    let begun = Instant::now();
    let rounds = settings::rounds_or(8, 100);
    let mut channel = member.start().await;
    for round in 0..rounds {
        let running = load.start(&channel, &history);
        tokio::time::sleep(Duration::from_millis(rng.random_range(50..900))).await;
        member.kill();
        load.finish(running).await;
        for _ in 0..rng.random_range(0..3) {
            member.spawn();
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..250))).await;
            member.kill();
        }
        channel = member.start().await;
        let ledger = std::mem::take(&mut *load.ledger.lock().unwrap());
        check(&channel, &ledger, &history, &follower).await;
        println!(
            "kill {backend} round {}: {} acknowledged of {}, revision {}",
            round + 1,
            ledger.acknowledged(),
            ledger.attempts.len(),
            history.last()
        );
        *load.ledger.lock().unwrap() = ledger;
    }
    follower.abort();
    let snapshots = member.log().matches("saved snapshot").count();
    println!(
        "SUMMARY kill {backend}: {rounds} rounds, {snapshots} snapshots in {:.1} s",
        begun.elapsed().as_secs_f64()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loses_nothing() {
    for backend in settings::backends() {
        killed_under_load(&backend).await;
    }
}
