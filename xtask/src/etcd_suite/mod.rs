//! `cargo xtask etcd-suite [--run REGEX] [--part I/N] [--fast] [--real] [--rusd PATH]`: etcd's own suite `common`,
//! with rusd in etcd's place.
//!
//! ```text
//! etcd-suite/go.mod, go.sum ─► build ─► target/etcd-suite/common.test, its certificates, DIR/{etcd,etcdctl,etcdutl}
//!                              room: a network and processes of its own, if the system lets us
//!                              └► common.test -bin-dir=DIR ─► tally: lines as they come, all in a log, the sum
//! ```
//!
//! `--real` runs it on etcd itself, for comparison; `--fast` is what `verify` runs. The whole takes about a quarter of an
//! hour on two cores; `--part 1/2` and `--part 2/2` take half of the tests each.

mod build;
mod room;
mod tally;

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use crate::{Outcome, sh};
use tally::Tally;

/// Go's own limit: the suite waits without end for a server that doesn't stop.
const TIME_MAX: &str = "45m";

/// What `verify` runs, in the suite's short form (one member without TLS, three with): one test of each service and
/// of what a script sees of a server; the slow ones, which wait for leases, are left to the whole run.
const SHORT: &str = "^(TestAlarm|TestAuthEnable|TestAuthJWTOnly|TestAuthMemberAdd|TestAuthPrefixPerm|TestAuthTxn|\
     TestCompact|TestDefragOnline|TestEndpointHashKV|TestEndpointHealth|TestEndpointStatus|TestKVDelete|TestKVGet|\
     TestKVGetStream|TestKVPut|TestLeaseGrantAndList|TestLeaseGrantRevoke|TestMemberList|TestRoleAdd_Simple|TestStatus|\
     TestTxnSucc|TestUserAdd_Simple|TestVerifyHashKVAfterCompactAndDefrag|TestWaitLeader|TestWatch)$";

/// How many tests of the pinned suite pass and how many it leaves out by itself (they want another kind of cluster, or
/// a failpoint): a run in which more are left out has shown less, and says so.
const WHOLE: Pin = Pin { passed: 83, skipped: 12 };
/// The same of [`SHORT`].
const SHORT_PIN: Pin = Pin { passed: 25, skipped: 0 };

/// What a run has to come to.
#[derive(Clone, Copy)]
struct Pin {
    passed: u64,
    skipped: u64,
}

/// What to run.
struct Asked {
    /// Go's regular expression of the tests' names.
    run: Option<String>,
    /// One of so many parts.
    part: Option<(usize, usize)>,
    /// On etcd itself.
    is_real: bool,
    /// In the suite's short form, and unless tests are named, [`SHORT`] alone.
    is_fast: bool,
    rusd: Option<PathBuf>,
}

pub(crate) fn run(args: &[String]) -> Outcome {
    let asked = Asked {
        run: sh::option(args, "run")?,
        part: sh::option(args, "part")?.as_deref().map(part).transpose()?,
        is_real: args.iter().any(|arg| arg == "--real"),
        is_fast: args.iter().any(|arg| arg == "--fast"),
        rusd: sh::option(args, "rusd")?.map(PathBuf::from),
    };
    go(&asked)
}

/// The part that `verify` runs: about a minute. What could not be run is returned, as one line.
///
/// # Errors
/// A test that fails.
pub(crate) fn short() -> Result<Vec<String>, Box<dyn std::error::Error>> {
    if let Err(error) = build::suite() {
        let skipped = format!("etcd-suite: the suite could not be built: {error}");
        println!("SKIPPED {skipped}");
        return Ok(vec![skipped]);
    }
    go(&Asked { run: None, part: None, is_real: false, is_fast: true, rusd: None })?;
    Ok(Vec::new())
}

fn go(asked: &Asked) -> Outcome {
    let begun = Instant::now();
    let suite = build::suite()?;
    let side = if asked.is_real { "etcd" } else { "rusd" };
    let programs = build::programs(side, asked.rusd.as_deref())?;
    let pattern = asked.run.as_deref().unwrap_or(if asked.is_fast { SHORT } else { "." });
    let pattern = match asked.part {
        None => pattern.to_owned(),
        Some(part) => build::part(&suite, pattern, part)?,
    };
    let mut run = room::command(&suite.program);
    run.current_dir(&suite.start).env_remove("E2E_TEST_MINIMAL");
    // What the suite hands to its servers must be the suite's own.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ETCD")) {
        run.env_remove(name);
    }
    if asked.is_fast {
        run.env("E2E_TEST_MINIMAL", "true");
    }
    run.args(["-test.v", "-test.count=1", "-test.timeout", TIME_MAX, "-test.run", &pattern])
        .arg(flag("-bin-dir", &programs))
        .arg(flag("-cert-dir", &suite.certificates));
    let log = suite.dir.join(format!("{side}.log"));
    let (tally, is_good) = tally::run(run, &log)?;
    say(&tally, side, begun);
    if is_good && tally.failed.is_empty() && tally.passed > 0 {
        return enough(&tally, asked).map_err(Into::into);
    }
    println!("etcd-suite: all that was printed is in {}", log.display());
    Err(match (&tally.failed[..], tally.passed) {
        ([], 0) => "no test ran".into(),
        ([], _) => "the suite ended in disorder".into(),
        (failed, _) => format!("failed on {side}: {}", failed.join(", ")).into(),
    })
}

/// Whether what passed is all that should have been tried. A choice of tests has no number of its own.
fn enough(tally: &Tally, asked: &Asked) -> Result<(), String> {
    let pin = match asked {
        Asked { run: None, part: None, is_fast: false, .. } => WHOLE,
        Asked { run: None, part: None, is_fast: true, .. } => SHORT_PIN,
        _ => return Ok(()),
    };
    if (tally.passed, tally.skipped) != (pin.passed, pin.skipped) {
        return Err(format!(
            "{} passed and {} were skipped, where {} pass and {} are skipped: what is left out isn't shown",
            tally.passed, tally.skipped, pin.passed, pin.skipped
        ));
    }
    // The short form has no cluster whose members make their certificates.
    let wanted = tally.variants.iter().take(if asked.is_fast { 2 } else { tally.variants.len() });
    match wanted.filter(|variant| variant.passed == 0).map(|variant| variant.name).next() {
        Some(name) => Err(format!("nothing ran in the variant {name}")),
        None => Ok(()),
    }
}

fn say(tally: &Tally, side: &str, begun: Instant) {
    for variant in tally.variants.iter().filter(|variant| variant.passed + variant.failed > 0) {
        println!("etcd-suite: {} passed, {} failed in the variant {}", variant.passed, variant.failed, variant.name);
    }
    let secs = begun.elapsed().as_secs();
    println!("etcd-suite: on {side} in {secs} s");
    println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed.len(), tally.skipped);
}

fn flag(name: &str, path: &std::path::Path) -> std::ffi::OsString {
    let mut text = std::ffi::OsString::from(name);
    text.push("=");
    text.push(path);
    text
}

/// `I/N`, from 1 to N.
fn part(text: &str) -> Result<(usize, usize), String> {
    let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    match numbers {
        Some((i, n)) if 1 <= i && i <= n => Ok((i, n)),
        _ => Err(format!("--part {text}: expected I/N, such as 1/2")),
    }
}

/// A command of the Go toolchain in the module that pins the suite.
fn go_command(args: &[&str]) -> Command {
    sh::program("go", &sh::root().join("xtask/etcd-suite"), args)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_leaves_tests_out_is_none() {
        let asked = |run: Option<&str>, part, is_fast| Asked {
            run: run.map(str::to_owned),
            part,
            is_real: false,
            is_fast,
            rusd: None,
        };
        let tally = |passed, skipped, in_variants: [u64; 3]| {
            let mut tally = Tally::new();
            (tally.passed, tally.skipped) = (passed, skipped);
            for (variant, passed) in tally.variants.iter_mut().zip(in_variants) {
                variant.passed = passed;
            }
            tally
        };
        let whole = asked(None, None, false);
        assert!(enough(&tally(83, 12, [9; 3]), &whole).is_ok());
        assert!(enough(&tally(43, 52, [9; 3]), &whole).is_err());
        assert!(enough(&tally(83, 13, [9; 3]), &whole).is_err());
        assert!(enough(&tally(83, 12, [9, 9, 0]), &whole).is_err_and(|why| why.contains("AutoTLS")));
        let fast = asked(None, None, true);
        assert!(enough(&tally(25, 0, [9, 9, 0]), &fast).is_ok());
        assert!(enough(&tally(24, 1, [9, 9, 0]), &fast).is_err());
        assert!(enough(&tally(25, 0, [9, 0, 0]), &fast).is_err());
        assert!(enough(&tally(1, 0, [1, 0, 0]), &asked(Some("TestWatch"), None, false)).is_ok());
        assert!(enough(&tally(40, 6, [9; 3]), &asked(None, Some((1, 2)), false)).is_ok());
    }

    #[test]
    fn parts_are_counted_from_one() {
        assert_eq!(part("1/2"), Ok((1, 2)));
        assert_eq!(part("3/3"), Ok((3, 3)));
        for bad in ["0/2", "3/2", "1", "a/b", "1/0", ""] {
            assert!(part(bad).is_err(), "{bad}");
        }
    }
}
