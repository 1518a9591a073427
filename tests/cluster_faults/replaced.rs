//! Members are replaced one after the other under load, until none is left of those that began.
//!
//! ```text
//! who goes: the leader, or one of the others        how it ends: while it runs, or killed before, and comes back afterwards
//! what comes first: the removal, or its successor   how the new one comes: with a vote to come, or as a learner to promote
//! ```
//! The successor has an empty directory and gets its state by a snapshot. Whoever was removed ends by itself, also
//! when it is started again. Clients go on at whoever has the place.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rusd_proto::etcdserverpb::PutRequest;

use crate::process::Process;
use crate::run::Run;
use crate::settings::{self, rounds_or};

/// Snapshots all the time: a new member can't have its state from the log alone.
const EAGER: [&str; 3] = ["--snapshot-count=60", "--snapshot-log-mb=0", "--snapshot-catchup-entries=20"];

/// Weight, so that a snapshot is more than a moment.
const BALLAST_KEYS: usize = 64;
const BALLAST_BYTES: usize = 32 << 10;

/// Whether the old one is killed first, the new one comes first, and it comes as a learner. The new one of a dead member
/// can't come first: the cluster must not grow while one is away (`--strict-reconfig-check`).
const WAYS: [[bool; 3]; 6] = [
    [false, false, false],
    [false, true, true],
    [true, false, false],
    [false, false, true],
    [false, true, false],
    [true, false, true],
];

struct Replacement {
    /// Who goes.
    place: usize,
    /// Who is asked for the changes.
    asked: usize,
    as_learner: bool,
    killed_first: bool,
}

impl Replacement {
    /// The `round`-th: every way comes by in six rounds, who goes is chance, the leader every other time.
    async fn plan(run: &Run, rng: &mut StdRng, round: u32) -> (Self, bool) {
        let leader = run.cluster.leader().await;
        let count = run.cluster.len();
        let place = if (round + round / 6) % 2 == 1 { leader } else { (leader + rng.random_range(1..count)) % count };
        let [killed_first, grows_first, as_learner] = WAYS[round as usize % WAYS.len()];
        // The one that goes can be asked for its own removal, if it lives.
        let away = usize::from(killed_first || rng.random_bool(0.5));
        let asked = (place + if away == 0 { 0 } else { rng.random_range(1..count) }) % count;
        println!(
            "  round {round}: m{place}{} goes, {}, {}{}, asked is m{asked}",
            if place == leader { " (leads)" } else { "" },
            if killed_first { "killed" } else { "alive" },
            if as_learner { "a learner follows" } else { "a voter follows" },
            if grows_first { " before" } else { "" },
        );
        (Self { place, asked, as_learner, killed_first }, grows_first)
    }

    /// Someone who isn't the one that goes.
    fn other(&self, run: &Run) -> usize {
        if self.asked == self.place { (self.place + 1) % run.cluster.len() } else { self.asked }
    }

    /// Has the new one added, started and given its vote; puts it in the place.
    async fn bring(&self, run: &mut Run, mut new: Process, asked: usize) -> Process {
        let peer = new.place.peer[1].clone();
        let id = run.cluster.add(asked, &peer, self.as_learner).await;
        let members = run.cluster.members(asked).await;
        let urls = members.iter().map(|member| {
            let name = if member.id == id { &new.name } else { &member.name };
            format!("{name}={}", member.peer_ur_ls[0])
        });
        new.set_flag("initial-cluster", &urls.collect::<Vec<_>>().join(","));
        new.set_flag("initial-cluster-state", "existing");
        let old = run.replaced(self.place, new);
        run.cluster.restart(self.place).await;
        if self.as_learner {
            run.cluster.promote(asked, id).await;
        }
        old
    }
}

/// Whoever was removed ends by itself, and in order; and again, if it is started again.
async fn ends(run: &Run, plan: &Replacement, mut gone: Process) {
    if plan.killed_first {
        run.cluster.net.is_process(gone.spawn(&[]), plan.place);
    }
    let status = gone.ended().await;
    assert!(status.success(), "{} was removed, and ended with {status}", gone.name);
    let log = gone.log();
    assert!(log.contains("was removed from the cluster"), "no word of why it ended: {log}");
}

async fn play(name: &'static str, rounds: u32) {
    let mut run = Run::start(name, 3, &EAGER).await;
    let mut rng = StdRng::seed_from_u64(settings::seed());
    for key in 0..BALLAST_KEYS {
        let put =
            PutRequest { key: format!("big/{key}").into(), value: vec![0; BALLAST_BYTES].into(), ..Default::default() };
        run.cluster.put(0, put).await;
    }
    for round in 0..rounds {
        let (plan, grows_first) = Replacement::plan(&run, &mut rng, round).await;
        let id = run.cluster.id(plan.place).await;
        if plan.killed_first {
            run.cluster.kill(plan.place);
        }
        let other = plan.other(&run);
        let new = run.cluster.newcomer(plan.place).await;
        let old = if grows_first {
            let old = plan.bring(&mut run, new, other).await;
            run.cluster.remove(other, other, id).await;
            old
        } else {
            run.cluster.remove(plan.asked, other, id).await;
            plan.bring(&mut run, new, other).await
        };
        ends(&run, &plan, old).await;
        run.load.goes_on(50).await;
    }
    let members = run.cluster.members(0).await;
    assert!(members.len() == 3 && members.iter().all(|member| !member.is_learner), "{members:?}");
    run.finish().await;
}

/// Each way once or nearly so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_replaced_under_load() {
    play("replacements", rounds_or(6, 24)).await;
}
