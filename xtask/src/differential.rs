//! `cargo xtask differential [--steps N] [--seed S] [--backend E]`: a random run on etcd and rusd side by side.
//!
//! The run is the test `tests/differential/main.rs`; this only hands it its size and its seed.

use crate::{Outcome, peers, sh};

pub(crate) fn run(args: &[String]) -> Outcome {
    peers::run(&[])?;
    let mut test = sh::cargo(&["test", "--test", "differential", "--", "--nocapture"]);
    test.env("RUSD_REQUIRE_PEERS", "1");
    for (option, variable) in [("steps", "RUSD_DIFFERENTIAL_STEPS"), ("seed", "RUSD_DIFFERENTIAL_SEED")] {
        if let Some(value) = sh::option(args, option)? {
            value.parse::<u64>().map_err(|_| format!("--{option} {value}: not a number"))?;
            test.env(variable, value);
        }
    }
    if let Some(backend) = sh::option(args, "backend")? {
        test.env("RUSD_DIFFERENTIAL_BACKEND", backend);
    }
    Ok(sh::run(test)?)
}
