//! `cargo xtask simulate`: clusters on simulated machines, one seed in one process, two processes at a time.
//!
//! ```text
//! build (its own flags and target directory) ─► seeds of sim/seeds.txt ─► one failed? ─► it is run again: the same?
//!                                            └► more until the time is over                └► it is kept in the file
//! ```
//! `simulate --minutes` draws seeds that nobody has run; `verify` runs 1, 2, 3, …, so that it never fails by chance.
//! ```text
//! --planted: each of the errors that can be planted must be found within two minutes, by what is expected of it;
//!            openraft's own assertions, which a release doesn't have either, are left out of this build. `verify` makes
//!            one build for all, with them, as another takes minutes: a run that they end counts for nothing there
//! ```

use std::collections::VecDeque;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::{Outcome, sh};

/// Processes at a time.
const AT_A_TIME: usize = 2;
/// Seeds that `verify` runs: about two minutes on two cores.
const SHORT_SEEDS: u64 = 40;
/// Seeds among which `verify` looks for each planted error.
const PLANTED_SEEDS: u64 = 60;
/// Without which a run can't be repeated.
const FLAGS: &str = "--cfg tokio_unstable --cfg rusd_sim";
/// Each must be found within [`PLANTED_MAX`], with one of these words in what the run finds wrong first; and what the
/// simulation is asked beside it: half of the runs change the members, and then no vote is trapped and nobody stands alone.
const BUGS: [(&str, &[&str], &[&str]); 7] = [
    (
        "ack-before-fsync",
        &["an acknowledged write is lost", "members differ", "went back", "the log is lost", "] and is now ["],
        &[],
    ),
    ("vote-before-fsync", &["both lead in term"], &["--changes", "0"]),
    ("apply-twice", &["was written twice"], &[]),
    ("stale-read", &["stale: "], &["--leader", "still"]),
    ("dropped-event", &["a gap: revision"], &[]),
    ("lease-early", &["µs early"], &[]),
    ("deaf-leader", &["alone: nobody else came to lead: a deaf leader"], &["--leader", "deaf"]),
];
const PLANTED_MAX: Duration = Duration::from_secs(120);
const BUILD: [&str; 6] = ["build", "--package", "rusd-sim", "--profile", "sim", "--locked"];
/// For planted errors: what an assertion of openraft's sees, our own oracles must see where there is none.
const PLANTED_BUILD: [&str; 2] = ["--config", "profile.sim.package.openraft.debug-assertions=false"];
/// How the simulation begins the line that tells of a panic.
const PANIC: &str = "PANIC";

/// What is asked.
struct Asked {
    minutes: f64,
    seed: Option<u64>,
    members: Option<u64>,
    planted: bool,
    /// So many seeds from 1 on, once those that are known have been run; `None`: new ones, for as long as asked.
    first: Option<u64>,
}

/// One run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seed {
    seed: u64,
    members: u64,
}

/// How a run ended.
struct Ran {
    seed: Seed,
    good: bool,
    /// All that it printed; its last line has the trace's checksum.
    text: String,
}

impl Ran {
    fn last(&self) -> &str {
        self.text.lines().last().unwrap_or("it printed nothing")
    }

    /// What two runs of one seed must have in common: the trace, or the panic that ended the process before it.
    fn mark(&self) -> Option<&str> {
        let panic = || self.text.lines().find(|line| line.contains(PANIC));
        self.word("trace").or_else(panic)
    }

    /// What it found wrong first.
    fn fault(&self) -> Option<&str> {
        self.text.lines().find(|line| line.starts_with("FAULT"))
    }

    /// Whether it found a planted error: by one of these words, and not by something else that went wrong.
    fn finds(&self, words: &[&str]) -> bool {
        !self.good && self.fault().is_some_and(|fault| words.iter().any(|word| fault.contains(word)))
    }

    /// Between the words: `trace CRC`, `simulated SECONDS`.
    fn word(&self, name: &str) -> Option<&str> {
        let mut words = self.last().split(' ');
        words.find(|word| *word == name)?;
        words.next()
    }
}

/// `simulate`.
pub(crate) fn run(args: &[String]) -> Outcome {
    let number = |name: &str| -> Result<Option<u64>, String> {
        let value = sh::option(args, name)?;
        value.map(|value| value.parse().map_err(|_| format!("--{name} {value}: not a number"))).transpose()
    };
    let minutes = sh::option(args, "minutes")?.unwrap_or_else(|| "1".to_owned());
    let minutes: f64 = minutes.parse().map_err(|_| format!("--minutes {minutes}: not a number"))?;
    let planted = args.iter().any(|arg| arg == "--planted");
    simulate(&Asked { minutes, seed: number("seed")?, members: number("members")?, planted, first: None })
}

/// Its lints and its program, for `verify`: behind all else that runs.
pub(crate) fn lint_and_build() -> Result<(), String> {
    let polite = |cargo: Command| {
        let mut nice = Command::new("nice");
        nice.args(["-n", "19"]).arg(cargo.get_program()).args(cargo.get_args()).current_dir(sh::root());
        for (name, value) in cargo.get_envs() {
            match value {
                Some(value) => nice.env(name, value),
                None => nice.env_remove(name),
            };
        }
        nice
    };
    sh::run(polite(cargo(&[
        "clippy",
        "--package",
        "rusd-sim",
        "--profile",
        "sim",
        "--locked",
        "--",
        "-D",
        "warnings",
    ])))?;
    sh::run(polite(cargo(&BUILD)))
}

/// A few minutes of it, for `verify`: the same seeds on every machine, however fast it is, and each planted error.
pub(crate) fn short() -> Outcome {
    let short = Asked { minutes: 0.0, seed: None, members: None, planted: false, first: Some(SHORT_SEEDS) };
    simulate(&short)?;
    simulate(&Asked { planted: true, first: Some(PLANTED_SEEDS), ..short })
}

fn simulate(asked: &Asked) -> Outcome {
    let is_by_hand = asked.first.is_none();
    let binary = build(if asked.planted && is_by_hand { &PLANTED_BUILD } else { &[] })?;
    if asked.planted {
        return planted(&binary, asked);
    }
    let until = Instant::now() + Duration::from_secs_f64(asked.minutes.max(0.0) * 60.0);
    let mut queue: VecDeque<Seed> = kept()?.into();
    if let Some(seed) = asked.seed {
        queue.clear();
        let members = asked.members.map_or(vec![3, 5], |members| vec![members]);
        queue.extend(members.into_iter().map(|members| Seed { seed, members }));
    }
    let drawn = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs() % 1_000_000 * 1_000;
    queue.extend((1..=asked.first.unwrap_or(0)).map(|seed| Seed { seed, members: members_of(seed) }));
    let fresh = (asked.seed.is_none() && asked.first.is_none()).then_some((drawn, asked.members));
    let ran = run_all(&binary, &Mutex::new((queue, fresh)), until, &[], |ran| !ran.good);
    let seconds: f64 = ran.iter().filter_map(|ran| ran.word("simulated")?.parse::<f64>().ok()).sum();
    let failed: Vec<&Ran> = ran.iter().filter(|ran| !ran.good).collect();
    println!("simulate: {} seeds, {seconds:.0} simulated seconds, {} failed", ran.len(), failed.len());
    for ran in &failed {
        let again = run_one(&binary, ran.seed, &[]);
        let same = again.mark().is_some() && again.mark() == ran.mark();
        println!("{}\nseed {} members {}", ran.text, ran.seed.seed, ran.seed.members);
        println!("{}", if same { "again: the same trace" } else { "again: ANOTHER TRACE" });
        if !kept()?.contains(&ran.seed) {
            keep(ran.seed)?;
        }
    }
    if failed.is_empty() { Ok(()) } else { Err("a promise was broken: the seeds are in sim/seeds.txt".into()) }
}

/// Each planted error is looked for with one seed after the other.
fn planted(binary: &Path, asked: &Asked) -> Outcome {
    let mut missed = Vec::new();
    for (bug, words, more) in BUGS {
        let begun = Instant::now();
        let members = asked.members.unwrap_or(3);
        let first = asked.seed.unwrap_or(1);
        let queue: Queue = match asked.first {
            Some(count) => ((first..first + count).map(|seed| Seed { seed, members }).collect(), None),
            None => (VecDeque::new(), Some((first, Some(members)))),
        };
        let finds = |ran: &Ran| ran.finds(words);
        let ran = run_all(binary, &Mutex::new(queue), begun + PLANTED_MAX, &[&["--plant", bug], more].concat(), finds);
        for other in ran.iter().filter(|ran| !ran.good && !finds(ran)) {
            println!(
                "planted {bug}: seed {} fails by something else: {}",
                other.seed.seed,
                other.fault().unwrap_or("?")
            );
        }
        match ran.iter().find(|ran| finds(ran)) {
            Some(found) => println!(
                "planted {bug}: found after {:.0} s, {} seeds, by seed {}: {}",
                begun.elapsed().as_secs_f64(),
                ran.len(),
                found.seed.seed,
                found.fault().unwrap_or("?"),
            ),
            None => missed.push(bug),
        }
    }
    println!("simulate: {} planted errors, {} not found", BUGS.len(), missed.len());
    if missed.is_empty() { Ok(()) } else { Err(format!("planted, and not found: {missed:?}").into()) }
}

/// Seeds that wait, and where the new ones begin, with their members (`None`: three and five by turns).
type Queue = (VecDeque<Seed>, Option<(u64, Option<u64>)>);

fn take(queue: &Mutex<Queue>, until: Instant) -> Option<Seed> {
    let mut queue = queue.lock().ok()?;
    let (waiting, fresh) = &mut *queue;
    if let Some(seed) = waiting.pop_front() {
        return Some(seed);
    }
    let (next, members) = fresh.as_mut().filter(|_| Instant::now() < until)?;
    *next += 1;
    let members = members.unwrap_or(members_of(*next));
    Some(Seed { seed: *next, members })
}

fn members_of(seed: u64) -> u64 {
    if seed.is_multiple_of(3) { 5 } else { 3 }
}

/// Runs seeds until none is left or `is_last` says so of one.
fn run_all(
    binary: &Path,
    queue: &Mutex<Queue>,
    until: Instant,
    more: &[&str],
    is_last: impl Fn(&Ran) -> bool + Sync,
) -> Vec<Ran> {
    let all = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                while let Some(seed) = take(queue, until) {
                    let ran = run_one(binary, seed, more);
                    println!("{}", ran.last());
                    let is_last = is_last(&ran);
                    if let Ok(mut all) = all.lock() {
                        all.push(ran);
                    }
                    if let (true, Ok(mut queue)) = (is_last, queue.lock()) {
                        *queue = (VecDeque::new(), None);
                    }
                }
            });
        }
    });
    all.into_inner().unwrap_or_default()
}

fn run_one(binary: &Path, seed: Seed, more: &[&str]) -> Ran {
    let mut command = Command::new(binary);
    command.args(["--seed", &seed.seed.to_string(), "--members", &seed.members.to_string()]).args(more);
    match command.output() {
        Ok(output) => {
            let mut text = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
            if !output.status.success() {
                let errors = String::from_utf8_lossy(&output.stderr);
                text = format!("{errors}\n{text}");
            }
            Ran { seed, good: output.status.success(), text }
        }
        Err(error) => Ran { seed, good: false, text: format!("it does not start: {error}") },
    }
}

fn build(more: &[&str]) -> Result<PathBuf, String> {
    sh::run(cargo(&[&BUILD[..], more].concat()))?;
    Ok(target().join("sim").join("rusd-sim"))
}

fn target() -> PathBuf {
    sh::target().join("sim")
}

/// Cargo with the simulation's own flags and target directory.
fn cargo(args: &[&str]) -> Command {
    let mut cargo = sh::cargo(args);
    cargo.env("RUSTFLAGS", FLAGS).env("CARGO_TARGET_DIR", target());
    cargo
}

fn file() -> PathBuf {
    sh::root().join("sim").join("seeds.txt")
}

/// The seeds that have failed once: a line each, seed and members, the rest of a line is for people.
fn kept() -> Result<Vec<Seed>, Box<dyn std::error::Error>> {
    parse(&std::fs::read_to_string(file())?).map_err(Into::into)
}

fn parse(text: &str) -> Result<Vec<Seed>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let seed = |line: &str| {
        let mut words = line.split_whitespace().map(str::parse);
        match (words.next(), words.next()) {
            (Some(Ok(seed)), Some(Ok(members))) => Ok(Seed { seed, members }),
            _ => Err(format!("sim/seeds.txt: a line is SEED MEMBERS and words: {line}")),
        }
    };
    lines.map(seed).collect()
}

fn keep(seed: Seed) -> Outcome {
    let mut file = std::fs::OpenOptions::new().append(true).open(file())?;
    Ok(writeln!(file, "{} {} new", seed.seed, seed.members)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read_and_the_rest_refused() {
        let seed = |seed, members| Seed { seed, members };
        assert_eq!(parse("# all\n\n7 3 lost a write\n9 5\n"), Ok(vec![seed(7, 3), seed(9, 5)]));
        assert!(parse("7\n").is_err());
        assert!(parse("x 3\n").is_err());
    }

    #[test]
    fn the_checksum_is_found_in_the_last_line() {
        let text = "FAULT x\nseed 1 members 3 trace 00ff00ff lines 9 simulated 40.0 s".to_owned();
        let ran = Ran { seed: Seed { seed: 1, members: 3 }, good: false, text };
        assert_eq!((ran.word("trace"), ran.word("simulated")), (Some("00ff00ff"), Some("40.0")));
        assert_eq!(ran.mark(), Some("00ff00ff"));
    }

    /// Cause: a run with a planted error fails by a panic of a library, or by anything but what the error does.
    /// Symptom: the error counts as found, though no oracle has seen it.
    #[test]
    fn a_planted_error_is_found_by_its_own_words_only() {
        let ran = |good, text: &str| Ran { seed: Seed { seed: 1, members: 3 }, good, text: text.to_owned() };
        let words = BUGS.iter().find(|(bug, ..)| *bug == "vote-before-fsync").expect("it is there").1;
        assert!(ran(false, "0.1 x\nFAULT members 2 and 1 both lead in term 7\nlast").finds(words));
        assert!(!ran(false, "FAULT a task panicked\nFAULT members 2 and 1 both lead in term 7").finds(words));
        assert!(!ran(false, "PANIC at x: both lead in term 7").finds(words));
        assert!(!ran(true, "FAULT members 2 and 1 both lead in term 7").finds(words));
    }

    #[test]
    fn a_run_that_ended_by_a_panic_is_known_by_its_words() {
        let ran = |text: &str| Ran { seed: Seed { seed: 1, members: 3 }, good: false, text: text.to_owned() };
        assert_eq!(ran("0.1 x\nPANIC seed 1 at a.rs:1: no\nmore").mark(), Some("PANIC seed 1 at a.rs:1: no"));
        assert_eq!(ran("killed").mark(), None);
    }
}
