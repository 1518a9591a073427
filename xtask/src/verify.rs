//! `cargo xtask verify`: what CI runs, in the order in which a mistake is cheapest to find.
//!
//! ```text
//! fmt ─► clippy ─► supply (licences, sources, bans) ─► peers (real etcd) ─► all tests, summed up
//! ```

use crate::{Outcome, peers, sh, supply, tally};

/// What product code must not do and tests may: fail at once, and go round the doors in `env`.
const FREE_IN_TESTS: [&str; 4] =
    ["clippy::unwrap_used", "clippy::disallowed_methods", "clippy::disallowed_types", "unreachable_pub"];

pub(crate) fn run(_args: &[String]) -> Outcome {
    sh::run(sh::cargo(&["fmt", "--all", "--check"]))?;
    sh::run(sh::cargo(&["clippy", "--workspace", "--lib", "--bins", "--locked", "--", "-D", "warnings"]))?;
    let mut tests = vec!["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    tests.extend(FREE_IN_TESTS.iter().flat_map(|lint| ["-A", lint]));
    sh::run(sh::cargo(&tests))?;
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
