//! `cargo xtask pods [--rusd PATH] [--old PATH]`: the chart's pods for real, as far as a machine without Kubernetes can.
//!
//! ```text
//! helm template ─► release: set, size, jobs ─► cluster (StatefulSet's controller) ─► pod (kubelet) ─► container
//!                                                 │                                     └ network: a namespace each
//!                                                 ├ names: the cluster's DNS            └ volumes, secrets, user, no rights
//!                                                 └ service: to who is ready ◄─ writers, all the while
//! story: install, grow, shrink, roll, go back, lose nodes and volumes, back up, restore
//! ```
//! What pods run is what the rendering has: arguments, variables, probes, mounts, user. A field that isn't enacted is an
//! error (`spec`). Placement, sizes and policies are tried by `cargo xtask kube`. It takes about six minutes, and root.

mod cluster;
mod container;
mod names;
mod network;
mod pod;
mod release;
mod service;
mod spec;
mod story;
mod writer;

use std::fs;
use std::time::Instant;

use crate::{Outcome, sh};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const NAMESPACE: &str = "space";
const RELEASE: &str = "release";
const DOMAIN: &str = "cluster.local";

pub(crate) fn run(args: &[String]) -> Outcome {
    let new = std::path::absolute(sh::rusd(args)?)?;
    let old = sh::option(args, "old")?.map_or(Ok(new.clone()), std::path::absolute)?;
    if let Err(reason) = network::Network::new() {
        println!("SKIPPED pods: no network namespaces here: {reason}");
        let skips = "nothing was tried (--allow-skips takes that for an answer)";
        return if sh::allows_skips(args) { Ok(()) } else { Err(skips.into()) };
    }
    let run = sh::target().join("pods");
    let _lock = sh::alone(&run)?;
    if run.exists() {
        fs::remove_dir_all(&run)?;
    }
    fs::create_dir_all(&run)?;
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let told = runtime.block_on(async { story::Story::begin(&run, old, new).await?.tell().await });
    let steps = told.map_err(|error| format!("{error}; the logs are in {}", run.display()))?;
    fs::remove_dir_all(&run)?;
    println!("pods: {steps} steps in {:.0} s", begun.elapsed().as_secs_f64());
    println!("{steps} passed, 0 failed");
    Ok(())
}
