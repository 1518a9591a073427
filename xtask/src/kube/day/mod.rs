//! `cargo xtask kube day`: a day of a control plane in a few minutes, on etcd and on rusd, one after the other.
//!
//! ```text
//! for each round: etcd, rusd (the next round: rusd, etcd) ─► plane (three members under TLS) ─► phases ─► figures ─► table, docs/benchmarks/kubernetes.md
//! ```
//! Of `--rounds N` each figure is the median. The table is made anew after each round: one that is stopped has left
//! those before it. A whole run is written down; one of other sizes only with `--record`, one of one side is printed only.

mod histogram;
mod load;
mod phases;
mod reads;
mod table;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::plane::{Plane, Settings};
use super::store::{MEMBERS, Program};
use crate::{Outcome, peers, sh};
use phases::Figures;

/// Requests a second of controllers and scheduler: they aren't what is measured.
const RATE: u32 = 500;
/// A fraction of what it is in a real day, as everything else.
const COMPACTION: &str = "1m";

/// How much of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    nodes: usize,
    pods: usize,
    maps: usize,
    /// How long those phases take that have no end of their own.
    span: Duration,
}

const WHOLE: Sizes = Sizes { nodes: 1000, pods: 3000, maps: 1000, span: Duration::from_secs(40) };

pub(super) fn run(args: &[String], programs: &Path, rusd: Program) -> Outcome {
    peers::run(&[])?;
    let number = |name: &str, default: usize| sh::option(args, name)?.map_or(Ok(default), |text| parse(name, &text));
    let sizes = Sizes {
        nodes: number("nodes", WHOLE.nodes)?,
        pods: number("pods", WHOLE.pods)?,
        maps: number("maps", WHOLE.maps)?.max(1),
        span: Duration::from_secs(number("seconds", 40)? as u64),
    };
    let rounds = number("rounds", 1)?;
    let version = |path: &Path| -> Result<String, String> {
        let said = sh::output(sh::program(path.to_str().unwrap_or_default(), &sh::root(), &["--version"]))?;
        let said = String::from_utf8_lossy(&said).into_owned();
        // rusd says etcd's version first, as tools want it.
        let line = said.lines().find(|line| line.contains("rusd")).or(said.lines().next()).unwrap_or_default();
        Ok(line.rsplit(", ").next().unwrap_or_default().to_owned())
    };
    let etcd = Program { side: "etcd", path: peers::directory().join("etcd"), flags: Vec::new() };
    let mut sides = vec![etcd, rusd];
    if let Some(only) = sh::option(args, "side")? {
        sides.retain(|side| side.side == only);
        if sides.is_empty() {
            return Err(format!("--side={only}: it is etcd or rusd").into());
        }
    }
    let mut versions = Vec::new();
    for side in &sides {
        versions
            .push(format!("{}: {} {}", side.side, version(&side.path)?, side.flags.join(" ")).trim_end().to_owned());
    }
    let mut told: Vec<(&'static str, Vec<Figures>)> = sides.iter().map(|side| (side.side, Vec::new())).collect();
    let begun = Instant::now();
    let is_kept = sides.len() == 2 && (sizes == WHOLE || args.iter().any(|arg| arg == "--record"));
    let commit = sh::output(sh::program("git", &sh::root(), &["describe", "--always", "--dirty"]))?;
    let commit = String::from_utf8(commit)?;
    for round in 1..=rounds {
        let mut both: Vec<_> = sides.iter().zip(&mut told).collect();
        // What the machine does meanwhile isn't always one side's.
        if round % 2 == 0 {
            both.reverse();
        }
        for (side, (_, days)) in both {
            days.push(one(programs, side, &sizes)?);
        }
        let table = table::table(&told);
        print!("{table}");
        println!("kube day: {round} of {rounds} of each in {:.0} s", begun.elapsed().as_secs_f64());
        if is_kept {
            let page = table::page(&table, &sizes, &versions, commit.trim(), round, MEMBERS)?;
            fs::write(sh::root().join("docs/benchmarks/kubernetes.md"), page)?;
        }
    }
    Ok(())
}

fn parse(name: &str, text: &str) -> Result<usize, String> {
    text.parse().map_err(|error| format!("--{name}={text}: {error}"))
}

/// One day on one side.
fn one(programs: &Path, side: &Program, sizes: &Sizes) -> Result<Figures, Box<dyn std::error::Error>> {
    let begun = Instant::now();
    let settings = Settings { store: side.clone(), rate: RATE, compaction: COMPACTION };
    let run = sh::target().join("kube").join(format!("day-{}", side.side));
    let mut plane = Plane::start(programs, &run, &settings)?;
    let told = phases::tell(&mut plane, sizes, begun.elapsed());
    if told.is_err() {
        plane.show_logs();
    }
    let figures = told?;
    plane.remove()?;
    Ok(figures)
}
