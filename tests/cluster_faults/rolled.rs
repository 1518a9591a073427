//! Members are ended and started one after the other, by the same program and by a newer one, while clients go on.
//!
//! The older program is the one that `RUSD_FAULT_OLD` names: `cargo xtask faults rolling --old PATH`.

use std::io::Write as _;
use std::path::PathBuf;

use crate::cluster::{CALM, Cluster, Setup};
use crate::run::Run;
use crate::settings::rounds_or;

const OLD: &str = "RUSD_FAULT_OLD";

/// Ends one in order, has the others go on, and starts it again, as what it is now to be.
async fn roll(run: &mut Run, member: usize) {
    let led = run.cluster.leader().await == member;
    let said = handed_over(&run.cluster, member);
    let term = run.cluster.status_of(run.cluster.leader().await).await.raft_term;
    run.cluster.terminate(member).await;
    if led {
        assert_eq!(handed_over(&run.cluster, member), said + 1, "it was ended in order, and leads");
        let next = run.cluster.leader_but(Some(member)).await;
        assert_eq!(run.cluster.status_of(next).await.raft_term, term + 1, "elected by a time-out");
    }
    run.load.goes_on(50).await;
    run.cluster.restart(member).await;
    run.load.goes_on(50).await;
}

fn handed_over(cluster: &Cluster, member: usize) -> usize {
    cluster.log(member).matches("handed the lead over").count()
}

/// A rolling restart by SIGTERM, one after the other: the leader hands over before it goes, so that there is no election by
/// time-out and hardly a moment without writes, and nothing is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart() {
    let mut run = Run::start("rolling restart", 3, &CALM).await;
    for _ in 0..rounds_or(1, 10) {
        for member in 0..3 {
            roll(&mut run, member).await;
        }
        // The leader last, whoever it is: every round has one that hands over.
        let leader = run.cluster.leader().await;
        roll(&mut run, leader).await;
    }
    run.finish().await;
}

/// Each member of a cluster of an older rusd is ended and comes back as this one, on its own data: followers first, the
/// leader, which is an old one to the last, at the end; in the second round the other way round. In between old and new
/// ones serve together, and each of them leads once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_upgrade() {
    let Some(old) = std::env::var_os(OLD).map(PathBuf::from) else {
        // Written past the test runner's capture, which would hide it in a passing test.
        writeln!(std::io::stdout(), "SKIPPED a_rolling_upgrade: {OLD} names no older rusd").ok();
        return;
    };
    assert!(old.is_file(), "{} is not there", old.display());
    let new = PathBuf::from(env!("CARGO_BIN_EXE_rusd"));
    for leader_first in [false, true] {
        let setup = Setup { program: old.clone(), ..Setup::rusd(3, &CALM) };
        let mut run = Run::of("rolling upgrade", setup).await;
        let leader = run.cluster.leader().await;
        let followers = [(leader + 1) % 3, (leader + 2) % 3];
        let order =
            if leader_first { [leader, followers[0], followers[1]] } else { [followers[0], followers[1], leader] };
        for member in order {
            run.cluster.process(member).program = new.clone();
            roll(&mut run, member).await;
            // The new one among old ones leads as well, and then an old one again.
            run.cluster.let_lead(member).await;
            run.load.goes_on(50).await;
            let next = (member + 1) % 3;
            run.cluster.let_lead(next).await;
            run.load.goes_on(50).await;
        }
        run.finish().await;
    }
}
