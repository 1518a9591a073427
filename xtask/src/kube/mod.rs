//! `cargo xtask kube`: a real control plane on three members of rusd under TLS; `kube day`: a day of it, beside etcd.
//!
//! ```text
//! build (Go modules, cached) ─► plane (store: three members; apiserver, controller manager, scheduler, kwok)
//!   ├► story (steps, each checked; chart: helm, with pulse while the leader is killed; moved: to etcd and back)
//!   └► day (nodes, pods, churn, lists, restarts on etcd, then on rusd) ─► table, docs/benchmarks/kubernetes.md
//! ```
//!
//! The binaries take about seven minutes when nothing is cached; the story about three. `--rusd PATH`
//! takes another server binary than this tree's release build.

mod api;
mod build;
mod chart;
mod day;
mod moved;
mod plane;
mod pulse;
mod store;
mod story;
mod usage;

use std::path::PathBuf;
use std::time::Instant;

use crate::{Outcome, peers, sh};
use plane::{Plane, Settings};
use store::Program;

/// Requests a second of controllers and scheduler, where nothing is measured.
const RATE: u32 = 100;

/// Builds what is missing, starts the control plane, tells the story, ends what it started.
pub(crate) fn run(args: &[String]) -> Outcome {
    let programs = build::programs()?;
    let path: PathBuf = match sh::option(args, "rusd")? {
        Some(path) => path.into(),
        None => build::rusd()?,
    };
    if args.iter().any(|arg| arg == "--build-only") {
        return Ok(());
    }
    let backend = sh::option(args, "backend")?.unwrap_or_else(|| "sled".to_owned());
    let rusd = Program { side: "rusd", path, flags: vec![format!("--backend={backend}")] };
    match word(args) {
        None | Some("story") => {
            // The story moves to etcd and back.
            peers::run(&[])?;
            tell(&programs, rusd)
        }
        Some("day") => day::run(args, &programs, rusd),
        Some(other) => Err(format!("{other:?}: it is `story` or `day`").into()),
    }
}

/// The word among the arguments: neither an option nor an option's value.
fn word(args: &[String]) -> Option<&str> {
    let stands_alone = |arg: &String| arg.contains('=') || arg == "--build-only" || arg == "--record";
    let takes_next = |arg: &String| arg.starts_with("--") && !stands_alone(arg);
    let is_value = |at: usize| at.checked_sub(1).is_some_and(|before| takes_next(&args[before]));
    let is_word = |at: &usize| !args[*at].starts_with("--") && !is_value(*at);
    (0..args.len()).find(is_word).map(|at| args[at].as_str())
}

fn tell(programs: &std::path::Path, store: Program) -> Outcome {
    let begun = Instant::now();
    let flags = store.flags.join(" ");
    let settings = Settings { store, rate: RATE, compaction: "1m" };
    let mut plane = Plane::start(programs, &sh::target().join("kube/run"), &settings)?;
    let told = story::tell(&mut plane);
    if told.is_err() {
        plane.show_logs();
    }
    let steps = told?;
    plane.remove()?;
    println!("kube: {steps} steps on three members of rusd, {flags}, in {:.1} s", begun.elapsed().as_secs_f64());
    println!("{steps} passed, 0 failed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_may_stand_anywhere_but_behind_an_option() {
        let word_of = |line: &str| {
            let args: Vec<_> = line.split(' ').map(str::to_owned).collect();
            word(&args).map(str::to_owned)
        };
        assert_eq!(word_of("day --nodes 5").as_deref(), Some("day"));
        assert_eq!(word_of("--rusd day --build-only story").as_deref(), Some("story"));
        assert_eq!(word_of("--rusd=x day").as_deref(), Some("day"));
        assert_eq!(word_of("--backend redb"), None);
    }
}
