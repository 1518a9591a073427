//! `cargo xtask golden [--record] [NAME]`: the conversations of `tests/golden/*.txt`, on etcd and on rusd.
//!
//! The player is the test `tests/golden/main.rs`; `--record` has it write down what etcd answers.

use crate::{Outcome, peers, sh};

pub(crate) fn run(args: &[String]) -> Outcome {
    peers::run(&[])?;
    let mut test = sh::cargo(&["test", "--test", "golden", "--", "--nocapture"]);
    test.env("RUSD_REQUIRE_PEERS", "1");
    for arg in args {
        if arg == "--record" {
            test.env("RUSD_GOLDEN", "record");
        } else {
            test.arg(arg);
        }
    }
    Ok(sh::run(test)?)
}
