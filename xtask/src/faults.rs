//! `cargo xtask faults [NAME] [--rounds N] [--backend E] [--seed S]`: the tests of `tests/faults` and of
//! `tests/cluster_faults`, for longer than CI lets them run; `cargo xtask power-cut [--cuts N]` is the one of them that needs it most.

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

fn test(name: &str, args: &[String], rounds: &str) -> Outcome {
    let mut test = sh::cargo(&[
        "test",
        "--test",
        "faults",
        "--test",
        "cluster_faults",
        "--",
        "--nocapture",
        "--test-threads=1",
        name,
    ]);
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
