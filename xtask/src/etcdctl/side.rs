//! A fresh server, or a cluster of them, and the tools pointed at it. Ended at drop.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::{peers, sh};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const READY_MAX: Duration = Duration::from_secs(30);
/// How long a watch may be silent before it counts as told.
const SILENCE: Duration = Duration::from_millis(700);
/// How long the first of its lines may take.
const FIRST: Duration = Duration::from_secs(10);

/// A server under a name.
pub(super) struct Side {
    pub(super) name: &'static str,
    pub(super) dir: PathBuf,
    /// Of all members, with commas.
    endpoints: String,
    children: Vec<Child>,
}

/// What a tool printed, and whether it succeeded.
pub(super) struct Answer {
    pub(super) ok: bool,
    pub(super) out: String,
    pub(super) err: String,
}

impl Answer {
    /// Both outputs.
    pub(super) fn text(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

/// The next port that nobody listens on, below the range that the kernel takes for outgoing connections: one
/// from that range may be gone before the server binds it, and a member would be missing.
fn port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two sessions at a time begin at different places.
    let first = u16::try_from(std::process::id() % 15_000)?;
    for _ in 0..1_000 {
        let port = 14_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 15_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no port is free below 29000".into())
}

impl Side {
    /// Starts `program` on an empty directory and waits until it serves.
    pub(super) fn start(name: &'static str, program: &Path, flags: &[String]) -> Result<Self> {
        let dir = sh::target().join("etcdctl").join(name);
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
        Self::on(name, program, dir, flags)
    }

    /// The same on a directory as it is.
    pub(super) fn on(name: &'static str, program: &Path, dir: PathBuf, flags: &[String]) -> Result<Self> {
        Self::members(name, program, dir, &["default"], flags)
    }

    /// Starts members with these names on a directory.
    pub(super) fn members(
        name: &'static str,
        program: &Path,
        dir: PathBuf,
        names: &[&str],
        flags: &[String],
    ) -> Result<Self> {
        let ports: Vec<(u16, u16)> = names.iter().map(|_| Ok((port()?, port()?))).collect::<Result<_>>()?;
        let peers = names.iter().zip(&ports).map(|(name, (_, peer))| format!("{name}=http://127.0.0.1:{peer}"));
        let cluster = peers.collect::<Vec<_>>().join(",");
        let endpoints = ports.iter().map(|(client, _)| format!("127.0.0.1:{client}")).collect::<Vec<_>>().join(",");
        let mut side = Self { name, dir, endpoints, children: Vec::new() };
        for (at, (member, (client, peer))) in names.iter().zip(&ports).enumerate() {
            // Alone, it lies where it always lay: a restored directory is found there.
            let own = |what: &str| if at == 0 { what.to_owned() } else { format!("{what}{at}") };
            let log = File::options().create(true).append(true).open(side.dir.join(own("log")))?;
            let mut all = vec![
                format!("--name={member}"),
                format!("--data-dir={}", side.dir.join(own("data")).display()),
                format!("--listen-client-urls=http://127.0.0.1:{client}"),
                format!("--advertise-client-urls=http://127.0.0.1:{client}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-cluster={cluster}"),
            ];
            all.extend_from_slice(flags);
            let child = Command::new(program)
                .args(&all)
                .current_dir(&side.dir)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
                .map_err(|error| format!("{} does not start: {error}", program.display()))?;
            side.children.push(child);
        }
        let begun = Instant::now();
        while !side.ctl("endpoint health --command-timeout=1s", "")?.ok {
            if begun.elapsed() > READY_MAX {
                return Err(format!("{name} doesn't serve; its log is {}", side.dir.join("log").display()).into());
            }
        }
        Ok(side)
    }

    fn etcdctl(&self, line: &str) -> Command {
        let mut command = Command::new(peers::directory().join("etcdctl"));
        command.env("ETCDCTL_ENDPOINTS", &self.endpoints).current_dir(&self.dir).args(line.split_whitespace());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs `etcdctl` with the words of `line` and gives it `input`.
    pub(super) fn ctl(&self, line: &str, input: &str) -> Result<Answer> {
        finish(self.etcdctl(line), input)
    }

    /// Runs `etcdutl`.
    pub(super) fn utl(&self, line: &str) -> Result<Answer> {
        let mut command = Command::new(peers::directory().join("etcdutl"));
        command.current_dir(&self.dir).args(line.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        finish(command, "")
    }

    /// Runs an `etcdctl` that never ends by itself, until it has nothing more to say.
    pub(super) fn watch(&self, line: &str) -> Result<String> {
        let mut child = self.etcdctl(line).spawn()?;
        let stdout = child.stdout.take().ok_or("no output")?;
        let (tell, told) = mpsc::channel();
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let mut text = String::new();
        let mut wait = FIRST;
        while let Ok(line) = told.recv_timeout(wait) {
            text.push_str(&line);
            text.push('\n');
            wait = SILENCE;
        }
        child.kill()?;
        child.wait()?;
        drop(told);
        reader.join().map_err(|_| "the reader panicked")?;
        Ok(text)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Both fail only if it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn finish(mut command: Command, input: &str) -> Result<Answer> {
    let mut child = command.spawn().map_err(|error| format!("{:?} does not start: {error}", command.get_program()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that doesn't read it is none the worse.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Answer { ok: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) })
}
