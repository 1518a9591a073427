//! `cargo xtask verify [--allow-skips]`: what CI runs, in the order in which a mistake is cheapest to find.
//!
//! ```text
//! fmt ─► clippy ─► supply (licences, sources, bans, advisories) ─► chart (helm) ─► peers (real etcd) ─► all tests, summed up
//!   ─► a few that failed, again ─► failpoints, with simulate's lints and build beside them ─► etcdctl ─► etcd-suite
//!   ─► simulate (with the planted errors)
//! ```
//!
//! A test that skips what it is there for is no success: only what [`MAY_SKIP`] names may. On a machine
//! without root or without `mkfs.ext4`, `--allow-skips` lets the rest pass.

use crate::{Outcome, again, chart, debian, etcd_suite, etcdctl, faults, peers, sh, simulate, supply, tally};

/// What product code must not do and tests may: fail at once, and go round the doors in `env`.
const FREE_IN_TESTS: [&str; 4] =
    ["clippy::unwrap_used", "clippy::disallowed_methods", "clippy::disallowed_types", "unreachable_pub"];

/// The crates in `replacements`.
const REPLACEMENTS: [&str; 3] = ["base2histogram", "cache-advisor", "pagetable"];

/// What may be skipped anywhere, by the words behind `SKIPPED`, and why.
const MAY_SKIP: [(&str, &str); 3] = [
    ("golden ", "the conversation itself says what isn't served yet, and fails once it is"),
    (
        "a_rolling_upgrade: ",
        "it needs an older rusd, and there is no release yet: `cargo xtask faults rolling --old PATH`",
    ),
    (supply::ADVISORIES, "the database lies on a host that not every machine reaches, and changes without us"),
];

/// What a kernel or a container may not offer even to root, by words of the skip: simulation has those faults, too. Mount
/// namespaces aren't among them: `tests/pods` wants them, and no simulation has pods. systemd isn't everywhere; `cargo xtask
/// package` brings its own. promtool comes from Debian alone.
const MAY_LACK: [&str; 4] =
    [": no network namespaces here", ": no time namespaces here", ": no systemd-analyze here", ": no promtool here"];

/// What tests call, and the packages that bring it: a fresh machine has no `iptables`.
const PROGRAMS: [(&str, &str); 5] = [
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("tc", "iproute2"),
    ("mkfs.ext4", "e2fsprogs"),
    ("setpriv", "util-linux"),
];

pub(crate) fn run(args: &[String]) -> Outcome {
    if let Err(why) = debian::need(&PROGRAMS) {
        println!("{why}: the tests that need it skip");
    }
    sh::run(sh::cargo(&["fmt", "--all", "--check"]))?;
    sh::run(sh::cargo(&["clippy", "--workspace", "--lib", "--bins", "--locked", "--", "-D", "warnings"]))?;
    let mut tests = vec!["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    tests.extend(FREE_IN_TESTS.iter().flat_map(|lint| ["-A", lint]));
    sh::run(sh::cargo(&tests))?;
    // What stands in for crates of others isn't of the workspace.
    let mut replaced = vec!["test", "--locked"];
    replaced.extend(REPLACEMENTS.iter().flat_map(|name| ["--package", name]));
    sh::run(sh::cargo(&replaced))?;
    let mut unchecked = supply::check()?;
    unchecked.extend(chart::check(false)?);
    peers::run(&[])?;
    let mut tests = sh::cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
    tests.env("RUSD_REQUIRE_PEERS", "1").env("RUST_TEST_THREADS", at_a_time().to_string());
    let (mut sum, green) = tally::run(tests)?;
    sum.skipped.extend(unchecked);
    let (allowed, refused): (Vec<_>, Vec<_>) = sum.skipped.iter().partition(|what| may_skip(what));
    for what in &allowed {
        println!("skipped, as allowed: {what}");
    }
    for what in &refused {
        println!("SKIPPED: {what}");
    }
    println!(
        "verify: {} tests passed, {} failed, {} ignored, {} skips allowed, {} not",
        sum.passed,
        sum.failed,
        sum.ignored,
        allowed.len(),
        refused.len()
    );
    if !green || sum.failed > 0 {
        let Some(passed) = again::run(&sum)? else { return Err("tests failed".into()) };
        for name in &passed {
            println!("passed only when run again: {name}");
        }
        println!("verify: {} of {} passed only when run again: see above", passed.len(), sum.failed);
    }
    let may_skip_all = args.iter().any(|arg| arg == "--allow-skips");
    if !refused.is_empty() && !may_skip_all {
        return Err("tests were skipped: see above, or pass --allow-skips".into());
    }
    // Failpoints mostly wait, a minute at a time.
    std::thread::scope(|scope| {
        let building = scope.spawn(simulate::lint_and_build);
        faults::failpoints_once().map_err(|error| error.to_string())?;
        building.join().map_err(|_| "the simulation's build panicked")?
    })?;
    etcdctl::run(&[])?;
    if !etcd_suite::short()?.is_empty() && !may_skip_all {
        return Err("etcd's own suite was skipped: see above, or pass --allow-skips".into());
    }
    simulate::short()
}

/// Tests at a time: most wait for servers more than they work, so one more than there are processors.
fn at_a_time() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get) + 1
}

fn may_skip(what: &str) -> bool {
    MAY_SKIP.iter().any(|(start, _)| what.starts_with(start)) || MAY_LACK.iter().any(|words| what.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_replacement_is_tested() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../replacements");
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, REPLACEMENTS);
    }

    #[test]
    fn only_what_is_listed_may_be_skipped() {
        assert!(may_skip("advisories: no such host"));
        assert!(may_skip("a_rolling_upgrade: RUSD_FAULT_OLD names no older rusd"));
        assert!(may_skip("golden membership.txt:3 on Rusd: not served yet"));
        assert!(may_skip("five_are_split: no network namespaces here: Operation not permitted"));
        assert!(may_skip("alerts: no promtool here: `apt-get` does not start: No such file or directory"));
        assert!(!may_skip("pods: no mount namespaces here: Operation not permitted"));
        assert!(!may_skip("golden: `etcd` is not built"));
        assert!(!may_skip("a_power_cut: it needs root to mount a file system"));
    }
}
