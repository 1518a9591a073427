//! `rusd-bench`: rusd and etcd side by side on one machine. `cargo xtask bench` builds and starts it.
//!
//! ```text
//! main ─► for each group: for each round, side: Server (core 0) ◄─ load, rows (core 1, h2) ─► report (kept, page)
//! ```
//!
//! Two measures stand side by side: CPU of the server for one request, from the kernel, and
//! throughput with latency. Every figure is read as a ratio to etcd in the same run.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a program that measures the real machine: clocks and files are what it is about"
)]

mod h2;
mod histogram;
mod load;
mod machine;
mod proto;
mod report;
mod rows;
mod server;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use rows::{Bench, GROUPS};
use server::Side;

const USAGE: &str = "usage: rusd-bench --etcd PATH --rusd PATH [--scratch DIR] [--out DIR] [--commit ID]
                  [--quick] [--rounds N] [--row TEXT[|TEXT]] [--sides etcd,rusd,rusd-redb] [--list]";

/// Every argument, and whether it has a value.
const ARGUMENTS: [(&str, bool); 10] = [
    ("--etcd", true),
    ("--rusd", true),
    ("--scratch", true),
    ("--out", true),
    ("--commit", true),
    ("--rounds", true),
    ("--row", true),
    ("--sides", true),
    ("--quick", false),
    ("--list", false),
];

/// The columns of the page.
const SIDES: [&str; 3] = ["etcd", "rusd", "rusd-redb"];

struct Options {
    etcd: PathBuf,
    rusd: PathBuf,
    scratch: PathBuf,
    out: Option<PathBuf>,
    commit: String,
    quick: bool,
    rounds: usize,
    row: String,
    sides: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = match spelled_out(std::env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(fault) => {
            eprintln!("rusd-bench: {fault}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if arguments.iter().any(|argument| argument == "--list") {
        GROUPS.iter().flat_map(|group| group.rows).for_each(|row| println!("{row}"));
        return ExitCode::SUCCESS;
    }
    match options(&arguments).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rusd-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The arguments with each value as a word of its own; `None` if help is asked for.
///
/// # Errors
/// An argument that isn't known, with the nearest one that is, or one without its value.
fn spelled_out(arguments: impl Iterator<Item = String>) -> Result<Option<Vec<String>>, String> {
    let mut all = Vec::new();
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        if matches!(argument.as_str(), "--help" | "-h" | "help") {
            return Ok(None);
        }
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (argument, None),
        };
        let Some((_, has_value)) = ARGUMENTS.iter().find(|(known, _)| *known == name) else {
            let likeness = |known: &str| strsim::jaro_winkler(known, &name);
            let known = ARGUMENTS.iter().map(|(known, _)| *known);
            let nearest = known.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).unwrap_or_default();
            return Err(format!("there is no argument `{name}`; the nearest is `{nearest}`"));
        };
        if *has_value {
            let value = value.or_else(|| arguments.next()).ok_or_else(|| format!("{name} needs a value"))?;
            all.extend([name, value]);
        } else if value.is_some() {
            return Err(format!("{name} takes no value"));
        } else {
            all.push(name);
        }
    }
    Ok(Some(all))
}

fn options(arguments: &[String]) -> Result<Options, Box<dyn Error>> {
    let quick = arguments.iter().any(|argument| argument == "--quick");
    if quick && arguments.iter().any(|argument| argument == "--out") {
        return Err("what is measured shortly is not kept".into());
    }
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    Ok(Options {
        etcd: value("--etcd").ok_or(USAGE)?.into(),
        rusd: value("--rusd").ok_or(USAGE)?.into(),
        scratch: value("--scratch").map_or_else(|| std::env::temp_dir().join("rusd-bench"), PathBuf::from),
        out: value("--out").map(PathBuf::from),
        commit: value("--commit").unwrap_or_else(|| "unknown".to_owned()),
        quick,
        rounds: value("--rounds").map_or(Ok(if quick { 1 } else { 3 }), |text| text.parse())?,
        row: value("--row").unwrap_or_default(),
        sides: value("--sides").unwrap_or_else(|| SIDES.join(",")).split(',').map(str::to_owned).collect(),
    })
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let known = [
        Side { name: "etcd", program: options.etcd.clone(), flags: &[] },
        Side { name: "rusd", program: options.rusd.clone(), flags: &["--backend=sled"] },
        Side { name: "rusd-redb", program: options.rusd.clone(), flags: &["--backend=redb"] },
    ];
    let sides: Vec<Side> =
        known.into_iter().filter(|side| options.sides.iter().any(|name| name == side.name)).collect();
    if sides.is_empty() {
        return Err(USAGE.into());
    }
    if options.out.is_some() && sides.iter().all(|side| side.name != SIDES[0]) {
        return Err("a row is kept with etcd's figures of the same run".into());
    }
    machine::pin(machine::GENERATOR_CORE)?;
    let mut kept = match &options.out {
        // Looked at first, not after all has been measured.
        Some(out) => Some((out, report::Kept::load(out)?)),
        None => None,
    };
    let known: Vec<&'static str> = GROUPS.iter().flat_map(|group| group.rows).copied().collect();
    let mut bench = Bench::new(options.row.clone(), options.quick, options.scratch.clone());
    let names: Vec<&'static str> = sides.iter().map(|side| side.name).collect();
    let wanted: Vec<_> = GROUPS.iter().filter(|group| bench.wants(group.rows)).collect();
    if wanted.is_empty() {
        return Err(format!("no row's name contains `{}`; --list shows them", options.row).into());
    }
    let mut measured = Vec::new();
    for (at, group) in wanted.iter().enumerate() {
        let rounds = options.rounds.min(group.rounds_max);
        let begun = machine::Look::now();
        for round in 0..rounds {
            for turn in 0..sides.len() {
                // Another side begins each round, so that none always has the warmer machine.
                let side = &sides[(turn + round) % sides.len()];
                let (group_at, load) = (at + 1, machine::Look::now().load());
                let groups = wanted.len();
                eprintln!("[{group_at}/{groups}] {}, round {} of {rounds}, load {load:.2}", side.name, round + 1);
                if let Err(error) = (group.run)(&mut bench, side) {
                    bench.ended(group.rows, side, round, &error);
                }
            }
        }
        let run = report::Run {
            commit: options.commit.clone(),
            machine: machine::describe(),
            etcd: machine::first_line(&options.etcd.to_string_lossy(), &["--version"]),
            rounds,
            busy: machine::Look::now().since(&begun),
        };
        let records = report::records(&bench, group.rows, &names, &run);
        measured.extend_from_slice(&records);
        // At once: what is measured is kept even if the rest is not waited for.
        if let Some((out, kept)) = &mut kept {
            kept.take(records, &known);
            report::write(out, kept, &SIDES, &known)?;
        }
    }
    println!("{}", report::terminal(&measured, &names));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(arguments: &[&str]) -> Result<Option<Vec<String>>, String> {
        spelled_out(arguments.iter().map(|argument| (*argument).to_owned()))
    }

    #[test]
    fn nothing_runs_on_what_is_not_known() {
        assert_eq!(spelled(&["--quick", "--help"]), Ok(None));
        let all = ["--row", "put", "--quick"].map(str::to_owned).to_vec();
        assert_eq!(spelled(&["--row=put", "--quick"]), Ok(Some(all)));
        assert_eq!(spelled(&["--qick"]), Err("there is no argument `--qick`; the nearest is `--quick`".to_owned()));
        assert!(spelled(&["--row"]).is_err());
        assert!(spelled(&["put"]).is_err());
    }
}
