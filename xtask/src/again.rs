//! What failed in a test program that works with real processes, sockets and time is run once more, alone, and told about.
//!
//! ```text
//! all tests ─► none failed? ─► done
//!           └► a few, of programs named here ─┬► each passes alone ─► `passed only when run again: NAME`, and on
//!                                             └► one fails again ──► failed
//! ```
//! On two busy cores an election may come in the middle of any test. One that fails whenever it is run is never let through,
//! nor are tests that are the same each time, nor many at once. ADR 40 says why.

use crate::sh;
use crate::tally::{self, Tally};

/// The most tests that are run again: more are no chance.
const AGAIN_MAX: usize = 3;

/// The test programs that start servers and wait for them.
const REAL_TIME: [&str; 12] = [
    "api",
    "auth",
    "cluster",
    "cluster_faults",
    "differential",
    "discovery",
    "faults",
    "golden",
    "import",
    "pods",
    "process",
    "tls",
];

/// Runs again what failed in `sum`, if that is allowed for all of it. The names of what passed then; `None` if the failure
/// stands.
pub(crate) fn run(sum: &Tally) -> std::io::Result<Option<Vec<String>>> {
    let names: Vec<_> = sum.failing.iter().map(String::as_str).collect();
    // A program that ended before it had run all its tests says nothing, and they would never be missed.
    if usize::try_from(sum.told_failed).ok() != Some(sum.targets.len()) {
        return Ok(None);
    }
    let Some(programs) = may_run(&names, &sum.targets, sum.failed) else { return Ok(None) };
    for name in &names {
        println!("FAILED, to be run again: {name}");
    }
    let mut passed = 0;
    for program in programs {
        let mut test = sh::cargo(&["test", "--package", "rusd", "--locked", "--test", program, "--", "--exact"]);
        test.args(&names).arg("--test-threads=1").env("RUSD_REQUIRE_PEERS", "1");
        let (again, green) = tally::run(test)?;
        if !green || again.failed > 0 || !again.skipped.is_empty() {
            return Ok(None);
        }
        passed += again.passed;
    }
    let all = u64::try_from(names.len()).is_ok_and(|asked| passed >= asked);
    Ok(all.then(|| sum.failing.clone()))
}

/// The programs of which tests are to be run again, if they are all known, and few tests failed in them.
fn may_run<'a>(names: &[&str], targets: &'a [String], failed: u64) -> Option<Vec<&'a str>> {
    let all_named = u64::try_from(names.len()).is_ok_and(|named| named == failed);
    if names.is_empty() || names.len() > AGAIN_MAX || !all_named {
        return None;
    }
    let program = |target: &'a String| {
        let program = target.strip_prefix("-p rusd --test ")?;
        REAL_TIME.contains(&program).then_some(program)
    };
    targets.iter().map(program).collect::<Option<Vec<_>>>().filter(|programs| !programs.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_few_tests_of_programs_with_real_time_are_run_again() {
        let targets = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let real = targets(&["-p rusd --test cluster_faults", "-p rusd --test tls"]);
        assert_eq!(may_run(&["a", "b"], &real, 2), Some(vec!["cluster_faults", "tls"]));
        assert_eq!(may_run(&["a", "b"], &real, 3), None, "one has no name");
        assert_eq!(may_run(&["a", "b", "c", "d"], &real, 4), None, "too many");
        assert_eq!(may_run(&["a"], &[], 1), None, "nobody says where");
        for fixed in ["-p rusd --test store", "-p rusd --lib", "-p xtask --bin xtask", "-p rusd --doc"] {
            assert_eq!(may_run(&["a"], &targets(&[fixed]), 1), None, "{fixed}");
            let mixed = targets(&["-p rusd --test tls", fixed]);
            assert_eq!(may_run(&["a"], &mixed, 1), None, "{fixed}");
        }
    }

    /// Cause: a program that is killed names no test, and cargo names it all the same.
    /// Symptom: one test that failed by chance elsewhere, and all that the killed one had still to run was never missed.
    #[test]
    fn a_program_that_was_killed_is_no_chance() {
        let targets = ["-p rusd --test cluster_faults", "-p rusd --test tls"].map(str::to_owned).to_vec();
        let sum = Tally { failed: 1, told_failed: 1, failing: vec!["b".to_owned()], targets, ..Tally::default() };
        assert_eq!(run(&sum).expect("nothing is run"), None);
    }

    #[test]
    fn the_programs_are_there() {
        for program in REAL_TIME {
            let dir = sh::root().join("tests").join(program);
            assert!(dir.join("main.rs").exists() || dir.with_extension("rs").exists(), "{program}");
        }
    }
}
