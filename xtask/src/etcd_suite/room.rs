//! Where the suite runs: its ports are fixed, and what it starts must not outlive it.
//!
//! A network namespace gives it all ports; a process namespace ends its servers with it. Both need
//! root or user namespaces; where neither is to be had it runs in the open, on ports 20000 and up.

use std::path::Path;
use std::process::{Command, Stdio};

/// What is tried, first come first served.
const WAYS: [&[&str]; 2] = [
    &["--net", "--pid", "--fork", "--kill-child"],
    &["--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child"],
];

/// Brings up loopback, then becomes the program.
const SETUP: &str = "ip link set lo up && exec \"$@\"";

/// `program` in such a room; arguments go to it.
pub(super) fn command(program: &Path) -> Command {
    let room = |way: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(way).args(["sh", "-c", SETUP, "sh"]);
        command
    };
    let works = |way: &&&[&str]| {
        let quiet = || Stdio::null();
        room(way).arg("true").stdin(quiet()).stdout(quiet()).stderr(quiet()).status().is_ok_and(|s| s.success())
    };
    match WAYS.iter().find(works) {
        Some(way) => {
            let mut command = room(way);
            command.arg(program);
            command
        }
        None => {
            eprintln!("etcd-suite: no namespaces here, so ports 20000 to 20020 must be free");
            Command::new(program)
        }
    }
}
