//! `cargo xtask bench`: rusd and etcd side by side, measured by the `bench/` crate.
//!
//! ```text
//! peers ─► cargo build --release (rusd, rusd-bench) ─► rusd-bench ─► table, docs/benchmarks/
//! ```
//!
//! A run of chosen rows, or a short one, is printed only; a whole one is also written down.

use std::path::Path;

use crate::{Outcome, peers, sh};

pub(crate) fn run(args: &[String]) -> Outcome {
    peers::run(&[])?;
    sh::run(sh::cargo(&["build", "--release", "--package", "rusd", "--package", "rusd-bench"]))?;
    let release = sh::target().join("release");
    let commit = sh::output(sh::program("git", &sh::root(), &["describe", "--always", "--dirty"]))?;
    let text = |path: &Path| path.to_str().map(str::to_owned).ok_or("a path is not text");
    let mut all = vec![
        "--etcd".to_owned(),
        text(&peers::directory().join("etcd"))?,
        "--rusd".to_owned(),
        text(&release.join("rusd"))?,
        "--scratch".to_owned(),
        text(&sh::target().join("bench"))?,
        "--commit".to_owned(),
        String::from_utf8(commit)?.trim().to_owned(),
    ];
    let in_part =
        args.iter().any(|arg| matches!(arg.split('=').next(), Some("--quick" | "--row" | "--sides" | "--list")));
    if !in_part {
        all.extend(["--out".to_owned(), text(&sh::root().join("docs/benchmarks"))?]);
    }
    all.extend_from_slice(args);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    sh::run(sh::program(&text(&release.join("rusd-bench"))?, &sh::root(), &all))?;
    Ok(())
}
