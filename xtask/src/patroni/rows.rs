//! Rows that are written all the while, and the list of those that were acknowledged.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Result;
use super::install::Tools;
use super::node::login;
use crate::sh;

const PROGRAM: &str = "tests/clients/patroni/rows.py";

/// The writer; killed at drop.
pub(super) struct Rows {
    python: PathBuf,
    file: PathBuf,
    child: Child,
}

impl Rows {
    /// Writes through whichever of the ports is the primary's.
    pub(super) fn start(tools: &Tools, run: &Path, ports: &[u16]) -> Result<Self> {
        let python = tools.venv.join("python");
        let file = run.join("acknowledged");
        fs::write(&file, "")?;
        let log = File::create(run.join("rows.log"))?;
        let child = Command::new(&python)
            .current_dir(sh::root())
            .args([PROGRAM, "write"])
            .arg(&file)
            .args(ports.iter().map(u16::to_string))
            .envs(login())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self { python, file, child })
    }

    /// When each row was acknowledged, since 1970.
    fn times(&self) -> Result<Vec<Duration>> {
        let text = fs::read_to_string(&self.file)?;
        let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
        let times = whole.filter_map(|line| line.split(' ').nth(1)?.parse().ok().map(Duration::from_secs_f64));
        Ok(times.collect())
    }

    /// How many rows were acknowledged.
    pub(super) fn count(&self) -> Result<usize> {
        Ok(self.times()?.len())
    }

    /// The longest time without an acknowledged row, from `since` until now.
    pub(super) fn longest_pause(&self, since: SystemTime) -> Result<Duration> {
        let since = since.duration_since(UNIX_EPOCH)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let mut last = since;
        let mut longest = Duration::ZERO;
        for at in self.times()?.into_iter().filter(|at| *at > since).chain([now]) {
            longest = longest.max(at.saturating_sub(last));
            last = at;
        }
        Ok(longest)
    }

    /// No more of them.
    pub(super) fn end(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether a node has all that were acknowledged; what it says of it.
    pub(super) fn check(&self, port: u16) -> Result<String> {
        let mut check = Command::new(&self.python);
        check.current_dir(sh::root()).args([PROGRAM, "check"]).arg(&self.file).arg(port.to_string()).envs(login());
        Ok(String::from_utf8_lossy(&sh::output(check)?).trim().to_owned())
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        self.end();
    }
}
