//! A cluster of `rusd` processes for a test; whatever is left of it is killed at drop.
//!
//! ```text
//! Cluster::start(3) ─► m1 m2 m3, state new ─► each knows the leader
//! Cluster::join     ─► another one, state existing
//! ```

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::cluster_client::ClusterClient;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// Longest wait for what must come.
pub(crate) const COMES_MAX: Duration = Duration::from_secs(60);

/// One process.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) client: String,
    pub(crate) peer: String,
    dir: PathBuf,
    flags: Vec<String>,
    variables: Vec<(String, String)>,
    child: Option<Child>,
}

/// The processes, and where their files lie.
pub(crate) struct Cluster {
    root: TempDir,
    flags: Vec<String>,
    pub(crate) members: Vec<Member>,
}

/// Tries until it succeeds.
///
/// # Panics
/// With the last refusal, when it doesn't in a minute.
pub(crate) async fn until<T, E: std::fmt::Debug, F: Future<Output = Result<T, E>>>(
    what: &str,
    try_it: impl Fn() -> F,
) -> T {
    let begun = Instant::now();
    loop {
        match try_it().await {
            Ok(value) => return value,
            Err(error) => assert!(begun.elapsed() < COMES_MAX, "{what}: {error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Tries until it is refused in these words. An election may come between, after which nobody knows more than that.
pub(crate) async fn until_refused<T, F: Future<Output = Result<T, Status>>>(words: &str, try_it: impl Fn() -> F) {
    let begun = Instant::now();
    loop {
        match try_it().await {
            Ok(_) => panic!("it isn't refused: {words}"),
            Err(refused) if refused.message() == words => return,
            Err(other) => assert!(passes(&other) && begun.elapsed() < COMES_MAX, "{words}: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether a client asks again after this.
pub(crate) fn passes(status: &Status) -> bool {
    // What becomes of a connection that ends is told by various codes.
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown)
}

fn free_url() -> String {
    format!("http://127.0.0.1:{}", crate::ports::free())
}

impl Member {
    fn new(root: &TempDir, at: usize) -> Self {
        let name = format!("m{at}");
        let dir = root.path().join(&name);
        fs::create_dir(&dir).expect("a directory can be made");
        Self { name, client: free_url(), peer: free_url(), dir, flags: Vec::new(), variables: Vec::new(), child: None }
    }

    fn set_flags(&mut self, initial: &str, state: &str, more: &[String]) {
        self.flags = vec![
            format!("--name={}", self.name),
            format!("--data-dir={}", self.dir.join("data").display()),
            format!("--listen-client-urls={}", self.client),
            format!("--advertise-client-urls={}", self.client),
            format!("--listen-peer-urls={}", self.peer),
            format!("--initial-advertise-peer-urls={}", self.peer),
            format!("--initial-cluster={initial}"),
            format!("--initial-cluster-state={state}"),
        ];
        self.flags.extend_from_slice(more);
    }

    pub(crate) fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts it with further flags, for this time only.
    pub(crate) fn start_with(&mut self, more: &[&str]) {
        let log = File::options().create(true).append(true).open(self.dir.join("log")).expect("the log can be opened");
        let stdout = log.try_clone().expect("a file handle can be cloned");
        let child = Command::new(env!("CARGO_BIN_EXE_rusd"))
            .args(&self.flags)
            .args(more)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("rusd starts"));
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only if the process is gone already.
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Empties its directory, as a disk that was replaced.
    pub(crate) fn lose_data(&self) {
        fs::remove_dir_all(self.dir.join("data")).expect("it was there");
    }

    /// Waits until the process has ended by itself.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        let child = self.child.as_mut().expect("it runs");
        loop {
            if let Some(status) = child.try_wait().expect("a child of ours") {
                self.child = None;
                return status;
            }
            assert!(begun.elapsed() < COMES_MAX, "{} still runs:\n{}", self.name, self.log_tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Where its data and its log lie.
    pub(crate) fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    pub(crate) async fn channel(&self) -> Result<Channel, Status> {
        let endpoint =
            Endpoint::from_shared(self.client.clone()).expect("well-formed").timeout(Duration::from_secs(10));
        endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))
    }

    pub(crate) async fn status(&self) -> Result<pb::StatusResponse, Status> {
        let mut client = MaintenanceClient::new(self.channel().await?);
        client.status(pb::StatusRequest {}).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn put(&self, key: &str, value: &str) -> Result<(), Status> {
        let request =
            pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
        KvClient::new(self.channel().await?).put(request).await.map(drop)
    }

    /// A linearizable read; empty if there is no such key.
    pub(crate) async fn get(&self, key: &str) -> Result<String, Status> {
        let request = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
        let answer = KvClient::new(self.channel().await?).range(request).await?.into_inner();
        let value = answer.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned());
        Ok(value.unwrap_or_default())
    }

    pub(crate) async fn cluster(&self) -> Result<ClusterClient<Channel>, Status> {
        Ok(ClusterClient::new(self.channel().await?))
    }

    pub(crate) async fn list(&self) -> Result<Vec<pb::Member>, Status> {
        let request = pb::MemberListRequest { linearizable: true };
        Ok(self.cluster().await?.member_list(request).await?.into_inner().members)
    }

    pub(crate) async fn add(&self, peer: &str, is_learner: bool) -> Result<pb::Member, Status> {
        let request = pb::MemberAddRequest { peer_ur_ls: vec![peer.to_owned()], is_learner };
        Ok(self.cluster().await?.member_add(request).await?.into_inner().member.expect("the new member"))
    }

    pub(crate) async fn remove(&self, id: u64) -> Result<(), Status> {
        self.cluster().await?.member_remove(pb::MemberRemoveRequest { id }).await.map(drop)
    }

    pub(crate) async fn promote(&self, id: u64) -> Result<(), Status> {
        self.cluster().await?.member_promote(pb::MemberPromoteRequest { id }).await.map(drop)
    }
}

impl Cluster {
    /// Starts `count` members and waits until each knows the leader and all their names.
    pub(crate) async fn start(count: usize, flags: &[&str]) -> Self {
        Self::start_in(count, flags, &[]).await
    }

    /// The same with variables in their environment.
    pub(crate) async fn start_in(count: usize, flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let root = TempDir::new().expect("a temporary directory can be made");
        let mut members: Vec<Member> = (1..=count).map(|at| Member::new(&root, at)).collect();
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let initial = initial_of(&members);
        for member in &mut members {
            member.set_flags(&initial, "new", &flags);
            member.variables =
                variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            member.start();
        }
        let cluster = Self { root, flags, members };
        for member in &cluster.members {
            cluster.is_up(member).await;
        }
        cluster
    }

    /// Waits until a member serves linearizable requests and the cluster knows its name.
    pub(crate) async fn is_up(&self, member: &Member) {
        let try_it = || async {
            let list = member.list().await.map_err(|status| format!("{status}\n{}", member.log_tail()))?;
            let is_known = list.iter().any(|told| told.name == member.name && !told.client_ur_ls.is_empty());
            if is_known { Ok(()) } else { Err(format!("not published: {list:?}\n{}", member.log_tail())) }
        };
        until(&member.name, try_it).await;
    }

    /// Prepares another member that joins; [`Member::start`] starts it once it was added.
    pub(crate) fn prepare(&mut self, place: usize) -> &mut Member {
        let member = Member::new(&self.root, place);
        self.members.push(member);
        let (initial, flags) = (initial_of(&self.members), self.flags.clone());
        let member = self.members.last_mut().expect("just pushed");
        member.set_flags(&initial, "existing", &flags);
        member
    }

    /// The place of the leader, and its id.
    pub(crate) async fn leader(&self) -> (usize, u64) {
        let try_it = || async {
            for (place, member) in self.members.iter().enumerate() {
                let Ok(status) = member.status().await else { continue };
                let own = status.header.as_ref().map_or(0, |header| header.member_id);
                if status.leader != 0 && status.leader == own {
                    return Ok((place, own));
                }
            }
            Err("nobody leads")
        };
        until("a leader", try_it).await
    }

    /// Adds a member through `asked`; an answer that was lost is in the list.
    pub(crate) async fn added(&self, asked: usize, peer: &str, is_learner: bool) -> pb::Member {
        let asked = &self.members[asked];
        until("it is added", || async {
            let refused = match asked.add(peer, is_learner).await {
                Ok(added) => return Ok(added),
                Err(refused) => refused,
            };
            let listed = asked.list().await?.into_iter().find(|told| told.peer_ur_ls.iter().any(|url| url == peer));
            listed.ok_or(refused)
        })
        .await
    }

    /// Removes one through `asked`, which may be itself; `witness`, which stays, knows whether it was done.
    pub(crate) async fn removed(&self, asked: usize, witness: usize, id: u64) {
        until("it is removed", || async {
            let Err(refused) = self.members[asked].remove(id).await else { return Ok(()) };
            let is_gone = self.members[witness].list().await?.iter().all(|told| told.id != id);
            if is_gone { Ok(()) } else { Err(refused) }
        })
        .await;
    }

    /// Gives a learner its vote through `asked`, once it is in step.
    pub(crate) async fn promoted(&self, asked: usize, id: u64) {
        let asked = &self.members[asked];
        until("it is promoted", || async {
            let Err(refused) = asked.promote(id).await else { return Ok(()) };
            let votes = asked.list().await?.iter().any(|told| told.id == id && !told.is_learner);
            if votes { Ok(()) } else { Err(refused) }
        })
        .await;
    }

    /// The id of a member, as it says itself.
    pub(crate) async fn id(&self, place: usize) -> u64 {
        let status = until("its status", || self.members[place].status()).await;
        status.header.map_or(0, |header| header.member_id)
    }
}

fn initial_of(members: &[Member]) -> String {
    let pairs: Vec<_> = members.iter().map(|member| format!("{}={}", member.name, member.peer)).collect();
    pairs.join(",")
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.members.iter_mut().for_each(Member::kill);
    }
}
