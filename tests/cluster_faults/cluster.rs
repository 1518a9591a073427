//! A cluster of real processes on loopback: started, killed, paused, ended one by one; its files and
//! processes are gone at drop.
//!
//! ```text
//! Setup (which program, how many, flags, where) ─► ports, a proxy before each peer port (`net`) ─► processes ─► a leader
//! ```
//! It works for the real etcd as well, so that both can be measured side by side. A member has a place, from 0, in
//! which another one may follow it (`replaced`), and a number that nobody else gets: that of its process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use rusd_proto::etcdserverpb::{
    HashKvRequest, MoveLeaderRequest, PutRequest, PutResponse, StatusRequest, StatusResponse,
};
use rustix::process::Signal;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::namespaces::Namespaces;
use crate::net::Net;
use crate::peers::peer;
use crate::ports;
use crate::process::{Place, Process};

/// How long anything that has to come may take; the machine may be busy with other tests.
pub(crate) const COMES_MAX: Duration = Duration::from_secs(60);

/// Of a story that an election would spoil which has nothing to do with it: a busy machine may hold up a heartbeat for a
/// second, hardly for four. Whatever waits for an election or for a quorum takes longer, by as much.
pub(crate) const CALM: [&str; 2] = ["--election-timeout=4000", "--heartbeat-interval=100"];
/// In which a member that hears of nobody asks for votes more than once, as it is [`CALM`].
pub(crate) const CALM_ELECTIONS: Duration = Duration::from_secs(10);

/// Whether a client asks again after this: an election loses what is under way, and a busy machine takes its time.
pub(crate) fn passes(status: &Status) -> bool {
    // What becomes of a connection that ends is told by various codes.
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown)
}

/// Asks until it is answered; only for what may be done twice.
pub(crate) async fn until_answered<T, F>(what: &str, mut ask: impl FnMut() -> F) -> T
where
    F: Future<Output = Result<T, Status>>,
{
    let begun = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(status) => assert!(passes(&status) && begun.elapsed() < COMES_MAX, "{what}: {status:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Which server the members are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Etcd,
    Rusd,
}

/// What a cluster is made of.
pub(crate) struct Setup<'a> {
    pub(crate) program: PathBuf,
    pub(crate) flags: &'a [&'a str],
    /// Where each member's data is; one place a member. `None` for the machine's own disk.
    pub(crate) data: Vec<Option<PathBuf>>,
    /// The members' own network, in the place of loopback and proxies.
    pub(crate) space: Option<Namespaces>,
}

impl<'a> Setup<'a> {
    /// `count` members of the `rusd` that is tested, with these flags besides.
    pub(crate) fn rusd(count: usize, flags: &'a [&'a str]) -> Self {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_rusd"));
        Self { program, flags, data: vec![None; count], space: None }
    }
}

/// Who is reached at a place now: the process's number and its connection.
pub(crate) type Doors = Arc<Mutex<Vec<(usize, Channel)>>>;

/// The members, by place from 0, and the network between them.
pub(crate) struct Cluster {
    // Ended before what they live on is taken away.
    members: Vec<Process>,
    doors: Doors,
    /// Processes that were made so far.
    made: usize,
    pub(crate) net: Net,
    /// The members' own network, if they have one.
    pub(crate) space: Option<Namespaces>,
    program: PathBuf,
    flags: Vec<String>,
    dir: TempDir,
}

impl Cluster {
    /// `count` rusd members with these flags besides; a leader is known to all of them.
    pub(crate) async fn rusd(count: usize, flags: &[&str]) -> Self {
        Self::start(Setup::rusd(count, flags)).await
    }

    /// The same of either server. `None` if the real etcd isn't built (said loudly).
    pub(crate) async fn of(program: Program, count: usize, flags: &[&str], test: &str) -> Option<Self> {
        let mut setup = Setup::rusd(count, flags);
        if program == Program::Etcd {
            setup.program = peer("etcd", test)?;
        }
        Some(Self::start(setup).await)
    }

    /// Starts what was set up; a leader is known to all of them.
    pub(crate) async fn start(setup: Setup<'_>) -> Self {
        let mut cluster = Self {
            members: Vec::new(),
            doors: Doors::default(),
            made: 0,
            net: Net::new(),
            space: setup.space,
            program: setup.program,
            flags: setup.flags.iter().map(|flag| (*flag).to_owned()).collect(),
            dir: TempDir::new().unwrap(),
        };
        for (at, data) in setup.data.into_iter().enumerate() {
            let process = cluster.make(at, data).await;
            cluster.doors.lock().unwrap().push((cluster.made - 1, process.channel.clone()));
            cluster.members.push(process);
        }
        let urls = cluster.members.iter().map(|member| format!("{}={}", member.name, member.place.peer[1]));
        let all = urls.collect::<Vec<_>>().join(",");
        for at in 0..cluster.len() {
            cluster.members[at].set_flag("initial-cluster", &all);
            cluster.spawn(at);
        }
        for at in 0..cluster.len() {
            cluster.serves(at).await;
        }
        cluster
    }

    /// A process for a place, with a name, ports and a directory that nobody had before.
    async fn make(&mut self, at: usize, data: Option<PathBuf>) -> Process {
        let name = format!("m{}", self.made);
        self.made += 1;
        let local = |port: u16| format!("http://127.0.0.1:{port}");
        let place = match &self.space {
            Some(space) => space.place(at),
            None => {
                let listen = ports::free();
                let advertised = self.net.proxy(at, listen).await;
                let peer = [local(listen), local(advertised)];
                Place {
                    client: local(ports::free()),
                    peer,
                    #[cfg(feature = "failpoints")]
                    failpoints: ports::free(),
                }
            }
        };
        let data = data.unwrap_or_else(|| self.dir.path().join(&name));
        let mut process = Process::new(&name, self.dir.path(), &data, place, &self.program, &self.flags);
        process.within = self.space.as_ref().map(|space| space.within(at)).unwrap_or_default();
        process
    }

    /// A process that isn't running, to be a new member in the place of another, with a directory of its own.
    pub(crate) async fn newcomer(&mut self, at: usize) -> Process {
        self.make(at, None).await
    }

    /// Puts one in a place more.
    pub(crate) fn push(&mut self, process: Process) {
        self.doors.lock().unwrap().push((self.made - 1, process.channel.clone()));
        self.members.push(process);
    }

    /// Puts a process in a place; gives the one that was there.
    pub(crate) fn replaced(&mut self, at: usize, by: Process) -> Process {
        self.doors.lock().unwrap()[at] = (self.made - 1, by.channel.clone());
        std::mem::replace(&mut self.members[at], by)
    }

    /// Who is reached where, now and later.
    pub(crate) fn doors(&self) -> Doors {
        self.doors.clone()
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn url(&self, member: usize) -> String {
        self.members[member].place.client.clone()
    }

    /// A connection to one member, made anew by itself after the member was away.
    pub(crate) fn channel(&self, member: usize) -> Channel {
        self.members[member].channel.clone()
    }

    /// The process in a place.
    pub(crate) fn process(&mut self, member: usize) -> &mut Process {
        &mut self.members[member]
    }

    /// Starts one that isn't running, without waiting for anything.
    pub(crate) fn spawn(&mut self, member: usize) {
        self.spawn_with(member, &[]);
    }

    /// The same with these variables in its environment besides.
    pub(crate) fn spawn_with(&mut self, member: usize, variables: &[(&str, &str)]) {
        let pid = self.members[member].spawn(variables);
        self.net.is_process(pid, member);
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
            if let Some(status) = self.members[member].has_ended() {
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

    /// SIGKILL.
    pub(crate) fn kill(&mut self, member: usize) {
        self.members[member].kill();
    }

    /// SIGSTOP.
    pub(crate) fn pause(&self, member: usize) {
        self.members[member].signal(Signal::STOP);
    }

    /// SIGCONT.
    pub(crate) fn resume(&self, member: usize) {
        self.members[member].signal(Signal::CONT);
    }

    /// Where a member's failpoints listen.
    #[cfg(feature = "failpoints")]
    pub(crate) fn failpoints(&self, member: usize) -> u16 {
        self.members[member].place.failpoints
    }

    /// SIGTERM; the exit is waited for.
    pub(crate) async fn terminate(&mut self, member: usize) -> ExitStatus {
        self.members[member].signal(Signal::TERM);
        self.ended(member).await
    }

    /// Waits for the end of a process.
    pub(crate) async fn ended(&mut self, member: usize) -> ExitStatus {
        self.members[member].ended().await
    }

    /// What a member says of itself, in a moment or not at all: it may be paused.
    pub(crate) async fn status(&self, member: usize) -> Result<StatusResponse, Status> {
        let mut client = MaintenanceClient::new(self.channel(member));
        let asked = tokio::time::timeout(Duration::from_secs(1), client.status(StatusRequest {})).await;
        asked.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer"))).map(tonic::Response::into_inner)
    }

    /// The same of one that runs, asked until it answers.
    pub(crate) async fn status_of(&self, member: usize) -> StatusResponse {
        until_answered("its status", || self.status(member)).await
    }

    /// Writes at a member, again until that is acknowledged.
    pub(crate) async fn put(&self, member: usize, put: PutRequest) -> PutResponse {
        let ask = || {
            let (mut kv, put) = (KvClient::new(self.channel(member)), put.clone());
            async move { kv.put(put).await }
        };
        until_answered("a put", ask).await.into_inner()
    }

    /// The member that says of itself that it leads, if none of a newer term does.
    pub(crate) async fn find_leader(&self) -> Option<usize> {
        let mut leaders = BTreeMap::new();
        for at in 0..self.len() {
            if self.members[at].is_running()
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

    /// Has one of them lead; it must be in step soon.
    pub(crate) async fn let_lead(&self, member: usize) {
        let begun = Instant::now();
        loop {
            let leader = self.leader().await;
            if leader == member {
                return;
            }
            let target_id = self.status(member).await.map_or(0, |status| status.header.unwrap().member_id);
            let moved = MaintenanceClient::new(self.channel(leader)).move_leader(MoveLeaderRequest { target_id }).await;
            assert!(begun.elapsed() < COMES_MAX, "m{member} doesn't get the lead: {moved:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
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

    /// All that a member has said.
    pub(crate) fn log(&self, member: usize) -> String {
        self.members[member].log()
    }

    /// Where a member's data is.
    pub(crate) fn data(&self, member: usize) -> PathBuf {
        self.members[member].flag("data-dir").into()
    }
}
