//! Adds up the summary lines of Rust's test runner, so that the last line of a run says what was run.

use std::io::{BufRead, BufReader, Read, Write};
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
    /// Programs that said themselves that tests of theirs had failed: one that was killed doesn't.
    pub(crate) told_failed: u64,
    /// The names of what failed.
    pub(crate) failing: Vec<String>,
    /// Where that was, as cargo's own flags say it: `-p PACKAGE --test PROGRAM`.
    pub(crate) targets: Vec<String>,
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
        if let Some(name) = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED")) {
            self.failing.push(name.to_owned());
        }
        let Some(summary) = line.strip_prefix("test result: ") else { return };
        self.told_failed += u64::from(summary.starts_with("FAILED"));
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

    /// Takes one line of what cargo itself says: it ends with the targets that failed, a line each.
    fn cargos(&mut self, line: &str) {
        if let Some(target) = line.strip_prefix("    `").and_then(|line| line.strip_suffix('`')) {
            self.targets.push(target.to_owned());
        }
    }
}

/// Shows each line of `source` on `shown` as it comes, and gives it to `each`.
fn tee(source: impl Read, mut shown: impl Write, mut each: impl FnMut(&str)) -> std::io::Result<()> {
    for line in BufReader::new(source).split(b'\n') {
        let line = line?;
        shown.write_all(&line)?;
        shown.write_all(b"\n")?;
        each(&String::from_utf8_lossy(&line));
    }
    Ok(())
}

/// Run a `cargo test`, show its output as it comes, and return the sum with whether it succeeded.
pub(crate) fn run(mut command: Command) -> std::io::Result<(Tally, bool)> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (mut tally, mut cargos) = (Tally::default(), Tally::default());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        let beside =
            scope.spawn(|| stderr.map_or(Ok(()), |stderr| tee(stderr, std::io::stderr(), |line| cargos.cargos(line))));
        stdout.map_or(Ok(()), |stdout| tee(stdout, std::io::stdout(), |line| tally.line(line)))?;
        beside.join().map_err(|_| std::io::Error::other("cargo's own words could not be read"))?
    })?;
    tally.targets = cargos.targets;
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
            "test tls::b ... FAILED",
            "SUMMARY chaos: 9 rounds",
            "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.20s",
        ] {
            tally.line(line);
        }
        let skipped = vec!["golden: etcd is not there".to_owned()];
        let told = vec!["chaos: 9 rounds".to_owned()];
        let failing = vec!["tls::b".to_owned()];
        let sum = Tally { passed: 7, failed: 2, ignored: 1, skipped, told, told_failed: 1, failing, targets: vec![] };
        assert_eq!(tally, sum);
    }

    #[test]
    fn cargo_says_where_it_was() {
        let mut tally = Tally::default();
        for line in ["error: 1 target failed:", "    `-p rusd --test cluster_faults`", "   Doc-tests rusd_proto"] {
            tally.cargos(line);
        }
        assert_eq!(tally.targets, ["-p rusd --test cluster_faults"]);
    }
}
