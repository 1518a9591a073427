//! `cargo xtask etcdctl [--rusd PATH] [--backend E] [--perf]`: one session of etcd's own tools on etcd and on rusd.
//!
//! ```text
//! session (what is typed) ─► side: a server, etcdctl ─► normal (what differs by nature) ─► compared line by line
//! cluster (what is typed at three members) ─► the same
//! snapshot save ─► etcdutl status, restore ─► a real etcd on it ─► the same keys?
//! ```
//!
//! `--perf` adds `etcdctl check perf`, a minute on each side: rusd has to pass, whatever etcd does.

mod cluster;
mod normal;
mod session;
mod side;

use crate::{Outcome, peers, sh};
use side::Side;

pub(crate) fn run(args: &[String]) -> Outcome {
    peers::run(&[])?;
    let rusd = sh::rusd(args)?;
    let backend = sh::option(args, "backend")?.unwrap_or_else(|| "sled".to_owned());
    let etcd = peers::directory().join("etcd");
    let sides = [Side::start("etcd", &etcd, &[])?, Side::start("rusd", &rusd, &[format!("--backend={backend}")])?];
    let mut faults = 0;
    for step in session::STEPS {
        let [etcd, rusd] = [0, 1].map(|side| session::play(&sides[side], step));
        let (etcd, rusd) = (etcd?, rusd?);
        if etcd == rusd {
            println!("  same      {}", step.line);
        } else {
            faults += 1;
            println!("  DIFFERENT {}\n--- etcd\n{etcd}\n--- rusd\n{rusd}\n---", step.line);
        }
    }
    faults += cluster::compare(&etcd, &rusd, &backend)?;
    for side in &sides {
        session::snapshot(side).map_err(|error| format!("{}: {error}", side.name))?;
        println!("  restored  the snapshot of {}, and etcd serves the same keys from it", side.name);
    }
    if args.iter().any(|arg| arg == "--perf") {
        for side in &sides {
            let answer = side.ctl("check perf --load=s", "")?;
            println!("{}:\n{}", side.name, answer.text());
            // The real one's says how fast this machine is.
            if !answer.ok && side.name == "rusd" {
                faults += 1;
            }
        }
    }
    if faults == 0 { Ok(()) } else { Err(format!("{faults} answers aren't what they should be").into()) }
}
