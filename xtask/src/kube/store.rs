//! The store: three members under TLS, of rusd or of etcd. Clients and members show certificates.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use rusd_proto::etcdserverpb::{StatusRequest, StatusResponse};
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;

use super::api::Api;
use super::usage::{self, Usage};
use crate::certs::{self, Authority, Pair};
use crate::secure::{Dialer, Speech};
use crate::{ports, sh};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

pub(super) const MEMBERS: usize = 3;
const WAIT_MAX: Duration = Duration::from_secs(90);
const ANSWER_MAX: Duration = Duration::from_secs(2);
const END_MAX: Duration = Duration::from_secs(30);

/// What a member runs.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// `rusd` or `etcd`.
    pub(super) side: &'static str,
    pub(super) path: PathBuf,
    /// Flags besides those that both take.
    pub(super) flags: Vec<String>,
}

/// The members; whatever is left of them is killed at drop.
pub(super) struct Store {
    pub(super) side: &'static str,
    pub(super) program: Program,
    members: Vec<Member>,
    /// What a client shows, and whom it believes.
    pub(super) client: Pair,
    pub(super) ca: PathBuf,
    /// What a member shows clients, and what other members.
    pairs: [Pair; 2],
    dialer: Dialer,
    /// For what isn't gRPC.
    http: Dialer,
    runtime: Arc<Runtime>,
    run: PathBuf,
}

struct Member {
    client: u16,
    peer: u16,
    data: PathBuf,
    child: Option<Child>,
    /// What those used that were killed, in its place.
    before: Usage,
}

impl Store {
    /// Starts them in `run`, and waits until all know a leader.
    pub(super) fn start(program: &Program, run: &Path, runtime: Arc<Runtime>) -> Result<Self> {
        let authority = Authority::new(&run.join("store-tls"), "store-ca")?;
        let names = "IP:127.0.0.1,DNS:localhost";
        // As kubeadm makes it: etcd's gateway shows it to etcd itself.
        let server = authority.issue("server", "/O=store/CN=server", certs::Usage::Both, names)?;
        let peer = authority.issue("peer", "/O=store/CN=peer", certs::Usage::Both, names)?;
        let client = authority.issue("client", "/O=store/CN=kube-apiserver", certs::Usage::Client, "")?;
        let dialer = Dialer::new(&authority.ca(), &client, "localhost", Speech::Grpc)?;
        let http = Dialer::new(&authority.ca(), &client, "localhost", Speech::Http1)?;
        let ports = ports::free(2 * MEMBERS)?;
        let members = (0..MEMBERS).map(|at| {
            let (client, peer) = (ports[2 * at], ports[2 * at + 1]);
            Member { client, peer, data: run.join(format!("m{at}")), child: None, before: Usage::default() }
        });
        let (program, side, ca, members) = (program.clone(), program.side, authority.ca(), members.collect());
        let mut store = Self {
            side,
            program,
            members,
            client,
            ca,
            pairs: [server, peer],
            dialer,
            http,
            runtime,
            run: run.to_owned(),
        };
        (0..MEMBERS).try_for_each(|at| store.start_again(at))?;
        store.wait_until_well()?;
        Ok(store)
    }

    /// What a member is started with.
    fn command(&self, at: usize) -> Result<Command> {
        let client = self.url(at);
        let log = File::options().create(true).append(true).open(self.log(at))?;
        let mut start = sh::bound(&self.program.path);
        start
            .arg(format!("--data-dir={}", self.members[at].data.display()))
            .args(self.place(at))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={}", self.peer_url(at)))
            // As kubeadm has it.
            .arg("--watch-progress-notify-interval=5s")
            .args(&self.program.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        for (prefix, pair) in ["", "peer-"].into_iter().zip(&self.pairs) {
            start.arg(format!("--{prefix}cert-file={}", pair.cert.display()));
            start.arg(format!("--{prefix}key-file={}", pair.key.display()));
            start.arg(format!("--{prefix}trusted-ca-file={}", self.ca.display()));
            start.arg(format!("--{prefix}client-cert-auth"));
        }
        Ok(start)
    }

    /// The flags that say which member of which cluster it is: for a start, and for what makes a directory of a snapshot.
    pub(super) fn place(&self, at: usize) -> [String; 3] {
        let all: Vec<_> = (0..MEMBERS).map(|at| format!("m{at}={}", self.peer_url(at))).collect();
        [
            format!("--name=m{at}"),
            format!("--initial-cluster={}", all.join(",")),
            format!("--initial-advertise-peer-urls={}", self.peer_url(at)),
        ]
    }

    fn peer_url(&self, at: usize) -> String {
        format!("https://127.0.0.1:{}", self.members[at].peer)
    }

    /// Where a member takes clients.
    pub(super) fn url(&self, at: usize) -> String {
        format!("https://127.0.0.1:{}", self.members[at].client)
    }

    /// Takes a member's data away, whose program has ended; gives where another's is to be.
    pub(super) fn set_aside(&self, at: usize) -> Result<&Path> {
        let data = &self.members[at].data;
        let aside = data.with_extension(self.side);
        if aside.exists() {
            fs::remove_dir_all(&aside)?;
        }
        fs::rename(data, aside)?;
        Ok(data)
    }

    /// Starts all members as another program, on what lies in their directories.
    pub(super) fn start_as(&mut self, program: &Program) -> Result<()> {
        (self.side, self.program) = (program.side, program.clone());
        (0..MEMBERS).try_for_each(|at| self.start_again(at))?;
        self.wait_until_well().map(drop)
    }

    /// For `--etcd-servers`.
    pub(super) fn urls(&self) -> String {
        (0..MEMBERS).map(|at| self.url(at)).collect::<Vec<_>>().join(",")
    }

    pub(super) fn log(&self, at: usize) -> PathBuf {
        self.run.join(format!("{}-{at}.log", self.side))
    }

    /// Starts a member on the data that it has.
    pub(super) fn start_again(&mut self, at: usize) -> Result<()> {
        let mut start = self.command(at)?;
        self.members[at].child = Some(start.spawn().map_err(|error| format!("`setpriv`: {error}"))?);
        Ok(())
    }

    /// Ends a member as a failure of its machine's power would.
    pub(super) fn kill(&mut self, at: usize) -> Result<()> {
        let member = &mut self.members[at];
        let mut child = member.child.take().ok_or("this member does not run")?;
        member.before = usage::of_process(child.id()).after(member.before);
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Waits until all that should run serve, with one and the same leader.
    pub(super) fn wait_until_well(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        loop {
            let leaders: Vec<_> = (0..MEMBERS).map(|at| self.status(at).map_or(0, |status| status.leader)).collect();
            if leaders[0] != 0 && leaders.iter().all(|leader| *leader == leaders[0]) {
                return Ok(begun.elapsed());
            }
            for at in 0..MEMBERS {
                if let Some(Ok(Some(status))) = self.members[at].child.as_mut().map(Child::try_wait) {
                    return Err(format!("m{at} ended with {status}: see {}", self.log(at).display()).into());
                }
            }
            if begun.elapsed() > WAIT_MAX {
                return Err(format!("the members don't agree on a leader within {WAIT_MAX:?}: {leaders:?}").into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The member that leads, as it says itself.
    pub(super) fn leader(&self) -> Result<usize> {
        let begun = Instant::now();
        loop {
            let leads = |at: &usize| {
                self.status(*at).is_some_and(|status| {
                    status.leader != 0 && status.header.is_some_and(|header| header.member_id == status.leader)
                })
            };
            if let Some(at) = (0..MEMBERS).find(leads) {
                return Ok(at);
            }
            if begun.elapsed() > WAIT_MAX {
                return Err(format!("nobody leads within {WAIT_MAX:?}").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn status(&self, at: usize) -> Option<StatusResponse> {
        self.members[at].child.as_ref()?;
        let to = SocketAddr::from(([127, 0, 0, 1], self.members[at].client));
        self.runtime.block_on(async {
            let mut client = MaintenanceClient::new(self.dialer.channel(to, ANSWER_MAX));
            let asked = tokio::time::timeout(ANSWER_MAX, client.status(StatusRequest {})).await;
            Some(asked.ok()?.ok()?.into_inner())
        })
    }

    /// Calls of a method that all members have answered well since each was started, as their own metrics say.
    pub(super) fn answered(&self, method: &str) -> Result<u64> {
        let mut all = 0;
        for member in &self.members {
            let mut api = Api::new(self.http.clone(), SocketAddr::from(([127, 0, 0, 1], member.client)));
            let answer = self.runtime.block_on(api.get("/metrics"))?;
            if !answer.is_ok() {
                return Err(format!("/metrics of a member: {}", answer.status).into());
            }
            all += handled(&String::from_utf8_lossy(&answer.body), method);
        }
        Ok(all)
    }

    /// What all members use and have used; of the disk, what lies there.
    pub(super) fn usage(&self) -> Usage {
        let each = self.members.iter().map(|member| {
            let now = member.child.as_ref().map_or_else(Usage::default, |child| usage::of_process(child.id()));
            let disk = usage::bytes_below(&member.data);
            Usage { disk, ..now.after(member.before) }
        });
        each.fold(Usage::default(), Usage::with)
    }

    /// Ends them as an operator does.
    pub(super) fn stop(&mut self) {
        for child in self.members.iter().filter_map(|member| member.child.as_ref()) {
            // It fails only if it has ended.
            let _ = kill_process(Pid::from_child(child), Signal::TERM);
        }
        let begun = Instant::now();
        for member in &mut self.members {
            let Some(mut child) = member.child.take() else { continue };
            while matches!(child.try_wait(), Ok(None)) && begun.elapsed() < END_MAX {
                std::thread::sleep(Duration::from_millis(50));
            }
            // Both fail only if it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Leaves no data behind.
    pub(super) fn remove_data(&self) -> Result<()> {
        for member in &self.members {
            fs::remove_dir_all(&member.data)?;
            for aside in ["rusd", "etcd"].map(|side| member.data.with_extension(side)) {
                if aside.exists() {
                    fs::remove_dir_all(aside)?;
                }
            }
        }
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        for child in self.members.iter_mut().filter_map(|member| member.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a page of metrics says of a method's calls that ended well.
fn handled(page: &str, method: &str) -> u64 {
    let (method, code) = (format!("grpc_method=\"{method}\""), "grpc_code=\"OK\"");
    let lines = page.lines().filter(|line| line.starts_with("grpc_server_handled_total{"));
    let values = lines.filter_map(|line| {
        let (labels, value) = line.rsplit_once("} ")?;
        let value = value.trim().parse::<f64>().ok()?;
        (labels.contains(&method) && labels.contains(code)).then_some(value as u64)
    });
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_calls_that_ended_well_are_counted() {
        let line = |code: &str, method: &str, value: &str| {
            format!(
                "grpc_server_handled_total{{grpc_code=\"{code}\",grpc_method=\"{method}\",grpc_type=\"unary\"}} {value}\n"
            )
        };
        let page = line("OK", "Range", "7")
            + &line("OK", "RangeStream", "1.2e+03")
            + &line("Unimplemented", "RangeStream", "5")
            + &line("OK", "Range", "1").replace("handled", "started");
        assert_eq!((handled(&page, "RangeStream"), handled(&page, "Range"), handled(&page, "Put")), (1200, 7, 0));
    }
}
