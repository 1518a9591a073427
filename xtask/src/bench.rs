//! `cargo xtask bench`: rusd and etcd side by side, measured by the `bench/` crate.
//!
//! ```text
//! peers ─► cargo build --release (rusd, rusd-bench) ─► rusd-bench ─► table, docs/benchmarks/
//! ```
//!
//! A whole run is written down, row by row as it goes. A run of chosen rows is printed only, unless it is to be kept:
//! `--row TEXT --keep` puts these rows in the place of what the page says of them, and leaves the others.

use std::path::Path;

use crate::{Outcome, peers, sh};

pub(crate) fn run(args: &[String]) -> Outcome {
    let (keep, args): (Vec<String>, Vec<String>) = args.iter().cloned().partition(|arg| arg == "--keep");
    let has = |options: &[&str]| args.iter().any(|arg| options.contains(&arg.split('=').next().unwrap_or_default()));
    let keep = !keep.is_empty() || !has(&["--quick", "--row", "--sides", "--list"]);
    if keep && has(&["--quick", "--list"]) {
        return Err("--keep is for rows that are measured in full".into());
    }
    peers::run(&[])?;
    sh::run(sh::cargo(&["build", "--release", "--package", "rusd", "--package", "rusd-bench"]))?;
    let release = sh::target().join("release");
    let text = |path: &Path| path.to_str().map(str::to_owned).ok_or("a path is not text");
    let mut all = vec![
        "--etcd".to_owned(),
        text(&peers::directory().join("etcd"))?,
        "--rusd".to_owned(),
        text(&release.join("rusd"))?,
        "--scratch".to_owned(),
        text(&sh::target().join("bench"))?,
        "--commit".to_owned(),
        commit()?,
    ];
    if keep {
        all.extend(["--out".to_owned(), text(&sh::root().join("docs/benchmarks"))?]);
    }
    all.extend(args);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    sh::run(sh::program(&text(&release.join("rusd-bench"))?, &sh::root(), &all))?;
    Ok(())
}

/// What is measured; what was written down of earlier rows is no change of it.
fn commit() -> Result<String, Box<dyn std::error::Error>> {
    let git = |args: &[&str]| sh::output(sh::program("git", &sh::root(), args));
    let id = String::from_utf8(git(&["rev-parse", "--short", "HEAD"])?)?;
    let only = ["status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)docs/benchmarks"];
    let dirty = if git(&only)?.is_empty() { "" } else { "-dirty" };
    Ok(format!("{}{dirty}", id.trim()))
}
