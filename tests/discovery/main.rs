//! Clusters whose members find each other: by a token in another server, or by DNS records.
//!
//! ```text
//! registry (rusd, or the real etcd; TLS) ◄─ size, members ─► m1 m2 m3, started without --initial-cluster ─► one cluster
//! dns (here) ─► SRV records ───────────────────────────┘
//! ```

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the test looks at the world from outside")]

mod dns;

#[allow(dead_code, reason = "tests of other things ask it for more")]
#[path = "../tls/authority.rs"]
mod authority;
#[path = "../support/peers.rs"]
mod peers;
#[path = "../support/ports.rs"]
mod ports;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::cluster_client::ClusterClient;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::{MemberListRequest, PutRequest, RangeRequest};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use authority::{Authority, Issued, Wanted};

const COMES_MAX: Duration = Duration::from_secs(60);

/// A process; killed at drop.
struct Server {
    name: String,
    client: u16,
    peer: u16,
    program: PathBuf,
    flags: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Server {
    fn new(dir: &Path, name: &str, program: PathBuf, flags: &[String]) -> Self {
        let (client, peer) = (ports::free(), ports::free());
        let mut all = vec![
            format!("--name={name}"),
            format!("--data-dir={}", dir.join(name).display()),
            format!("--listen-client-urls=http://127.0.0.1:{client}"),
            format!("--advertise-client-urls=http://127.0.0.1:{client}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
            format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
        ];
        all.extend_from_slice(flags);
        let log = dir.join(format!("{name}.log"));
        Self { name: name.to_owned(), client, peer, program, flags: all, log, child: None }
    }

    /// The same with a peer URL of this scheme.
    fn with_peers_by(mut self, scheme: &str) -> Self {
        for flag in &mut self.flags {
            if flag.contains("-peer-urls=") {
                *flag = flag.replace("=http://", &format!("={scheme}://"));
            }
        }
        self
    }

    fn rusd(dir: &Path, name: &str, flags: &[String]) -> Self {
        Self::new(dir, name, PathBuf::from(env!("CARGO_BIN_EXE_rusd")), flags)
    }

    fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let child = Command::new(&self.program)
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for its end, which comes by itself.
    async fn ends(&mut self) -> String {
        let begun = Instant::now();
        while self.child.as_mut().unwrap().try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < COMES_MAX, "it doesn't end\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.child = None;
        self.log()
    }

    fn channel(&self) -> Channel {
        let url = format!("http://127.0.0.1:{}", self.client);
        Endpoint::from_shared(url).unwrap().timeout(Duration::from_secs(5)).connect_lazy()
    }

    async fn put(&self, key: &str, value: &str) {
        let begun = Instant::now();
        loop {
            let put = PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
            match KvClient::new(self.channel()).put(put).await {
                Ok(_) => return,
                Err(error) => assert!(begun.elapsed() < COMES_MAX, "{error}\n{}", self.log()),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until it serves in a cluster of all of these, whose names they have told.
    async fn is_in(&self, names: &[&str]) {
        let begun = Instant::now();
        loop {
            let asked = ClusterClient::new(self.channel()).member_list(MemberListRequest { linearizable: true }).await;
            if let Ok(answer) = &asked {
                let mut found: Vec<_> = answer.get_ref().members.iter().map(|member| &member.name[..]).collect();
                found.sort_unstable();
                if found == names {
                    return;
                }
            }
            assert!(begun.elapsed() < COMES_MAX, "{asked:?}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- end of {}'s log\n{}", self.name, lines[lines.len().saturating_sub(10)..].join("\n"));
        }
    }
}

fn by_token(registry: &Server, token: &str) -> Vec<String> {
    vec![
        format!("--discovery-token={token}"),
        format!("--discovery-endpoints=http://127.0.0.1:1,http://127.0.0.1:{}", registry.client),
    ]
}

async fn members_find_each_other_in(program: PathBuf) {
    let dir = TempDir::new().unwrap();
    let mut registry = Server::new(dir.path(), "registry", program.clone(), &[]);
    registry.flags.push(format!("--initial-cluster=registry=http://127.0.0.1:{}", registry.peer));
    registry.spawn();
    registry.put("/_etcd/registry/t0k/_config/size", "3").await;
    let flags = by_token(&registry, "t0k");
    let names = ["m1", "m2", "m3"];
    let mut members: Vec<_> = names.iter().map(|name| Server::rusd(dir.path(), name, &flags)).collect();
    // The last one comes late: the others wait, also one that is killed meanwhile.
    members[0].spawn();
    members[1].spawn();
    let listing = RangeRequest {
        key: "/_etcd/registry/t0k/members/".into(),
        range_end: "/_etcd/registry/t0k/members0".into(),
        ..Default::default()
    };
    let listed = async || {
        let answer = KvClient::new(registry.channel()).range(listing.clone()).await.unwrap();
        answer.into_inner().kvs.into_iter().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap()).collect::<Vec<_>>()
    };
    let begun = Instant::now();
    while listed().await.len() < 2 {
        assert!(begun.elapsed() < COMES_MAX, "they aren't written down\n{}", members[0].log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    members[0].kill();
    members[0].spawn();
    members[2].spawn();
    for member in &members {
        member.is_in(&names).await;
    }
    let mut written = listed().await;
    written.sort_unstable();
    let wanted: Vec<_> = members.iter().map(|m| format!("{}=http://127.0.0.1:{}", m.name, m.peer)).collect();
    assert_eq!(written, wanted, "each once");

    // One more is one too many; and one of the three may restart without the registry.
    let mut fourth = Server::rusd(dir.path(), "m4", &flags);
    fourth.spawn();
    let log = fourth.ends().await;
    assert!(log.contains("failed to join discovery cluster (discovery: cluster is full)"), "{log}");
    registry.kill();
    members[1].kill();
    members[1].spawn();
    members[1].is_in(&names).await;
    members[1].put("k", "v").await;
}

#[tokio::test]
async fn members_find_each_other_by_a_token_in_rusd() {
    members_find_each_other_in(PathBuf::from(env!("CARGO_BIN_EXE_rusd"))).await;
}

#[tokio::test]
async fn members_find_each_other_by_a_token_in_etcd() {
    if let Some(etcd) = peers::peer("etcd", "members_find_each_other_by_a_token_in_etcd") {
        members_find_each_other_in(etcd).await;
    }
}

/// The registry demands a certificate that a member shows, and shows one that the member trusts.
async fn members_find_each_other_over_tls_in(program: PathBuf) {
    let dir = TempDir::new().unwrap();
    let (known, other) = (Authority::new("known"), Authority::new("other"));
    let (ca, other_ca) = (known.write(dir.path(), "ca"), other.write(dir.path(), "other-ca"));
    let served = known.issue(dir.path(), "served", &Wanted::default());
    let shown = known.issue(dir.path(), "shown", &Wanted { common_name: "member", ..Wanted::default() });
    let mut registry = Server::new(dir.path(), "registry", program, &[]);
    let tls = ports::free();
    registry.flags.extend([
        format!("--initial-cluster=registry=http://127.0.0.1:{}", registry.peer),
        format!("--listen-client-urls=http://127.0.0.1:{},https://127.0.0.1:{tls}", registry.client),
        format!("--cert-file={}", served.cert.display()),
        format!("--key-file={}", served.key.display()),
        format!("--trusted-ca-file={}", ca.display()),
        "--client-cert-auth".to_owned(),
    ]);
    registry.flags.retain(|flag| *flag != format!("--listen-client-urls=http://127.0.0.1:{}", registry.client));
    registry.spawn();
    registry.put("/_etcd/registry/t0k/_config/size", "2").await;
    let member = |name: &str, endpoint: String, ca: &Path, pair: Option<&Issued>| {
        let mut flags = vec![
            "--discovery-token=t0k".to_owned(),
            format!("--discovery-endpoints={endpoint}"),
            format!("--discovery-cacert={}", ca.display()),
        ];
        if let Some(pair) = pair {
            flags.push(format!("--discovery-cert={}", pair.cert.display()));
            flags.push(format!("--discovery-key={}", pair.key.display()));
        }
        let mut member = Server::rusd(dir.path(), name, &flags);
        member.spawn();
        member
    };
    // Whoever doesn't trust the registry, and whom it doesn't trust, wait with the reason in the log.
    let wary = member("wary", format!("https://localhost:{tls}"), &other_ca, Some(&shown));
    let unknown = member("unknown", format!("https://localhost:{tls}"), &ca, None);
    let refused = "no TLS with the registry";
    for (waiting, what, why) in
        [(&wary, "the registry doesn't answer", "UnknownIssuer"), (&unknown, refused, "certificate")]
    {
        let begun = Instant::now();
        let said = || waiting.log().lines().any(|line| line.contains(what) && line.contains(why));
        while !said() {
            assert!(begun.elapsed() < COMES_MAX, "{}\n{}", waiting.name, waiting.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // With a scheme, and without: the files ask for TLS then.
    let members = [
        member("m1", format!("https://127.0.0.1:{tls}"), &ca, Some(&shown)),
        member("m2", format!("localhost:{tls}"), &ca, Some(&shown)),
    ];
    for member in &members {
        member.is_in(&["m1", "m2"]).await;
    }
}

#[tokio::test]
async fn members_find_each_other_over_tls_in_rusd() {
    members_find_each_other_over_tls_in(PathBuf::from(env!("CARGO_BIN_EXE_rusd"))).await;
}

#[tokio::test]
async fn members_find_each_other_over_tls_in_etcd() {
    if let Some(etcd) = peers::peer("etcd", "members_find_each_other_over_tls_in_etcd") {
        members_find_each_other_over_tls_in(etcd).await;
    }
}

/// What etcd's keys mean, etcd itself is asked: a cluster half of which is etcd can't run, but it is found whole.
#[tokio::test]
async fn a_registry_that_is_not_as_it_should_be_is_told_with_etcds_words() {
    let dir = TempDir::new().unwrap();
    let mut registry = Server::rusd(dir.path(), "registry", &[]);
    registry.flags.push(format!("--initial-cluster=registry=http://127.0.0.1:{}", registry.peer));
    registry.spawn();
    for (token, size, why) in [("none", None, "size key not found"), ("bad", Some("x"), "size key is bad")] {
        if let Some(size) = size {
            registry.put(&format!("/_etcd/registry/{token}/_config/size"), size).await;
        } else {
            registry.put("k", "v").await;
        }
        let mut member = Server::rusd(dir.path(), token, &by_token(&registry, token));
        member.spawn();
        let log = member.ends().await;
        assert!(log.contains(&format!("failed to join discovery cluster (discovery: {why})")), "{log}");
        assert!(!dir.path().join(token).join("member/format").exists(), "nothing was made");
    }
}

/// With records of one service, and peers that speak by its scheme.
async fn members_find_each_other_by_dns(service: &str, scheme: &str, flags: &[String]) {
    let dir = TempDir::new().unwrap();
    let names = ["m1", "m2", "m3"];
    let member = |name: &&str| Server::rusd(dir.path(), name, flags).with_peers_by(scheme);
    let mut members: Vec<_> = names.iter().map(member).collect();
    let records = members.iter().map(|member| ("localhost".to_owned(), member.peer)).collect();
    // Many records, as a name server answers that has to cut its answer short over UDP.
    let server = dns::serve(&format!("_{service}-blue._tcp.example.com"), records).await;
    for member in &mut members {
        // One lists what the records say, the others an address that they stand for.
        member.flags.extend([
            "--discovery-srv=example.com".to_owned(),
            "--discovery-srv-name=blue".to_owned(),
            format!("--discovery-srv-resolver={server}"),
            "--initial-cluster-token=by-dns".to_owned(),
        ]);
        member.spawn();
    }
    for member in &members {
        member.is_in(&names).await;
    }

    let mut stranger = Server::rusd(dir.path(), "m4", &members[0].flags[6..]).with_peers_by(scheme);
    stranger.spawn();
    let log = stranger.ends().await;
    assert!(log.contains("couldn't find local name \\\"m4\\\" in the initial cluster configuration"), "{log}");
    let mut lost = Server::rusd(dir.path(), "m5", flags).with_peers_by(scheme);
    lost.flags.extend(["--discovery-srv=example.org".to_owned(), format!("--discovery-srv-resolver={server}")]);
    lost.spawn();
    let log = lost.ends().await;
    for service in ["etcd-server-ssl", "etcd-server"] {
        assert!(log.contains(&format!("error querying DNS SRV records for _{service}: ")), "{log}");
    }
    // A record that names this member's address with another scheme isn't one of it.
    let mut mixed = Server::rusd(dir.path(), "m6", flags).with_peers_by(scheme);
    let other = if service == "etcd-server" { "etcd-server-ssl" } else { "etcd-server" };
    let server = dns::serve(&format!("_{other}._tcp.example.com"), vec![("localhost".to_owned(), mixed.peer)]).await;
    mixed.flags.extend(["--discovery-srv=example.com".to_owned(), format!("--discovery-srv-resolver={server}")]);
    mixed.spawn();
    let log = mixed.ends().await;
    assert!(log.contains("a record names this member's address with another scheme; it is left out"), "{log}");
}

#[tokio::test]
async fn members_find_each_other_by_dns_without_tls() {
    members_find_each_other_by_dns("etcd-server", "http", &[]).await;
}

#[tokio::test]
async fn members_find_each_other_by_dns_over_tls() {
    let dir = TempDir::new().unwrap();
    let authority = Authority::new("peers");
    let ca = authority.write(dir.path(), "ca");
    let pair = authority.issue(dir.path(), "pair", &Wanted::default());
    let flags = [
        format!("--peer-cert-file={}", pair.cert.display()),
        format!("--peer-key-file={}", pair.key.display()),
        format!("--peer-trusted-ca-file={}", ca.display()),
        "--peer-client-cert-auth".to_owned(),
    ];
    members_find_each_other_by_dns("etcd-server-ssl", "https", &flags).await;
}
