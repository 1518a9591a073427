//! Adds up the summary lines of Rust's test runner, so that the last line of a run says what was run.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// Tests by outcome.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
    /// What our own tests printed behind `SKIPPED`: the name of what they could not do, and why.
    pub(crate) skipped: Vec<String>,
    /// What they printed behind `SUMMARY`: what was done, in figures.
    pub(crate) told: Vec<String>,
}

impl Tally {
    /// Take one line of the runner's output into account.
    fn line(&mut self, line: &str) {
        if let Some((_, what)) = line.split_once("SKIPPED ") {
            self.skipped.push(what.trim().to_owned());
        }
        if let Some((_, what)) = line.split_once("SUMMARY ") {
            self.told.push(what.trim().to_owned());
        }
        let Some(summary) = line.strip_prefix("test result: ") else { return };
        for part in summary.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let (Some(count), Some(kind)) = (words.next().and_then(|n| n.parse::<u64>().ok()), words.next()) else {
                continue;
            };
            match kind {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }
}

/// Run a `cargo test`, show its output as it comes, and return the sum with whether it succeeded.
pub(crate) fn run(mut command: Command) -> std::io::Result<(Tally, bool)> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut tally = Tally::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            writeln!(std::io::stdout(), "{line}")?;
            tally.line(&line);
        }
    }
    Ok((tally, child.wait()?.success()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_lines_are_added_up() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test a ... SKIPPED golden: etcd is not there",
            "SUMMARY chaos: 9 rounds",
            "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.20s",
        ] {
            tally.line(line);
        }
        let skipped = vec!["golden: etcd is not there".to_owned()];
        let told = vec!["chaos: 9 rounds".to_owned()];
        assert_eq!(tally, Tally { passed: 7, failed: 2, ignored: 1, skipped, told });
    }
}
