//! Three members of rusd or of etcd: where Patroni keeps its state.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{Result, wait};
use crate::{peers, ports, sh};

pub(super) const MEMBERS: usize = 3;
/// Names and passwords where users are on: root's, and Patroni's own, who may do all below [`PREFIX`].
const ROOT: &str = "root:rootpw";
pub(super) const PATRONI: (&str, &str) = ("patroni", "patronipw");
pub(super) const PREFIX: &str = "/service/";
/// A copy of the key, for whoever Patroni runs as.
pub(super) const CLIENT_KEY: &str = "client.key";

/// The members; whatever is left of them is killed at drop.
pub(super) struct Dcs {
    members: Vec<Member>,
    /// Where certificates are, if TLS and users are on.
    pub(super) certificates: Option<PathBuf>,
}

struct Member {
    client: u16,
    start: Command,
    child: Child,
}

impl Dcs {
    /// Starts them and waits for a leader.
    pub(super) fn start(program: &Path, run: &Path, secure: bool) -> Result<Self> {
        let certificates = if secure { Some(certificates(run)?) } else { None };
        let scheme = if secure { "https" } else { "http" };
        let ports = ports::free(2 * MEMBERS)?;
        let peer = |at: usize| format!("{scheme}://127.0.0.1:{}", ports[2 * at + 1]);
        let all: Vec<_> = (0..MEMBERS).map(|at| format!("m{at}={}", peer(at))).collect();
        let mut dcs = Self { members: Vec::new(), certificates };
        for at in 0..MEMBERS {
            let client = format!("{scheme}://127.0.0.1:{}", ports[2 * at]);
            let log = File::options().create(true).append(true).open(run.join(format!("m{at}.log")))?;
            let mut start = Command::new(program);
            start
                .arg(format!("--name=m{at}"))
                .arg(format!("--data-dir={}", run.join(format!("m{at}")).display()))
                .arg(format!("--listen-client-urls={client}"))
                .arg(format!("--advertise-client-urls={client}"))
                .arg(format!("--listen-peer-urls={}", peer(at)))
                .arg(format!("--initial-advertise-peer-urls={}", peer(at)))
                .arg(format!("--initial-cluster={}", all.join(",")))
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log);
            if let Some(dir) = &dcs.certificates {
                for prefix in ["", "peer-"] {
                    start.arg(format!("--{prefix}trusted-ca-file={}", dir.join("ca.pem").display()));
                    start.arg(format!("--{prefix}cert-file={}", dir.join("cert.pem").display()));
                    start.arg(format!("--{prefix}key-file={}", dir.join("key.pem").display()));
                    start.arg(format!("--{prefix}client-cert-auth"));
                }
            }
            let child = start.spawn().map_err(|error| format!("{} does not start: {error}", program.display()))?;
            dcs.members.push(Member { client: ports[2 * at], start, child });
        }
        dcs.wait_until_well()?;
        if secure {
            dcs.users()?;
        }
        Ok(dcs)
    }

    /// `host:port` of each.
    pub(super) fn hosts(&self) -> Vec<String> {
        self.members.iter().map(|member| format!("127.0.0.1:{}", member.client)).collect()
    }

    /// Waits until all of them know a leader.
    pub(super) fn wait_until_well(&self) -> Result<()> {
        wait("a leader among the members", || Ok((0..MEMBERS).all(|at| self.status(at).is_some())))?;
        Ok(())
    }

    /// Which member leads, as another than `but` says.
    pub(super) fn leader(&self, but: Option<usize>) -> Result<usize> {
        let mut leader = None;
        wait("a leader", || {
            let mut asked = (0..MEMBERS).filter(|at| Some(*at) != but).filter_map(|at| self.status(at));
            let ids = asked.next().map(|(_, leader)| leader);
            leader = (0..MEMBERS)
                .filter(|at| Some(*at) != but)
                .find(|at| ids.is_some() && self.status(*at).map(|(id, _)| id) == ids);
            Ok(leader.is_some())
        })?;
        leader.ok_or_else(|| "nobody leads".into())
    }

    pub(super) fn kill(&mut self, at: usize) -> Result<()> {
        self.members[at].child.kill()?;
        self.members[at].child.wait()?;
        Ok(())
    }

    /// Ends it as an operator does.
    pub(super) fn terminate(&mut self, at: usize) -> Result<()> {
        self.signal(at, Signal::TERM)?;
        let child = &mut self.members[at].child;
        wait("the end of a member", || Ok(child.try_wait()?.is_some()))?;
        Ok(())
    }

    pub(super) fn start_again(&mut self, at: usize) -> Result<()> {
        let member = &mut self.members[at];
        member.child = member.start.spawn()?;
        Ok(())
    }

    pub(super) fn signal(&self, at: usize, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.members[at].child), signal)?)
    }

    /// Its id and its leader's, if it has one.
    fn status(&self, at: usize) -> Option<(u64, u64)> {
        let said = self.ctl(at, &["endpoint", "status", "--write-out=json"], true).ok()?;
        let said: serde_json::Value = serde_json::from_slice(&said).ok()?;
        let status = said.get(0)?.get("Status")?;
        let leader = status.get("leader")?.as_u64().filter(|leader| *leader != 0)?;
        Some((status.get("header")?.get("member_id")?.as_u64()?, leader))
    }

    fn ctl(&self, at: usize, args: &[&str], as_root: bool) -> std::result::Result<Vec<u8>, String> {
        let mut ctl = Command::new(peers::directory().join("etcdctl"));
        let scheme = if self.certificates.is_some() { "https" } else { "http" };
        ctl.arg(format!("--endpoints={scheme}://127.0.0.1:{}", self.members[at].client));
        ctl.args(["--command-timeout=2s", "--dial-timeout=2s"]);
        if let Some(dir) = &self.certificates {
            for (flag, file) in [("cacert", "ca.pem"), ("cert", "cert.pem"), ("key", "key.pem")] {
                ctl.arg(format!("--{flag}={}", dir.join(file).display()));
            }
            if as_root {
                ctl.arg(format!("--user={ROOT}"));
            }
        }
        ctl.args(args).stdin(Stdio::null());
        sh::output(ctl)
    }

    /// Turns authentication on, with a user for Patroni.
    fn users(&self) -> Result<()> {
        let user = format!("{}:{}", PATRONI.0, PATRONI.1);
        let steps: [&[&str]; 7] = [
            &["user", "add", ROOT],
            &["user", "grant-role", "root", "root"],
            &["role", "add", PATRONI.0],
            &["role", "grant-permission", PATRONI.0, "readwrite", PREFIX, "--prefix"],
            &["user", "add", &user],
            &["user", "grant-role", PATRONI.0, PATRONI.0],
            &["auth", "enable"],
        ];
        for step in steps {
            self.ctl(0, step, false)?;
        }
        Ok(())
    }
}

impl Drop for Dcs {
    fn drop(&mut self) {
        for member in &mut self.members {
            // Both fail only if it is gone already.
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
    }
}

/// An authority of the drill's own and one certificate by it, for servers and clients. It has no common name: etcd's gateway
/// refuses whoever shows one while users are on.
fn certificates(run: &Path) -> Result<PathBuf> {
    let dir = run.join("tls");
    fs::create_dir_all(&dir)?;
    let openssl = |line: &str| sh::output(sh::program("openssl", &dir, &line.split(' ').collect::<Vec<_>>()));
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -days 7 -subj /CN=drill-ca -keyout ca.key -out ca.pem"))?;
    openssl(&format!("req {key} -subj /O=drill -keyout key.pem -out cert.csr"))?;
    fs::write(
        dir.join("ext"),
        "basicConstraints=critical,CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n\
         subjectAltName=IP:127.0.0.1,DNS:localhost\nauthorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n",
    )?;
    openssl("x509 -req -in cert.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 7 -extfile ext -out cert.pem")?;
    fs::copy(dir.join("key.pem"), dir.join(CLIENT_KEY))?;
    Ok(dir)
}
