//! A server that a file of `packaging/` starts, with the places of this machine in place of those in the file.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take before the test has failed: two cores are shared by much.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Ended whatever happens.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn start(dir: &Path, name: &str, arguments: &[String]) -> Self {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_rusd"))
            .args(arguments)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("rusd starts");
        Self { child, log }
    }

    /// Asks until it is so.
    pub(crate) fn wait(&mut self, what: &str, mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            let ended = self.child.try_wait().expect("a child of ours");
            assert!(ended.is_none() && begun.elapsed() < PATIENCE, "{what}: {ended:?}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Replaces each of the left by the right, in one go: what was put in isn't looked at again.
pub(crate) fn replaced(text: &str, by: &[(String, String)]) -> String {
    let (mut done, mut rest) = (String::new(), text);
    while let Some(next) = rest.chars().next() {
        let found = by.iter().find_map(|(from, to)| rest.strip_prefix(from.as_str()).map(|rest| (to, rest)));
        match found {
            Some((to, after)) => {
                done.push_str(to);
                rest = after;
            }
            None => {
                done.push(next);
                rest = &rest[next.len_utf8()..];
            }
        }
    }
    done
}

/// The status that a page answers with.
pub(crate) fn page(port: u16, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(15))).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: kube-probe/1.37\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}
