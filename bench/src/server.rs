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

/// What a load goes to.
pub(crate) trait Target {
    /// Where its connections go, one after the other.
    fn addresses(&self) -> Vec<SocketAddr>;

    /// CPU seconds used so far, by all processes of it.
    fn cpu_secs(&self) -> f64;
}

impl Target for Server {
    fn addresses(&self) -> Vec<SocketAddr> {
        vec![self.address]
    }

    fn cpu_secs(&self) -> f64 {
        self.cpu_secs()
    }
}

/// A running one. Killed and its data removed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Where clients go.
    pub(crate) address: SocketAddr,
    dir: PathBuf,
    log: PathBuf,
    command: Vec<String>,
    side: Side,
    begun: Instant,
    /// From the start of the process to the first linearizable read.
    pub(crate) ready_after: Duration,
}

impl Server {
    /// Starts one with an empty directory below `scratch`, and waits until it answers.
    ///
    /// # Errors
    /// When it can't be started or doesn't answer.
    pub(crate) fn start(side: &Side, scratch: &Path, flags: &[&str]) -> io::Result<Self> {
        let mut servers = Self::start_all(side, scratch, &["default"], flags)?;
        servers.pop().ok_or_else(|| io::Error::other("no server was started"))
    }

    /// Starts the members of one cluster with empty directories, and waits until each answers.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub(crate) fn start_all(side: &Side, scratch: &Path, names: &[&str], flags: &[&str]) -> io::Result<Vec<Self>> {
        fs::create_dir_all(scratch)?;
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let places =
            names.iter().map(|name| Ok((*name, free_port()?, free_port()?))).collect::<io::Result<Vec<_>>>()?;
        let cluster: Vec<_> = places.iter().map(|(name, _, peer)| format!("{name}={}", url(*peer))).collect();
        let mut servers = Vec::new();
        for (name, client, peer) in places {
            let dir = scratch.join(format!("{}-{name}-data", side.name));
            if dir.exists() {
                fs::remove_dir_all(&dir)?;
            }
            let mut command = vec![
                format!("--name={name}"),
                format!("--data-dir={}", dir.display()),
                format!("--listen-client-urls={}", url(client)),
                format!("--advertise-client-urls={}", url(client)),
                format!("--listen-peer-urls={}", url(peer)),
                format!("--initial-advertise-peer-urls={}", url(peer)),
                format!("--initial-cluster={}", cluster.join(",")),
                "--quota-backend-bytes=17179869184".to_owned(),
                "--log-level=warn".to_owned(),
            ];
            command.extend(side.flags.iter().chain(flags).map(|flag| (*flag).to_owned()));
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, client));
            let log = scratch.join(format!("{}-{name}.log", side.name));
            let (side, begun) = (side.clone(), Instant::now());
            let child = launch(&side, &command, &log)?;
            servers.push(Self { child, address, dir, log, command, side, begun, ready_after: Duration::ZERO });
        }
        servers.iter_mut().try_for_each(Self::wait_ready)?;
        Ok(servers)
    }

    /// Kills it without warning and starts it on the same data; the time to the first read is new.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub(crate) fn restart_after_kill(&mut self) -> io::Result<()> {
        self.kill()?;
        self.relaunch()?;
        self.wait_ready()
    }

    /// Ends it without warning.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Asks it to end, and doesn't wait.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn ask_to_end(&self) -> io::Result<()> {
        let none = || io::Error::other("a process without a number");
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).ok_or_else(none)?;
        Ok(kill_process(pid, Signal::TERM)?)
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn wait_end(&mut self) -> io::Result<()> {
        self.child.wait().map(drop)
    }

    /// Starts it again on the same data, and doesn't wait.
    ///
    /// # Errors
    /// When it can't be started.
    pub(crate) fn relaunch(&mut self) -> io::Result<()> {
        self.begun = Instant::now();
        self.child = launch(&self.side, &self.command, &self.log)?;
        Ok(())
    }

    /// Waits until it answers.
    ///
    /// # Errors
    /// When it ends or doesn't.
    pub(crate) fn wait_ready(&mut self) -> io::Result<()> {
        while self.begun.elapsed() < START_MAX {
            if answers(self.address) {
                self.ready_after = self.begun.elapsed();
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("ended at its start: {status}; see {}", self.log.display())));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(io::Error::other(format!("doesn't answer; see {}", self.log.display())))
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

    /// What of it is no file's, in MiB: what it allocated.
    pub(crate) fn anonymous_mib(&self) -> f64 {
        self.status_kib("RssAnon:") / 1024.0
    }

    /// The most that it ever was, in MiB.
    pub(crate) fn peak_mib(&self) -> f64 {
        self.status_kib("VmHWM:") / 1024.0
    }

    /// Bytes that it has given to the disk to write since its start, in MiB: as pages, each as often as it was.
    pub(crate) fn written_mib(&self) -> f64 {
        let text = fs::read_to_string(format!("/proc/{}/io", self.child.id())).unwrap_or_default();
        let bytes = text.lines().find_map(|line| line.strip_prefix("write_bytes:")?.trim().parse::<f64>().ok());
        bytes.unwrap_or(0.0) / f64::from(1 << 20)
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

fn launch(side: &Side, command: &[String], log: &Path) -> io::Result<Child> {
    let log = File::create(log)?;
    machine::pin(machine::SERVER_CORE)?;
    let child = Command::new(&side.program)
        .args(command)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .map_err(|error| io::Error::other(format!("{}: {error}", side.program.display())));
    machine::pin(machine::GENERATOR_CORE)?;
    child
}

/// Whether a linearizable read is answered within a second.
fn answers(address: SocketAddr) -> bool {
    let Ok(mut pool) = Pool::open(&[address], 1) else { return false };
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
