//! The systemd unit, read by systemd, and its settings, read by rusd.

use std::fs;
use std::io::Write as _;
use std::process::Command;

use rusd::cli::{self, Action};

const UNIT: &str = include_str!("../../packaging/systemd/rusd.service");
const SETTINGS: &str = include_str!("../../packaging/systemd/rusd.default");
/// The least that `systemd-analyze security` may find, in tenths of its points: 0 is shut, 100 open.
const EXPOSURE_MAX: &str = "--threshold=15";

/// What systemd says of the unit, with this program in place of the installed one; `None` where it isn't.
fn analyze(arguments: &[&str], test: &str) -> Option<(bool, String)> {
    let dir = tempfile::tempdir().expect("a directory");
    let unit = dir.path().join("rusd.service");
    fs::write(&unit, UNIT.replace("/usr/bin/rusd", env!("CARGO_BIN_EXE_rusd"))).expect("written");
    match Command::new("systemd-analyze").args(arguments).arg(&unit).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
            Some((output.status.success(), said))
        }
        Err(error) => {
            // Written past the test runner's capture, which would hide it in a passing test.
            writeln!(std::io::stdout(), "SKIPPED {test}: no systemd-analyze here: {error}").ok();
            None
        }
    }
}

#[test]
fn systemd_reads_every_line_of_the_unit() {
    let Some((is_fine, said)) = analyze(&["verify", "--man=no"], "systemd_reads_every_line_of_the_unit") else {
        return;
    };
    // A key that it doesn't know is a warning to it, so silence is what counts.
    assert!(is_fine && !said.contains("rusd.service"), "{said}");
}

#[test]
fn the_unit_leaves_the_service_little() {
    let arguments = ["security", "--offline=true", "--no-pager", EXPOSURE_MAX];
    let Some((is_fine, said)) = analyze(&arguments, "the_unit_leaves_the_service_little") else { return };
    assert!(is_fine, "{said}");
}

#[test]
fn every_setting_of_the_example_is_a_flag() {
    let of_the_unit = UNIT.lines().filter_map(|line| line.strip_prefix("Environment="));
    let of_the_file =
        SETTINGS.lines().map(|line| line.trim_start_matches('#')).filter(|line| line.starts_with("ETCD_"));
    let settings: std::collections::BTreeMap<String, String> = of_the_unit
        .chain(of_the_file)
        .map(|line| line.split_once('=').expect("a name and a value"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert!(settings.len() > 15, "{settings:?}");
    match cli::parse(Vec::<String>::new(), settings.clone()) {
        Ok(Action::Run(run)) => {
            assert_eq!(run.warnings, [], "a setting that is none");
            assert_eq!(run.config.member.name, settings["ETCD_NAME"]);
        }
        other => panic!("{other:?}"),
    }
}
