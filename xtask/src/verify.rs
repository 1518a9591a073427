//! `cargo xtask verify`: what CI runs, in the order in which a mistake is cheapest to find.
//!
//! ```text
//! fmt ─► clippy ─► supply (licences, sources, bans) ─► peers (real etcd) ─► all tests, summed up
//! ```

use crate::{Outcome, peers, sh, supply, tally};

pub(crate) fn run(_args: &[String]) -> Outcome {
    sh::run(sh::cargo(&["fmt", "--all", "--check"]))?;
    sh::run(sh::cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))?;
    supply::run(&[])?;
    peers::run(&[])?;
    let mut tests = sh::cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
    tests.env("RUSD_REQUIRE_PEERS", "1");
    let (sum, green) = tally::run(tests)?;
    println!(
        "verify: {} tests passed, {} failed, {} ignored, {} skips reported",
        sum.passed, sum.failed, sum.ignored, sum.skipped
    );
    if green && sum.failed == 0 { Ok(()) } else { Err("tests failed".into()) }
}
