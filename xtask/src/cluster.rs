//! `cargo xtask cluster [N] [--dir PATH] [--base-port P] [--rusd PATH]`: a local cluster to play with.
//!
//! ```text
//! flags of each member ─► processes, each with its log ─► all know a leader ─► how to use it, printed
//! a member is killed ─► started again a little later
//! Ctrl-C, SIGTERM ─► SIGTERM to one after the other, the last one first
//! ```
//! With `--dir` the data stays, and the same command goes on with it; without, it goes with the cluster.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::StatusRequest;
use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::Endpoint;

use crate::{Outcome, peers, sh};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const MEMBERS: u16 = 3;
const MEMBERS_MAX: u16 = 9;
const BASE_PORT: u16 = 12379;
/// Ports of one member: clients, members.
const PORTS: u16 = 2;
const READY_MAX: Duration = Duration::from_secs(60);
/// How long a member that was killed stays away.
const AGAIN: Duration = Duration::from_secs(5);
const STOP_MAX: Duration = Duration::from_secs(20);

pub(crate) fn run(args: &[String]) -> Outcome {
    let word = args.first().filter(|arg| !arg.starts_with("--"));
    let count = word.map_or(Ok(MEMBERS), |word| word.parse())?;
    if !(1..=MEMBERS_MAX).contains(&count) {
        return Err(format!("{count} members: 1 to {MEMBERS_MAX} are possible here").into());
    }
    let base = sh::option(args, "base-port")?.map_or(Ok(BASE_PORT), |port| port.parse())?;
    base.checked_add(count * PORTS).ok_or_else(|| format!("--base-port {base}: ports end at 65535"))?;
    let rusd = match sh::option(args, "rusd")? {
        Some(path) => PathBuf::from(path),
        None => {
            sh::run(sh::cargo(&["build", "--package", "rusd"]))?;
            sh::target().join("debug/rusd")
        }
    };
    let (dir, keeps) = match sh::option(args, "dir")? {
        Some(dir) => (std::path::absolute(dir)?, true),
        None => (sh::target().join("cluster").join(std::process::id().to_string()), false),
    };
    fs::create_dir_all(&dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let mut cluster = Cluster { members: Vec::new() };
        let ended = cluster.run(&rusd, &dir, base, count).await;
        cluster.stop().await;
        ended
    });
    if keeps {
        println!("the data stays in {}", dir.display());
    } else if ended.is_ok() {
        fs::remove_dir_all(&dir)?;
    }
    ended
}

struct Member {
    name: String,
    client: String,
    log: PathBuf,
    /// Starts it, and starts it again.
    start: Command,
    child: Child,
}

impl Member {
    fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    fn tell_end(&self, status: ExitStatus) -> String {
        format!("{} ended with {status}: see {}", self.name, self.log.display())
    }
}

/// The processes; whatever is left of them is killed at drop.
struct Cluster {
    members: Vec<Member>,
}

impl Cluster {
    async fn run(&mut self, rusd: &Path, dir: &Path, base: u16, count: u16) -> Result<()> {
        let ports: Vec<(u16, u16)> = (0..count).map(|at| (base + at * PORTS, base + at * PORTS + 1)).collect();
        for port in ports.iter().flat_map(|(client, peer)| [*client, *peer]) {
            TcpListener::bind(("127.0.0.1", port))
                .map_err(|error| format!("port {port}: {error}; choose others with --base-port"))?;
        }
        let all: Vec<String> =
            ports.iter().enumerate().map(|(at, (_, peer))| format!("m{}=http://127.0.0.1:{peer}", at + 1)).collect();
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        for (at, (client, peer)) in ports.iter().enumerate() {
            self.members.push(start(rusd, dir, at + 1, [*client, *peer], &all.join(","))?);
        }
        tokio::select! {
            ready = self.ready() => ready?,
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        }
        self.tell(dir);
        tokio::select! {
            failed = self.watch_over() => failed,
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        }
    }

    /// Waits until all members know a leader.
    async fn ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        for at in 0..self.members.len() {
            while !knows_a_leader(&self.members[at].client).await {
                if let Some(status) = self.members[at].ended()? {
                    return Err(self.members[at].tell_end(status).into());
                }
                if begun.elapsed() > READY_MAX {
                    return Err(format!("no leader after {READY_MAX:?}: see {}", self.members[at].log.display()).into());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    /// Starts again whoever is killed, a little later; one that ends by itself has its reason in its log.
    async fn watch_over(&mut self) -> Result<()> {
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            for member in &mut self.members {
                let Some(status) = member.ended()? else { continue };
                if status.signal().is_none() {
                    return Err(member.tell_end(status).into());
                }
                println!("{}; it comes back in {AGAIN:?}", member.tell_end(status));
                tokio::time::sleep(AGAIN).await;
                member.child = member.start.spawn()?;
                println!("{} runs again, pid {}", member.name, member.child.id());
            }
        }
    }

    fn tell(&self, dir: &Path) {
        println!("{} members serve; their data is in {}\n", self.members.len(), dir.display());
        for Member { name, client, log, child, .. } in &self.members {
            println!("  {name}  {client}  pid {}  log {}", child.id(), log.display());
        }
        let etcdctl = peers::directory().join("etcdctl");
        let etcdctl = if etcdctl.is_file() { etcdctl } else { "etcdctl".into() };
        let endpoints: Vec<_> = self.members.iter().map(|member| member.client.as_str()).collect();
        println!("\nTo use it:\n  export ETCDCTL_ENDPOINTS={}", endpoints.join(","));
        for words in ["endpoint status --cluster -w table", "put key value", "get key", "member list"] {
            println!("  {} {words}", etcdctl.display());
        }
        println!("\nTo try its patience: kill -9 PID, kill -STOP PID. It comes back by itself. Ctrl-C ends all of it.");
    }

    /// Ends the members one after the other, so that each can hand over what it has.
    async fn stop(&mut self) {
        while let Some(mut member) = self.members.pop() {
            let begun = Instant::now();
            // A paused one hears it only after it goes on.
            for signal in [Signal::TERM, Signal::CONT] {
                let _ = kill_process(Pid::from_child(&member.child), signal);
            }
            while matches!(member.child.try_wait(), Ok(None)) && begun.elapsed() < STOP_MAX {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            println!("{} ended after {:.1} s", member.name, begun.elapsed().as_secs_f64());
            end(&mut member.child);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            end(&mut member.child);
        }
    }
}

fn end(child: &mut Child) {
    // Both fail only if it is gone already.
    let _ = child.kill();
    let _ = child.wait();
}

fn start(rusd: &Path, dir: &Path, number: usize, [client, peer]: [u16; 2], all: &str) -> Result<Member> {
    let name = format!("m{number}");
    let log = dir.join(format!("{name}.log"));
    let [client, peer] = [client, peer].map(|port| format!("http://127.0.0.1:{port}"));
    let file = File::options().create(true).append(true).open(&log)?;
    let mut start = Command::new(rusd);
    start
        .arg(format!("--name={name}"))
        .arg(format!("--data-dir={}", dir.join(&name).display()))
        .arg(format!("--listen-client-urls={client}"))
        .arg(format!("--advertise-client-urls={client}"))
        .arg(format!("--listen-peer-urls={peer}"))
        .arg(format!("--initial-advertise-peer-urls={peer}"))
        .arg(format!("--initial-cluster={all}"))
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        // The terminal's Ctrl-C is for us; they are ended in order.
        .process_group(0);
    let child = start.spawn().map_err(|error| format!("{} does not start: {error}", rusd.display()))?;
    Ok(Member { name, client, log, start, child })
}

async fn knows_a_leader(url: &str) -> bool {
    let asked = async {
        let channel = Endpoint::from_shared(url.to_owned()).ok()?.connect().await.ok()?;
        let status = MaintenanceClient::new(channel).status(StatusRequest {}).await.ok()?;
        (status.get_ref().leader != 0).then_some(())
    };
    matches!(tokio::time::timeout(Duration::from_secs(2), asked).await, Ok(Some(())))
}
