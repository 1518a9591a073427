//! `cargo xtask supply`: which crates may come in, as `deny.toml` says it and `cargo deny` reads it.
//!
//! ```text
//! cargo install cargo-deny =VERSION ─► target/tools/bin/cargo-deny    once; a minute and a half on two cores
//!                                        ├► check licenses bans sources
//!                                        └► fetch db ─► there ───► check advisories   (yanked versions too)
//!                                                    └► not there ─► a skip, said and counted
//! ```
//!
//! The tool's version is pinned, so that a new release of it changes nothing by itself.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::{Outcome, sh};

/// The version of `cargo-deny`; it has to build with the toolchain that builds us.
const VERSION: &str = "0.20.2";

/// What a skip of the advisories is called; `verify` lets it pass.
pub(crate) const ADVISORIES: &str = "advisories";

pub(crate) fn run(_args: &[String]) -> Outcome {
    check()?;
    Ok(())
}

/// Runs all checks.
///
/// # Errors
/// The first that fails. What could not be checked is returned, as one line each.
pub(crate) fn check() -> Result<Vec<String>, Box<dyn std::error::Error>> {
    install()?;
    sh::run(deny(&["check", "licenses", "bans", "sources"]))?;
    if let Err(error) = sh::output(deny(&["fetch", "db"])) {
        let skipped = format!("{ADVISORIES}: {}", reason(&error));
        println!("SKIPPED {skipped}");
        return Ok(vec![skipped]);
    }
    sh::run(deny(&["check", "advisories"]))?;
    Ok(Vec::new())
}

/// Builds the tool unless the pinned version is there.
fn install() -> Outcome {
    let tools = sh::target().join("tools");
    if sh::output(deny(&["--version"])).is_ok_and(|said| is_pinned(&said)) {
        return Ok(());
    }
    // Apart from our own builds, and kept until the end: whoever was interrupted goes on from there.
    let build = tools.join("build");
    let mut install = sh::cargo(&["install", "cargo-deny", "--locked", "--force", "--debug", "--quiet"]);
    install.args(["--version", &format!("={VERSION}")]).arg("--root").arg(&tools).arg("--target-dir").arg(&build);
    sh::run(install)?;
    fs::remove_dir_all(build)?;
    Ok(())
}

fn program() -> PathBuf {
    sh::target().join("tools/bin/cargo-deny")
}

/// Warnings aren't shown: a crate that comes in twice is no fault, and there are many.
fn deny(args: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(["--workspace", "--locked", "--log-level", "error"]).args(args).current_dir(sh::root());
    command
}

fn is_pinned(said: &[u8]) -> bool {
    String::from_utf8_lossy(said).split_whitespace().nth(1) == Some(VERSION)
}

/// The last line of what a failed fetch said: git's own words.
fn reason(error: &str) -> &str {
    error.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("the database was not fetched").trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pinned_version_is_taken() {
        assert!(is_pinned(format!("cargo-deny {VERSION}\n").as_bytes()));
        assert!(!is_pinned(b"cargo-deny 0.1.0\n"));
        assert!(!is_pinned(b""));
    }

    #[test]
    fn a_skip_says_what_git_said() {
        assert_eq!(
            reason("`cargo-deny fetch db` failed: 1\nfailed to clone\nfatal: no such host\n\n"),
            "fatal: no such host"
        );
        assert_eq!(reason(""), "the database was not fetched");
    }
}
