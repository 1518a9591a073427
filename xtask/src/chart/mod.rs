//! `cargo xtask chart [--record] [--allow-skips]`: the Helm chart, held against lint, goldens, what it must refuse and alert.
//!
//! ```text
//! helm (Go module, cached) ─► each charts/rusd/ci/NAME-values.yaml ─► lint --strict
//!                                                                 └► template ─► ci/golden: default.yaml, NAME.diff
//!                         ├► the same with ci/earliest.yaml in values.yaml's place ─► nothing else comes out
//!                         ├► each line of ci/refusals.txt ─► refused, with this text
//!                         ├► each line of ci/upgrades.txt ─► refused or taken by what `lookup` finds
//!                         └► alerts (promtool, if it can be had) ─► raised by what ci/alerts.yaml says, and by nothing else
//! ```
//! The default's rendering is kept whole, the others' as what differs from it: that is what one wants to see changed.
//! `--record` writes the goldens anew.

mod alerts;
mod helm;
mod lookup;

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Outcome, sh};

/// The default comes first: the others are held against it.
pub(crate) const VALUES: [&str; 5] = ["default", "single", "secured", "large", "restored"];
/// The one with alerts and backups.
const WATCHED: &str = "large";
/// The values that the chart began with.
const EARLIEST: &str = "earliest.yaml";
/// The Kubernetes that helm is to think of; without it, it takes the one that its own build doesn't know.
pub(crate) const KUBE: &str = "--kube-version=1.37.1";

pub(crate) fn run(args: &[String]) -> Outcome {
    let skipped = check(args.iter().any(|arg| arg == "--record"))?;
    if skipped.is_empty() || sh::allows_skips(args) {
        return Ok(());
    }
    Err("not all of it was tried (--allow-skips takes that for an answer)".into())
}

/// Holds all of it, or writes the goldens anew.
///
/// # Errors
/// The first that isn't as it should be. What could not be tried here is returned, as one line each.
pub(crate) fn check(record: bool) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let helm = helm::built()?;
    let chart = sh::root().join("charts/rusd");
    let ci = chart.join("ci");
    let scratch = sh::target().join("chart");
    fs::create_dir_all(&scratch)?;
    let earlier = earlier(&chart, &scratch)?;
    let default = scratch.join("default.yaml");
    let mut differ = Vec::new();
    for name in VALUES {
        let values = ci.join(format!("{name}-values.yaml"));
        let values = format!("--values={}", values.display());
        sh::output(helm_with(&helm, &chart, &["lint", "--strict", ".", KUBE, &values]))?;
        let rendered = render(&helm, &chart, name, "space")?;
        // Before anything is said of goldens: `--record` must not hide it.
        if render(&helm, &earlier, name, "space")? != rendered {
            return Err(format!("{name}: something else comes out where values.yaml is ci/{EARLIEST}").into());
        }
        let (golden, shown) = if name == "default" {
            fs::write(&default, &rendered)?;
            (ci.join("golden/default.yaml"), rendered)
        } else {
            let path = scratch.join(format!("{name}.yaml"));
            fs::write(&path, rendered)?;
            (ci.join(format!("golden/{name}.diff")), difference(&default, &path)?)
        };
        if record {
            fs::write(&golden, shown)?;
        } else if fs::read(&golden).unwrap_or_default() != shown {
            let fresh = scratch.join(golden.file_name().ok_or("a golden has a name")?);
            fs::write(&fresh, shown)?;
            print!("{}", String::from_utf8_lossy(&difference(&golden, &fresh)?));
            differ.push(name);
        }
    }
    if !differ.is_empty() {
        return Err(
            format!("these render otherwise than ci/golden has it: {differ:?}; --record if that is meant").into()
        );
    }
    let refused = refusals(&helm, &chart, &fs::read_to_string(ci.join("refusals.txt"))?)?;
    println!("chart: {} values files linted, rendered and taken over from before, {refused} refusals", VALUES.len());
    let upgrades =
        lookup::upgrades(&helm, &chart, &fs::read_to_string(ci.join("upgrades.txt"))?, &scratch.join("home"))?;
    println!("chart: {upgrades} upgrades, refused or taken by what is there");
    match alerts::promtool() {
        Ok(promtool) => {
            let rendered = fs::read_to_string(scratch.join(format!("{WATCHED}.yaml")))?;
            let count = alerts::hold(&promtool, &rendered, &ci.join("alerts.yaml"), &scratch)?;
            println!("chart: {count} alerts, each raised by what it is about");
            Ok(Vec::new())
        }
        Err(why) => {
            let skipped = format!("alerts: {why}");
            println!("SKIPPED {skipped}");
            Ok(vec![skipped])
        }
    }
}

/// The chart as `helm upgrade --reuse-values` has it on a release of its first version: with the values of that time.
///
/// # Errors
/// It can't be copied.
fn earlier(chart: &Path, scratch: &Path) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let copy = scratch.join("earlier");
    if copy.exists() {
        fs::remove_dir_all(&copy)?;
    }
    fs::create_dir_all(&copy)?;
    sh::output(sh::program(
        "cp",
        chart,
        &["-r", "--", ".", copy.to_str().ok_or("the target directory's path is not text")?],
    ))?;
    fs::copy(chart.join("ci").join(EARLIEST), copy.join("values.yaml"))?;
    Ok(copy)
}

/// The program.
pub(crate) fn helm() -> Result<PathBuf, Box<dyn std::error::Error>> {
    helm::built()
}

/// What the chart makes of these values.
pub(crate) fn render(helm: &Path, chart: &Path, values: &str, namespace: &str) -> Result<Vec<u8>, String> {
    let values = format!("--values=ci/{values}-values.yaml");
    let namespace = format!("--namespace={namespace}");
    sh::output(helm_with(helm, chart, &["template", "release", ".", &namespace, KUBE, &values]))
}

/// helm, run in the chart's directory.
pub(crate) fn helm_with(helm: &Path, chart: &Path, args: &[&str]) -> std::process::Command {
    sh::program(helm.to_str().unwrap_or("helm"), chart, args)
}

/// What differs between two files, without their names.
fn difference(old: &Path, new: &Path) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut diff = std::process::Command::new("diff");
    let output = diff.args(["-U2", "--label=default", "--label=this"]).args([old, new]).output()?;
    // 1 says that they differ.
    match output.status.code() {
        Some(0 | 1) => Ok(output.stdout),
        _ => Err(format!("diff: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

/// Tries each line; gives their number.
fn refusals(helm: &Path, chart: &Path, text: &str) -> Result<usize, Box<dyn std::error::Error>> {
    let mut count = 0;
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (set, part) = line.split_once("=> ").ok_or_else(|| format!("refusals.txt: {line:?} has no =>"))?;
        let set = format!("--set={}", set.trim());
        let output = helm_with(helm, chart, &["template", "release", ".", KUBE, &set]).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return Err(format!("{set}: it was taken").into());
        }
        if !said.contains(part.trim()) {
            return Err(format!("{set}: refused without {part:?}:\n{said}").into());
        }
        count += 1;
    }
    Ok(count)
}
