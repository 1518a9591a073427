//! A server under measurement: started on its core, asked of the kernel, ended by its id.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::h2::{Event, Pool, RANGE};
use crate::machine;
use crate::proto::Message;

/// Ticks of a second in `/proc/PID/stat`.
const TICKS_PER_SEC: f64 = 100.0;
/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(120);
/// How long an orderly stop may take.
const STOP_MAX: Duration = Duration::from_secs(20);

/// One of the servers that are compared.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    /// Its column.
    pub(crate) name: &'static str,
    /// Its program.
    pub(crate) program: PathBuf,
    /// Its own flags.
    pub(crate) flags: &'static [&'static str],
}

/// A running one. Killed and its data removed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Where clients go.
    pub(crate) address: SocketAddr,
    dir: PathBuf,
    command: Vec<String>,
    side: Side,
    /// From the start of the process to the first linearizable read.
    pub(crate) ready_after: Duration,
}

impl Server {
    /// Starts one with an empty directory below `scratch`, and waits until it answers.
    ///
    /// # Errors
    /// When it can't be started or doesn't answer.
    pub(crate) fn start(side: &Side, scratch: &Path, flags: &[&str]) -> io::Result<Self> {
        let dir = scratch.join(format!("{}-data", side.name));
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(scratch)?;
        let (client, peer) = (free_port()?, free_port()?);
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let mut command = vec![
            format!("--data-dir={}", dir.display()),
            format!("--listen-client-urls={}", url(client)),
            format!("--advertise-client-urls={}", url(client)),
            format!("--listen-peer-urls={}", url(peer)),
            format!("--initial-advertise-peer-urls={}", url(peer)),
            format!("--initial-cluster=default={}", url(peer)),
            "--quota-backend-bytes=17179869184".to_owned(),
            "--log-level=warn".to_owned(),
        ];
        command.extend(side.flags.iter().chain(flags).map(|flag| (*flag).to_owned()));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, client));
        let (child, ready_after) = launch(side, &command, scratch, address)?;
        Ok(Self { child, address, dir, command, side: side.clone(), ready_after })
    }

    /// Kills it without warning and starts it on the same data; the time to the first read is new.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub(crate) fn restart_after_kill(&mut self, scratch: &Path) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        (self.child, self.ready_after) = launch(&self.side, &self.command, scratch, self.address)?;
        Ok(())
    }

    /// CPU seconds used so far.
    pub(crate) fn cpu_secs(&self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields: Vec<&str> = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        (ticks(11) + ticks(12)) / TICKS_PER_SEC
    }

    /// Resident memory now, in MiB.
    pub(crate) fn resident_mib(&self) -> f64 {
        self.status_kib("VmRSS:") / 1024.0
    }

    /// The most that it ever was, in MiB.
    pub(crate) fn peak_mib(&self) -> f64 {
        self.status_kib("VmHWM:") / 1024.0
    }

    fn status_kib(&self, name: &str) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
    }

    /// What its directory takes on the disk, in MiB.
    pub(crate) fn disk_mib(&self) -> f64 {
        disk_bytes(&self.dir) as f64 / f64::from(1 << 20)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may be gone already; the wait below tells.
            let _ = kill_process(pid, Signal::TERM);
        }
        let until = Instant::now() + STOP_MAX;
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            eprintln!("{} doesn't stop on SIGTERM: killed", self.side.name);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn launch(side: &Side, command: &[String], scratch: &Path, address: SocketAddr) -> io::Result<(Child, Duration)> {
    let log = File::create(scratch.join(format!("{}.log", side.name)))?;
    machine::pin(machine::SERVER_CORE)?;
    let begun = Instant::now();
    let child = Command::new(&side.program)
        .args(command)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .map_err(|error| io::Error::other(format!("{}: {error}", side.program.display())));
    machine::pin(machine::GENERATOR_CORE)?;
    let mut child = child?;
    while begun.elapsed() < START_MAX {
        if answers(address) {
            return Ok((child, begun.elapsed()));
        }
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!("{} ended at its start: {status}; see its log", side.name)));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill()?;
    child.wait()?;
    Err(io::Error::other(format!("{} doesn't answer; see its log", side.name)))
}

/// Whether a linearizable read is answered within a second.
fn answers(address: SocketAddr) -> bool {
    let Ok(mut pool) = Pool::open(address, 1) else { return false };
    let mut message = Message::default();
    pool.sender(0).call(RANGE, message.clear().bytes(1, b"x").finish(), 0, false);
    let begun = Instant::now();
    let mut answer = None;
    while answer.is_none() && begun.elapsed() < Duration::from_secs(1) {
        let turn = pool.turn(Duration::from_millis(5), |_, event| {
            if let Event::End { ok, .. } = event {
                answer = Some(ok);
            }
        });
        if turn.is_err() {
            return false;
        }
    }
    answer == Some(true)
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn disk_bytes(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk_bytes(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
