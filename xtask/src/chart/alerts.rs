//! The chart's alerts, held by Prometheus' own promtool: whether it can read them, and what raises each.
//!
//! ```text
//! PrometheusRule of the rendering `large` ─► its rules ─► promtool check rules
//!                                                     └► promtool test rules: ci/alerts.yaml, a day that is well and one that isn't
//! promtool: where programs are looked for, or taken out of Debian's package, of which nothing is installed
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Outcome, debian, sh, yaml};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const PROMTOOL: &str = "promtool";
/// What brings it. It would start a Prometheus where it is installed.
const PACKAGE: &str = "prometheus";

/// The program.
///
/// # Errors
/// Why it can't be had here.
pub(super) fn promtool() -> std::result::Result<PathBuf, String> {
    if debian::has(PROMTOOL) {
        return Ok(PROMTOOL.into());
    }
    let dir = sh::target().join("tools").join(PROMTOOL);
    let program = dir.join("usr/bin").join(PROMTOOL);
    if !program.is_file() {
        fetch(&dir).map_err(|error| format!("no {PROMTOOL} here: {error}"))?;
    }
    Ok(program)
}

/// Takes the package apart in `dir`.
fn fetch(dir: &Path) -> Outcome {
    fs::create_dir_all(dir)?;
    sh::output(sh::program("apt-get", dir, &["download", "--quiet", PACKAGE]))?;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            let package = path.to_str().ok_or("the target directory's path is not text")?;
            sh::output(sh::program("dpkg-deb", dir, &["--extract", package, "."]))?;
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Holds the rules of a rendering against a file of tests; gives their number.
///
/// # Errors
/// What promtool says.
pub(super) fn hold(promtool: &Path, rendered: &str, tests: &Path, scratch: &Path) -> Result<usize> {
    let objects = yaml::documents(rendered)?;
    let rules = objects.iter().find(|object| object["kind"] == "PrometheusRule").ok_or("there is no PrometheusRule")?;
    // JSON is YAML.
    fs::write(scratch.join("rules.yaml"), rules["spec"].to_string())?;
    // It looks for the rules beside the tests.
    fs::copy(tests, scratch.join("alerts.yaml"))?;
    let promtool = promtool.to_str().ok_or("the target directory's path is not text")?;
    for args in [["check", "rules", "rules.yaml"], ["test", "rules", "alerts.yaml"]] {
        sh::output(sh::program(promtool, scratch, &args))?;
    }
    let groups = rules["spec"]["groups"].as_array().into_iter().flatten();
    Ok(groups.map(|group| group["rules"].as_array().map_or(0, Vec::len)).sum())
}
