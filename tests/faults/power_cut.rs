//! The power goes, at random moments, under load or while starting: what was not synced is lost.
//!
//! This is what `SIGKILL` can't show, since the kernel keeps a killed process's writes: an answer
//! given before its fsync, a new file or a rename whose directory was never synced.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::check::check;
use crate::history::History;
use crate::load::Load;
use crate::member::Member;
use crate::settings;
use crate::volume::Volume;

const WORKERS: usize = 12;

/// How long a process may go on when its disk is gone.
const END_MAX: Duration = Duration::from_secs(30);

/// etcd 14370: an acknowledged write of a one-member cluster was lost. The process must notice that
/// its disk fails, end by itself with a word, and find everything answered when the power is back.
async fn cut(backend: &str) {
    let seed = settings::seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let Some(mut volume) = Volume::ext4(1024, "a_power_cut_loses_nothing") else { return };
    let mut member = Member::new(&volume.path().join("data"), &volume.beside("log"), &settings::eager(backend));
    let history = History::default();
    let follower = history.follow(member.url());
    let mut load = Load::new(seed, WORKERS);
    let begun = Instant::now();
    let rounds = settings::rounds_or(3, 30);
    let mut cuts = 0;
    let mut channel = member.start().await;
    for round in 0..rounds {
        let running = load.start(&channel, &history);
        tokio::time::sleep(Duration::from_millis(rng.random_range(50..1_500))).await;
        volume.power_cut();
        cuts += 1;
        let status = member.ended(END_MAX).await;
        let status = status.unwrap_or_else(|| panic!("it goes on without a disk\n{}", member.log_tail()));
        assert_eq!(status.code(), Some(1), "{status}\n{}", member.log_tail());
        assert!(member.log_tail().contains("Input/output error"), "no word of the disk:\n{}", member.log_tail());
        load.finish(running).await;
        volume.power_on();
        while rng.random_range(0..3) == 0 {
            member.spawn();
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..400))).await;
            volume.power_cut();
            cuts += 1;
            member.kill();
            volume.power_on();
        }
        channel = member.start().await;
        let ledger = std::mem::take(&mut *load.ledger.lock().unwrap());
        check(&channel, &ledger, &history, &follower).await;
        println!(
            "power cut {backend} round {}: {} acknowledged of {}, revision {}",
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
        "SUMMARY power cut {backend}: {rounds} rounds, {cuts} cuts, {snapshots} snapshots in {:.1} s",
        begun.elapsed().as_secs_f64()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_loses_nothing() {
    for backend in settings::backends() {
        cut(&backend).await;
    }
}
