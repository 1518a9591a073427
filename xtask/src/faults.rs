//! `cargo xtask faults [NAME] [--rounds N] [--backend E] [--seed S]`: the tests of `tests/faults` and of
//! `tests/cluster_faults`, for longer than CI lets them run; `cargo xtask power-cut [--cuts N]` is the one of them that
//! needs it most. `cargo xtask failpoints` builds the failpoints in and has the process end at each of them.

use crate::{Outcome, sh};

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

fn test(name: &str, args: &[String], rounds: &str) -> Outcome {
    let features = sh::option(args, "features")?.unwrap_or_default();
    let mut test = sh::cargo(&["test", "--features", &features, "--test", "faults", "--test", "cluster_faults"]);
    test.args(["--", "--nocapture", "--test-threads=1", name]);
    for (option, variable) in [(rounds, "RUSD_FAULT_ROUNDS"), ("seed", "RUSD_FAULT_SEED")] {
        if let Some(value) = sh::option(args, option)? {
            value.parse::<u64>().map_err(|_| format!("--{option} {value}: not a number"))?;
            test.env(variable, value);
        }
    }
    if let Some(backend) = sh::option(args, "backend")? {
        test.env("RUSD_FAULT_BACKEND", backend);
    }
    Ok(sh::run(test)?)
}
