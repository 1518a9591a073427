//! Whatever comes, one fault after the other and at the same time, by a seed.
//!
//! `RUSD_FAULT_ROUNDS=100 cargo test --test cluster_faults chaos -- --nocapture` is the long way round.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::run::Run;
use crate::settings;

/// Snapshots all the time: whoever is away for a moment comes back through one.
const EAGER: [&str; 3] = ["--snapshot-count=60", "--snapshot-log-mb=0", "--snapshot-catchup-entries=20"];

/// What is wrong with a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Well,
    Dead,
    Paused,
}

struct Chaos {
    run: Run,
    rng: StdRng,
    states: Vec<State>,
}

impl Chaos {
    /// One more thing that goes wrong.
    async fn break_something(&mut self) {
        let count = self.states.len();
        let leader = self.run.cluster.find_leader().await;
        // The leader is the most interesting one.
        let victim = leader.filter(|_| self.rng.random_bool(0.5)).unwrap_or_else(|| self.rng.random_range(0..count));
        let other = (victim + self.rng.random_range(1..count)) % count;
        let net = &self.run.cluster.net;
        let fault = self.rng.random_range(0..8);
        println!("  fault {fault} at m{victim}, other m{other}, leader {leader:?}");
        match fault {
            0 => net.isolate(victim, count),
            1 => (0..count).filter(|from| *from != victim).for_each(|from| net.hold(from, victim)),
            2 => (0..count).filter(|to| *to != victim).for_each(|to| net.hold(victim, to)),
            3 => net.hold(victim, other),
            4 => net.delay(victim, other, Duration::from_millis(self.rng.random_range(1..400))),
            5 if self.states[victim] == State::Well => {
                self.run.cluster.pause(victim);
                self.states[victim] = State::Paused;
            }
            6 if self.states[victim] == State::Well => {
                self.run.cluster.terminate(victim).await;
                self.states[victim] = State::Dead;
            }
            _ => {
                self.run.cluster.kill(victim);
                self.states[victim] = State::Dead;
            }
        }
    }

    async fn mend(&mut self) {
        for member in 0..self.states.len() {
            match std::mem::replace(&mut self.states[member], State::Well) {
                State::Well => {}
                State::Dead => self.run.cluster.spawn(member),
                State::Paused => self.run.cluster.resume(member),
            }
        }
        self.run.cluster.net.heal();
    }
}

async fn play(name: &'static str, members: usize, rounds: u32) {
    let run = Run::start(name, members, &EAGER).await;
    let mut chaos = Chaos { run, rng: StdRng::seed_from_u64(settings::seed()), states: vec![State::Well; members] };
    for round in 0..rounds {
        println!("{name}: round {round}");
        for _ in 0..chaos.rng.random_range(1..4) {
            chaos.break_something().await;
            let pause = chaos.rng.random_range(0..1500);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        chaos.mend().await;
        for member in 0..members {
            chaos.run.cluster.serves(member).await;
        }
        chaos.run.load.goes_on(20).await;
    }
    chaos.run.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_among_three() {
    play("chaos, three", 3, settings::rounds_or(4, 40)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_among_five() {
    play("chaos, five", 5, settings::rounds_or(2, 20)).await;
}
