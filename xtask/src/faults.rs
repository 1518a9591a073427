//! `cargo xtask faults [NAME] [--rounds N] [--backend E] [--seed S] [--old PATH]`: the tests of `tests/faults` and of
//! `tests/cluster_faults`, for longer than `cargo xtask verify` lets them run, each with a line of figures at the end; `cargo
//! xtask power-cut [--cuts N]` is the one of them that needs it most. `cargo xtask failpoints` builds the failpoints in and has the
//! process end, or its disk get slow, at each of them.
//!
//! `--old` names an older `rusd` for the rolling upgrade, which is skipped otherwise.

use std::path;

use crate::{Outcome, sh, tally};

/// All of them, or those whose name contains NAME.
pub(crate) fn run(args: &[String]) -> Outcome {
    let name = args.first().filter(|arg| !arg.starts_with("--"));
    test(name.map_or("", String::as_str), args, "rounds")
}

/// Only power cuts.
pub(crate) fn power_cut(args: &[String]) -> Outcome {
    test("power_cut", args, "cuts")
}

/// The tests of `tests/faults` and of `tests/cluster_faults` at failpoints, which are not built in otherwise.
pub(crate) fn failpoints(args: &[String]) -> Outcome {
    let mut all = args.to_vec();
    all.extend(["--features".to_owned(), "failpoints".to_owned()]);
    test("failpoint", &all, "rounds")
}

/// A round of each of those, for `verify`.
pub(crate) fn failpoints_once() -> Outcome {
    run_tests("failpoint", &["--features".to_owned(), "failpoints".to_owned()], "rounds", false)
}

fn test(name: &str, args: &[String], rounds: &str) -> Outcome {
    run_tests(name, args, rounds, true)
}

fn run_tests(name: &str, args: &[String], rounds: &str, long: bool) -> Outcome {
    let features = sh::option(args, "features")?.unwrap_or_default();
    let mut test = sh::cargo(&["test", "--no-fail-fast", "--features", &features, "--test", "faults"]);
    test.args(["--test", "cluster_faults", "--", "--nocapture", "--test-threads=1", name]);
    if long {
        test.env("RUSD_FAULT_LONG", "1");
    }
    for (option, variable) in [(rounds, "RUSD_FAULT_ROUNDS"), ("seed", "RUSD_FAULT_SEED")] {
        if let Some(value) = sh::option(args, option)? {
            value.parse::<u64>().map_err(|_| format!("--{option} {value}: not a number"))?;
            test.env(variable, value);
        }
    }
    if let Some(backend) = sh::option(args, "backend")? {
        test.env("RUSD_FAULT_BACKEND", backend);
    }
    if let Some(old) = sh::option(args, "old")? {
        test.env("RUSD_FAULT_OLD", path::absolute(old)?);
    }
    let (sum, green) = tally::run(test)?;
    for line in &sum.told {
        println!("{line}");
    }
    for what in &sum.skipped {
        println!("SKIPPED: {what}");
    }
    println!("faults: {} passed, {} failed, {} skipped", sum.passed, sum.failed, sum.skipped.len());
    if green { Ok(()) } else { Err("tests failed".into()) }
}
