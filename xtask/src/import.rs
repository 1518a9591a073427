//! `cargo xtask import [NAME] [--gigabytes N] [--rusd PATH]`: the moves of `tests/import` that are too large for
//! `cargo xtask verify`, each with a line of figures: a million keys from etcd to rusd and back, a live move of as many,
//! and a file of N gigabytes (1), of which the disk needs room for three.

use std::path;

use crate::{Outcome, peers, sh, tally};

/// All of them, or those whose name contains NAME.
pub(crate) fn run(args: &[String]) -> Outcome {
    peers::run(&[])?;
    let name = args.first().filter(|arg| !arg.starts_with("--"));
    let mut test = sh::cargo(&["test", "--test", "import", "--", "--nocapture", "--test-threads=1", "--ignored"]);
    test.args(name);
    if let Some(gigabytes) = sh::option(args, "gigabytes")? {
        gigabytes.parse::<f64>().map_err(|_| format!("--gigabytes {gigabytes}: not a number"))?;
        test.env("RUSD_IMPORT_GIGABYTES", gigabytes);
    }
    if let Some(program) = sh::option(args, "rusd")? {
        test.env("RUSD_IMPORT_PROGRAM", path::absolute(program)?);
    }
    test.env("RUSD_REQUIRE_PEERS", "1");
    let (sum, green) = tally::run(test)?;
    for line in &sum.told {
        println!("{line}");
    }
    println!("import: {} passed, {} failed", sum.passed, sum.failed);
    if green && sum.failed == 0 { Ok(()) } else { Err("tests failed".into()) }
}
