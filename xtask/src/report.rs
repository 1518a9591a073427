//! What a command tried, line by line, and the sum at its end.
//!
//! ```text
//! step ─► Passed, with a figure ─► "ok NAME: FIGURE"
//!      ├► Skipped, with a reason ─► "SKIPPED NAME: REASON"     no success, unless --allow-skips takes it for one
//!      └► an error ─► "FAILED NAME: ERROR"         the next step runs all the same
//! ```

use std::error::Error;

use crate::Outcome;

/// How a step ended, if it didn't fail.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// What was seen.
    Passed(String),
    /// Why it could not be tried here.
    Skipped(String),
}

pub(crate) type Tried = Result<Step, Box<dyn Error>>;

/// A step that was tried and held.
pub(crate) fn passed(seen: impl Into<String>) -> Tried {
    Ok(Step::Passed(seen.into()))
}

/// A step that this machine has no means for.
pub(crate) fn skipped(why: impl Into<String>) -> Tried {
    Ok(Step::Skipped(why.into()))
}

/// Fails unless it is so.
pub(crate) fn expect(is_so: bool, what: impl Into<String>) -> Outcome {
    if is_so { Ok(()) } else { Err(what.into().into()) }
}

/// The counts of one command.
pub(crate) struct Report {
    command: &'static str,
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Report {
    pub(crate) fn new(command: &'static str) -> Self {
        Self { command, passed: 0, failed: 0, skipped: 0 }
    }

    /// Takes a step's end into account and shows it.
    pub(crate) fn step(&mut self, name: &str, tried: Tried) {
        match tried {
            Ok(Step::Passed(seen)) => {
                self.passed += 1;
                println!("ok {name}: {seen}");
            }
            Ok(Step::Skipped(why)) => {
                self.skipped += 1;
                println!("SKIPPED {name}: {why}");
            }
            Err(error) => {
                self.failed += 1;
                println!("FAILED {name}: {error}");
            }
        }
    }

    fn sum(&self) -> String {
        format!("{}: {} passed, {} failed, {} skipped", self.command, self.passed, self.failed, self.skipped)
    }

    /// The sum.
    ///
    /// # Errors
    /// If a step failed or none was tried; if one was skipped, unless `allows_skips`.
    pub(crate) fn end(self, allows_skips: bool) -> Outcome {
        println!("{}", self.sum());
        match (self.failed, self.passed, self.skipped) {
            (0, 0, _) => Err("nothing could be tried here".into()),
            (0, _, 1..) if !allows_skips => {
                Err("steps were skipped: see above (--allow-skips takes that for an answer)".into())
            }
            (0, _, _) => Ok(()),
            (failed, _, _) => Err(format!("{failed} steps failed: see above").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_fails_fails_the_command_and_a_skip_unless_it_is_allowed() {
        for allowed in [true, false] {
            let mut report = Report::new("image");
            report.step("a", passed("5 ms"));
            report.step("b", skipped("no runc"));
            assert_eq!(report.sum(), "image: 1 passed, 0 failed, 1 skipped");
            assert_eq!(report.end(allowed).is_ok(), allowed);
        }
        let mut report = Report::new("image");
        report.step("a", passed("5 ms"));
        assert!(report.end(false).is_ok());
        let mut report = Report::new("image");
        report.step("a", passed("5 ms"));
        report.step("b", expect(false, "it isn't so").and_then(|()| passed("")));
        assert_eq!(report.sum(), "image: 1 passed, 1 failed, 0 skipped");
        assert!(report.end(true).is_err());
    }

    #[test]
    fn skips_alone_are_no_success() {
        let mut report = Report::new("image");
        report.step("a", skipped("no runc"));
        assert!(report.end(true).is_err());
    }
}
