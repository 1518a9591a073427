//! What Go's test runner prints: all of it into a log, what matters to the terminal as it comes, and summed up.
//!
//! ```text
//! === RUN TestA ─► what is printed from there on is kept ─► --- PASS: TestA ─► forgotten
//!                                                        └► --- FAIL: TestA ─► shown
//! ```

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

/// Lines kept of one test.
const KEPT_MAX: usize = 400;
/// Lines shown of one that didn't end.
const LAST: usize = 40;
/// Characters shown of one line.
const LINE_MAX: usize = 600;
/// Marks what the suite says of its own doings, and not of a failure.
const DOINGS: [&str; 2] = ["logger.go:", "testing.go:"];

/// Tests and their variants, by outcome.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) passed: u64,
    pub(super) skipped: u64,
    /// By name.
    pub(super) failed: Vec<String>,
    /// Those of the variants that most tests have: how many members, and which TLS.
    pub(super) variants: Vec<Variant>,
    /// The lines of the test that runs.
    kept: Vec<String>,
}

/// One way to set up the cluster, told by the name of the subtest.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Variant {
    pub(super) name: &'static str,
    pub(super) passed: u64,
    pub(super) failed: u64,
}

/// As the suite names them.
const VARIANTS: [&str; 3] = ["NoTLS", "PeerTLS_and_ClientTLS", "PeerAutoTLS_and_ClientAutoTLS"];

impl Tally {
    pub(super) fn new() -> Self {
        let variants = VARIANTS.map(|name| Variant { name, passed: 0, failed: 0 });
        Self { variants: variants.into(), ..Self::default() }
    }

    /// Takes one line in; returns what to show of it.
    fn line(&mut self, line: &str) -> Vec<String> {
        let Some((outcome, name)) = outcome(line) else {
            if line.starts_with("=== RUN") && !line.contains('/') {
                self.kept.clear();
            }
            if self.kept.len() == KEPT_MAX {
                self.kept.drain(..KEPT_MAX / 2);
            }
            self.kept.push(line.to_owned());
            return Vec::new();
        };
        if let Some((_, level)) = name.rsplit_once('/') {
            // What has subtests of its own has a line of its own, too.
            if let Some(variant) = self.variants.iter_mut().find(|variant| variant.name == level) {
                match outcome {
                    "PASS" => variant.passed += 1,
                    "FAIL" => variant.failed += 1,
                    _ => {}
                }
            }
            return if outcome == "FAIL" { vec![cut(line)] } else { Vec::new() };
        }
        let mut shown = vec![cut(line)];
        match outcome {
            "PASS" => self.passed += 1,
            "SKIP" => self.skipped += 1,
            _ => {
                self.failed.push(name.to_owned());
                let matters = |line: &&String| !DOINGS.iter().any(|doing| line.contains(doing));
                shown.extend(self.kept.iter().filter(matters).map(|line| cut(line)));
            }
        }
        shown
    }

    /// The last that was printed: where the suite stopped, if it didn't end by itself.
    fn last(&self) -> &[String] {
        &self.kept[self.kept.len().saturating_sub(LAST)..]
    }
}

/// `--- PASS: TestA/one (0.10s)`: the outcome and the name.
fn outcome(line: &str) -> Option<(&str, &str)> {
    let (outcome, rest) = line.trim_start().strip_prefix("--- ")?.split_once(": ")?;
    let name = rest.split(' ').next()?;
    (matches!(outcome, "PASS" | "FAIL" | "SKIP") && name.starts_with("Test")).then_some((outcome, name))
}

fn cut(line: &str) -> String {
    line.chars().take(LINE_MAX).collect()
}

/// Runs the suite; also says whether it ended well.
pub(super) fn run(mut command: Command, log: &Path) -> std::io::Result<(Tally, bool)> {
    let (ours, theirs) = std::io::pipe()?;
    let mut child = command.stdin(Stdio::null()).stdout(theirs.try_clone()?).stderr(theirs).spawn()?;
    // It holds the pipe's other end, which must close with the child.
    drop(command);
    let mut log = BufWriter::new(File::create(log)?);
    let mut tally = Tally::new();
    let mut lines = BufReader::new(ours);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        log.write_all(&line)?;
        let text = String::from_utf8_lossy(&line);
        for shown in tally.line(text.trim_end()) {
            writeln!(std::io::stdout(), "{shown}")?;
        }
        line.clear();
    }
    log.flush()?;
    let is_good = child.wait()?.success();
    if !is_good && tally.failed.is_empty() {
        for line in tally.last() {
            writeln!(std::io::stdout(), "{}", cut(line))?;
        }
    }
    Ok((tally, is_good))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_and_variants_are_summed_up_and_failures_shown() {
        let mut tally = Tally::new();
        let mut shown = Vec::new();
        for line in [
            "=== RUN   TestA",
            "    logger.go:146: starting server...",
            "=== RUN   TestA/NoTLS",
            "    a_test.go:7: Error: not equal",
            "--- FAIL: TestA (1.00s)",
            "    --- FAIL: TestA/NoTLS (0.50s)",
            "    --- PASS: TestA/PeerTLS_and_ClientTLS (0.50s)",
            "        --- PASS: TestA/PeerTLS_and_ClientTLS/one (0.50s)",
            "=== RUN   TestB",
            "--- PASS: TestB (0.00s)",
            "    --- PASS: TestB/one/NoTLS (0.00s)",
            "--- SKIP: TestC (0.00s)",
            "FAIL",
        ] {
            shown.extend(tally.line(line));
        }
        assert_eq!((tally.passed, tally.skipped, &tally.failed[..]), (1, 1, &["TestA".to_owned()][..]));
        let counts: Vec<_> = tally.variants.iter().map(|variant| (variant.passed, variant.failed)).collect();
        assert_eq!(counts, [(1, 1), (1, 0), (0, 0)]);
        assert!(shown.iter().any(|line| line.contains("not equal")), "{shown:?}");
        assert!(!shown.iter().any(|line| line.contains("starting server")), "{shown:?}");
    }

    #[test]
    fn only_lines_of_the_runner_are_outcomes() {
        assert_eq!(outcome("--- PASS: TestA (0.1s)"), Some(("PASS", "TestA")));
        assert_eq!(outcome("    --- SKIP: TestA/x (0.1s)"), Some(("SKIP", "TestA/x")));
        for other in ["PASS", "--- ", "--- DONE: TestA", "--- PASS: other", "x --- PASS: TestA"] {
            assert_eq!(outcome(other), None, "{other}");
        }
    }
}
