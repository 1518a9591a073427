//! A cluster of real processes on loopback: started, killed, paused, ended one by one; its files and
//! processes are gone at drop.
//!
//! ```text
//! Cluster::start(Program, n, flags) ─► ports, a proxy before each peer port (`net`) ─► n processes ─► a leader
//! ```
//! It works for the real etcd as well, so that both can be measured side by side.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use rusd_proto::etcdserverpb::{HashKvRequest, StatusRequest, StatusResponse};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::net::Net;
use crate::peers::peer;
use crate::ports;

/// How long anything that has to come may take; the machine may be busy with other tests.
pub(crate) const COMES_MAX: Duration = Duration::from_secs(60);
/// No call takes longer: above what a member waits for the others.
const CALL_MAX: Duration = Duration::from_secs(9);

/// Which server the members are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Etcd,
    Rusd,
}

struct Member {
    client: u16,
    flags: Vec<String>,
    /// Where its failpoints listen.
    #[cfg(feature = "failpoints")]
    failpoints: u16,
    child: Option<Child>,
}

/// The members, by number from 0, and the network between them.
pub(crate) struct Cluster {
    pub(crate) net: Net,
    program: PathBuf,
    dir: TempDir,
    members: Vec<Member>,
    /// Not in a test's way when it is asked for the leader.
    channels: Vec<Channel>,
}

impl Cluster {
    /// `count` rusd members with these flags besides; a leader is known to all of them.
    pub(crate) async fn rusd(count: usize, flags: &[&str]) -> Self {
        Self::start(Program::Rusd, count, flags, "").await.expect("rusd is built")
    }

    /// The same of either server. `None` if the real etcd isn't built (said loudly).
    pub(crate) async fn start(program: Program, count: usize, flags: &[&str], test: &str) -> Option<Self> {
        let program = match program {
            Program::Etcd => peer("etcd", test)?,
            Program::Rusd => PathBuf::from(env!("CARGO_BIN_EXE_rusd")),
        };
        let dir = TempDir::new().unwrap();
        let mut net = Net::new();
        let mut ports = Vec::new();
        for at in 0..count {
            let listen = ports::free();
            ports.push((listen, net.proxy(at, listen).await));
        }
        let urls = ports.iter().enumerate().map(|(at, (_, peer))| format!("m{at}=http://127.0.0.1:{peer}"));
        let all = urls.collect::<Vec<_>>().join(",");
        let member = |(at, (listen, advertised)): (usize, &(u16, u16))| {
            let client = ports::free();
            let mut own = vec![
                format!("--name=m{at}"),
                format!("--data-dir={}", dir.path().join(format!("m{at}")).display()),
                format!("--listen-client-urls=http://127.0.0.1:{client}"),
                format!("--advertise-client-urls=http://127.0.0.1:{client}"),
                format!("--listen-peer-urls=http://127.0.0.1:{listen}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{advertised}"),
                format!("--initial-cluster={all}"),
            ];
            own.extend(flags.iter().map(|flag| (*flag).to_owned()));
            Member {
                client,
                flags: own,
                #[cfg(feature = "failpoints")]
                failpoints: ports::free(),
                child: None,
            }
        };
        let members: Vec<_> = ports.iter().enumerate().map(member).collect();
        let channel = |member: &Member| {
            let url = format!("http://127.0.0.1:{}", member.client);
            Endpoint::from_shared(url).unwrap().timeout(CALL_MAX).tcp_nodelay(true).connect_lazy()
        };
        let channels = members.iter().map(channel).collect();
        let mut cluster = Self { net, program, dir, members, channels };
        for at in 0..count {
            cluster.spawn(at);
        }
        for at in 0..count {
            cluster.serves(at).await;
        }
        Some(cluster)
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn url(&self, member: usize) -> String {
        format!("http://127.0.0.1:{}", self.members[member].client)
    }

    /// A connection to one member, made anew by itself after the member was away.
    pub(crate) fn channel(&self, member: usize) -> Channel {
        self.channels[member].clone()
    }

    /// Starts one that isn't running, without waiting for anything.
    pub(crate) fn spawn(&mut self, member: usize) {
        self.spawn_with(member, &[]);
    }

    /// The same with these variables in its environment besides.
    pub(crate) fn spawn_with(&mut self, member: usize, variables: &[(&str, &str)]) {
        assert!(self.members[member].child.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(self.log_path(member)).unwrap();
        let mut command = Command::new(&self.program);
        #[cfg(feature = "failpoints")]
        command.env("GOFAIL_HTTP", format!("127.0.0.1:{}", self.members[member].failpoints));
        let child = command
            .args(&self.members[member].flags)
            .envs(variables.iter().copied())
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.net.is_process(child.id(), member);
        self.members[member].child = Some(child);
    }

    /// Starts one and waits until it serves.
    pub(crate) async fn restart(&mut self, member: usize) {
        self.spawn(member);
        self.serves(member).await;
    }

    /// Waits until a member answers and knows a leader.
    pub(crate) async fn serves(&mut self, member: usize) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.members[member].child.as_mut().expect("it was started").try_wait().unwrap() {
                panic!("m{member} ended with {status} instead of serving");
            }
            match self.status(member).await {
                Ok(status) if status.leader != 0 => return,
                Ok(status) => assert!(begun.elapsed() < COMES_MAX, "m{member} knows no leader: {status:?}"),
                Err(error) => assert!(begun.elapsed() < COMES_MAX, "m{member} doesn't serve: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn signal(&self, member: usize, signal: Signal) {
        let child = self.members[member].child.as_ref().expect("it was started");
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self, member: usize) {
        if let Some(mut child) = self.members[member].child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGSTOP.
    pub(crate) fn pause(&self, member: usize) {
        self.signal(member, Signal::STOP);
    }

    /// SIGCONT.
    pub(crate) fn resume(&self, member: usize) {
        self.signal(member, Signal::CONT);
    }

    /// Where a member's failpoints listen.
    #[cfg(feature = "failpoints")]
    pub(crate) fn failpoints(&self, member: usize) -> u16 {
        self.members[member].failpoints
    }

    /// SIGTERM; the exit is waited for.
    pub(crate) async fn terminate(&mut self, member: usize) -> ExitStatus {
        self.signal(member, Signal::TERM);
        self.ended(member).await
    }

    /// Waits for the end of a process.
    pub(crate) async fn ended(&mut self, member: usize) -> ExitStatus {
        let begun = Instant::now();
        loop {
            let child = self.members[member].child.as_mut().expect("it was started");
            if let Some(status) = child.try_wait().unwrap() {
                self.members[member].child = None;
                return status;
            }
            assert!(begun.elapsed() < COMES_MAX, "m{member} doesn't end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What a member says of itself, in a moment or not at all: it may be paused.
    pub(crate) async fn status(&self, member: usize) -> Result<StatusResponse, Status> {
        let mut client = MaintenanceClient::new(self.channel(member));
        let asked = tokio::time::timeout(Duration::from_secs(1), client.status(StatusRequest {})).await;
        asked.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer"))).map(tonic::Response::into_inner)
    }

    /// The member that says of itself that it leads, if none of a newer term does.
    pub(crate) async fn find_leader(&self) -> Option<usize> {
        let mut leaders = BTreeMap::new();
        for at in 0..self.len() {
            if self.members[at].child.is_some()
                && let Ok(status) = self.status(at).await
                && status.header.as_ref().is_some_and(|header| header.member_id == status.leader)
            {
                leaders.insert(status.raft_term, at);
            }
        }
        leaders.pop_last().map(|(_, at)| at)
    }

    /// Waits for a leader other than `old`.
    pub(crate) async fn leader_but(&self, old: Option<usize>) -> usize {
        let begun = Instant::now();
        loop {
            if let Some(leader) = self.find_leader().await
                && Some(leader) != old
            {
                return leader;
            }
            assert!(begun.elapsed() < COMES_MAX, "no leader but {old:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for a leader.
    pub(crate) async fn leader(&self) -> usize {
        self.leader_but(None).await
    }

    /// Waits until all members have come to the same entry, and checks that they hold the same.
    pub(crate) async fn agree(&self) {
        let begun = Instant::now();
        loop {
            let mut hashes = Vec::new();
            for at in 0..self.len() {
                let mut client = MaintenanceClient::new(self.channel(at));
                let hash = client.hash_kv(HashKvRequest::default()).await.map(tonic::Response::into_inner);
                let revision = |hash: &rusd_proto::etcdserverpb::HashKvResponse| {
                    (hash.header.as_ref().map(|header| header.revision), hash.compact_revision)
                };
                hashes.push(hash.map(|hash| (revision(&hash), hash.hash)));
            }
            let whole: Option<Vec<_>> = hashes.iter().map(|hash| hash.as_ref().ok()).collect();
            if let Some(whole) = whole
                && whole.iter().all(|hash| hash.0 == whole[0].0)
            {
                assert!(whole.iter().all(|hash| hash.1 == whole[0].1), "members differ: {whole:?}");
                return;
            }
            assert!(begun.elapsed() < COMES_MAX, "members don't come together: {hashes:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn log_path(&self, member: usize) -> PathBuf {
        self.dir.path().join(format!("m{member}.log"))
    }

    /// All that a member has said.
    pub(crate) fn log(&self, member: usize) -> String {
        fs::read_to_string(self.log_path(member)).unwrap_or_default()
    }

    /// Where a member's data is.
    pub(crate) fn data(&self, member: usize) -> PathBuf {
        self.dir.path().join(format!("m{member}"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in 0..self.len() {
            self.kill(member);
            let log = self.log(member);
            assert!(std::thread::panicking() || !log.contains("panicked"), "m{member} panicked:\n{log}");
            if std::thread::panicking() {
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("--- end of m{member}'s log\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
            }
        }
    }
}
