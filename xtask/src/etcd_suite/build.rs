//! The suite's program and what it needs beside it, under `target/etcd-suite`.
//!
//! ```text
//! go.mod, go.sum ─► go test -c ─► common.test       (again when the stamp no longer holds)
//! the module's certificates ─► fixtures             (a link into Go's cache)
//! rusd or etcd, with etcd's tools ─► rusd/ or etcd/ (links by the names that the suite looks for)
//! ```

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::go_command;
use crate::{peers, sh};

/// The suite; part of its module.
const PACKAGE: &str = "go.etcd.io/etcd/tests/v3/common";
const MODULE: &str = "go.etcd.io/etcd/tests/v3";

type Fault = Box<dyn std::error::Error>;

/// What was built.
pub(super) struct Suite {
    /// The directory of all this.
    pub(super) dir: PathBuf,
    /// All of its tests.
    pub(super) program: PathBuf,
    pub(super) certificates: PathBuf,
    /// Where it runs: some tests look for the certificates beside this.
    pub(super) start: PathBuf,
}

/// Builds the suite unless it is there.
///
/// # Errors
/// When Go or the module can't be had.
pub(super) fn suite() -> Result<Suite, Fault> {
    let dir = sh::target().join("etcd-suite");
    let (program, certificates, start) = (dir.join("common.test"), dir.join("fixtures"), dir.join("common"));
    fs::create_dir_all(&start)?;
    let suite = Suite { dir, program, certificates, start };
    let module = sh::root().join("xtask/etcd-suite");
    let mut stamp = fs::read(module.join("go.mod"))?;
    stamp.extend(fs::read(module.join("go.sum"))?);
    let stamped = suite.dir.join("stamp");
    if !suite.program.is_file() || fs::read(&stamped).ok().as_ref() != Some(&stamp) {
        let program = suite.program.to_str().ok_or("the target directory's path is not text")?;
        // Not vetted: it is others' source.
        let flags = ["-mod=readonly", "-tags=e2e", "-trimpath", "-buildvcs=false", "-vet=off"];
        sh::run(go_command(&[&["test", "-c"], &flags[..], &["-o", program, PACKAGE]].concat()))?;
        fs::write(stamped, stamp)?;
    }
    let module = sh::output(go_command(&["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", MODULE]))?;
    let module = String::from_utf8(module)?;
    let certificates = Path::new(module.trim()).join("fixtures");
    if !certificates.is_dir() {
        // It was built elsewhere, or Go's cache was cleaned.
        sh::run(go_command(&["mod", "download", MODULE]))?;
    }
    link(&certificates, &suite.certificates)?;
    Ok(suite)
}

/// A directory in which `etcd` is the server to be tested.
pub(super) fn programs(side: &str, rusd: Option<&Path>) -> Result<PathBuf, Fault> {
    peers::run(&[])?;
    let server = match (side, rusd) {
        ("etcd", _) => peers::directory().join("etcd"),
        (_, Some(path)) => path.canonicalize()?,
        (_, None) => {
            sh::run(sh::cargo(&["build", "--package", "rusd"]))?;
            sh::target().join("debug/rusd")
        }
    };
    let dir = sh::target().join("etcd-suite").join(side);
    fs::create_dir_all(&dir)?;
    link(&server, &dir.join("etcd"))?;
    for tool in ["etcdctl", "etcdutl"] {
        link(&peers::directory().join(tool), &dir.join(tool))?;
    }
    Ok(dir)
}

fn link(target: &Path, path: &Path) -> std::io::Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        fs::remove_file(path)?;
    }
    symlink(target, path)
}

/// The pattern of one part of the tests that `pattern` names: every so-manieth, so that the parts are alike.
pub(super) fn part(suite: &Suite, pattern: &str, (i, n): (usize, usize)) -> Result<String, Fault> {
    let mut list = std::process::Command::new(&suite.program);
    list.args(["-test.list", pattern]).current_dir(&suite.start);
    let names = String::from_utf8(sh::output(list)?)?;
    Ok(every(names.lines().filter(|line| line.starts_with("Test")), i, n))
}

fn every<'a>(names: impl Iterator<Item = &'a str>, i: usize, n: usize) -> String {
    let names: Vec<_> = names.skip(i - 1).step_by(n).collect();
    format!("^({})$", names.join("|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_together_are_the_whole() {
        let names = || ["TestA", "TestB", "TestC", "TestD", "TestE"].into_iter();
        assert_eq!(every(names(), 1, 2), "^(TestA|TestC|TestE)$");
        assert_eq!(every(names(), 2, 2), "^(TestB|TestD)$");
        assert_eq!(every(names(), 1, 1), "^(TestA|TestB|TestC|TestD|TestE)$");
    }
}
