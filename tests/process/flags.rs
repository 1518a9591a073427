//! How others start etcd: their command lines, variables and files, taken as they are, each with the warnings it may give.
//!
//! ```text
//! kubeadm · Bitnami · Debian · k3s ─► cli::parse ─► no refusal, these warnings and no others, these settings
//! kubeadm's, on etcd and on rusd, as processes ─► the probes of its manifest
//! ```

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rusd::cli::{self, Action, Run, Warning};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::authority::{Authority, Wanted};
use crate::peers::peer;
use crate::server::ports;

/// The manifest of kubeadm for etcd 3.6 and later; `{…}` is filled in.
const KUBEADM: &str = "\
    --advertise-client-urls=https://127.0.0.1:{client} --cert-file={pki}/server.crt --client-cert-auth=true \
    --data-dir={data} --feature-gates=InitialCorruptCheck=true \
    --initial-advertise-peer-urls=https://127.0.0.1:{peer} --initial-cluster=node1=https://127.0.0.1:{peer} \
    --key-file={pki}/server.key --listen-client-urls=https://127.0.0.1:{client},https://localhost:{client2} \
    --listen-metrics-urls=http://127.0.0.1:{metrics} --listen-peer-urls=https://127.0.0.1:{peer} --name=node1 \
    --peer-cert-file={pki}/peer.crt --peer-client-cert-auth=true --peer-key-file={pki}/peer.key \
    --peer-trusted-ca-file={pki}/ca.pem --snapshot-count=10000 --trusted-ca-file={pki}/ca.pem \
    --watch-progress-notify-interval=5s";

/// What Bitnami's chart sets; half of it is read by scripts of the image alone.
const BITNAMI: &[(&str, &str)] = &[
    ("BITNAMI_DEBUG", "false"),
    ("MY_STS_NAME", "etcd"),
    ("ETCDCTL_API", "3"),
    ("ETCD_ON_K8S", "yes"),
    ("ETCD_START_FROM_SNAPSHOT", "no"),
    ("ETCD_DISASTER_RECOVERY", "no"),
    ("ETCD_NAME", "etcd-0"),
    ("ETCD_DATA_DIR", "/bitnami/etcd/data"),
    ("ETCD_LOG_LEVEL", "info"),
    ("ALLOW_NONE_AUTHENTICATION", "no"),
    ("ETCD_ROOT_PASSWORD", "hunter2"),
    ("ETCD_AUTH_TOKEN", "simple"),
    ("ETCD_ADVERTISE_CLIENT_URLS", "http://etcd-0.etcd-headless:2379,http://etcd:2379"),
    ("ETCD_LISTEN_CLIENT_URLS", "http://0.0.0.0:2379"),
    ("ETCD_INITIAL_ADVERTISE_PEER_URLS", "http://etcd-0.etcd-headless:2380"),
    ("ETCD_LISTEN_PEER_URLS", "http://0.0.0.0:2380"),
    ("ETCD_INITIAL_CLUSTER_TOKEN", "etcd-cluster-k8s"),
    ("ETCD_INITIAL_CLUSTER_STATE", "new"),
    ("ETCD_INITIAL_CLUSTER", "etcd-0=http://etcd-0.etcd-headless:2380,etcd-1=http://etcd-1.etcd-headless:2380"),
    ("ETCD_CLUSTER_DOMAIN", "etcd-headless"),
    ("ETCD_AUTO_COMPACTION_MODE", "periodic"),
    ("ETCD_AUTO_COMPACTION_RETENTION", "10m"),
    ("ETCD_AUTO_TLS", "false"),
    ("ETCD_PEER_AUTO_TLS", "false"),
    ("ETCD_TRUSTED_CA_FILE", ""),
    ("ETCD_INIT_SNAPSHOT_FILENAME", "snapshot"),
];

/// `/etc/default/etcd` of Debian with everything switched on, beside what its unit sets.
const DEBIAN: &[(&str, &str)] = &[
    ("NOTIFY_SOCKET", ""),
    ("ETCD_NAME", "default"),
    ("ETCD_DATA_DIR", "/var/lib/etcd/default"),
    ("ETCD_WAL_DIR", ""),
    ("ETCD_SNAPSHOT_COUNT", "10000"),
    ("ETCD_HEARTBEAT_INTERVAL", "100"),
    ("ETCD_ELECTION_TIMEOUT", "1000"),
    ("ETCD_LISTEN_PEER_URLS", "http://localhost:2380"),
    ("ETCD_LISTEN_CLIENT_URLS", "http://localhost:2379"),
    ("ETCD_MAX_SNAPSHOTS", "5"),
    ("ETCD_MAX_WALS", "5"),
    ("ETCD_CORS", ""),
    ("ETCD_QUOTA_BACKEND_BYTES", "0"),
    ("ETCD_INITIAL_ADVERTISE_PEER_URLS", "http://localhost:2380"),
    ("ETCD_INITIAL_CLUSTER", "default=http://localhost:2380"),
    ("ETCD_INITIAL_CLUSTER_STATE", "new"),
    ("ETCD_INITIAL_CLUSTER_TOKEN", "etcd-cluster"),
    ("ETCD_ADVERTISE_CLIENT_URLS", "http://localhost:2379"),
    ("ETCD_DISCOVERY_SRV", ""),
    ("ETCD_DISCOVERY_FALLBACK", "exit"),
    ("ETCD_DISCOVERY_PROXY", ""),
    ("ETCD_STRICT_RECONFIG_CHECK", "true"),
    ("ETCD_AUTO_COMPACTION_RETENTION", "0"),
    ("ETCD_ENABLE_V2", "true"),
    ("ETCD_PROXY", "off"),
    ("ETCD_PROXY_FAILURE_WAIT", "5000"),
    ("ETCD_CERT_FILE", ""),
    ("ETCD_KEY_FILE", ""),
    ("ETCD_CLIENT_CERT_AUTH", "false"),
    ("ETCD_AUTO_TLS", "false"),
    ("ETCD_PEER_CLIENT_CERT_AUTH", "false"),
    ("ETCD_DEBUG", "false"),
    ("ETCD_LOG_PACKAGE_LEVELS", "etcdserver=WARNING"),
    ("ETCD_LOG_OUTPUT", "default"),
    ("ETCD_FORCE_NEW_CLUSTER", "false"),
];

/// The file that k3s writes for its own etcd, for somebody who goes on with rusd on its directory.
const K3S: &str = "\
advertise-client-urls: https://10.0.0.1:2379
client-transport-security:
  cert-file: /var/lib/rancher/k3s/server/tls/etcd/server-client.crt
  client-cert-auth: true
  key-file: /var/lib/rancher/k3s/server/tls/etcd/server-client.key
  trusted-ca-file: /var/lib/rancher/k3s/server/tls/etcd/server-ca.crt
data-dir: /var/lib/rancher/k3s/server/db/etcd
election-timeout: 5000
experimental-initial-corrupt-check: true
experimental-watch-progress-notify-interval: 5000000000
heartbeat-interval: 500
initial-advertise-peer-urls: https://10.0.0.1:2380
initial-cluster: node-1=https://10.0.0.1:2380
initial-cluster-state: new
listen-client-http-urls: https://127.0.0.1:2382
listen-client-urls: https://127.0.0.1:2379,https://10.0.0.1:2379
listen-metrics-urls: http://127.0.0.1:2381
listen-peer-urls: https://127.0.0.1:2380,https://10.0.0.1:2380
log-outputs:
- stderr
logger: zap
name: node-1
peer-transport-security:
  cert-file: /var/lib/rancher/k3s/server/tls/etcd/peer-server-client.crt
  client-cert-auth: true
  key-file: /var/lib/rancher/k3s/server/tls/etcd/peer-server-client.key
  trusted-ca-file: /var/lib/rancher/k3s/server/tls/etcd/peer-ca.crt
snapshot-count: 10000
socket-options:
  reuse-address: true
";

fn run(arguments: &[String], variables: &[(&str, &str)]) -> Run {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    match cli::parse(arguments.iter().cloned(), variables) {
        Ok(Action::Run(run)) => *run,
        other => panic!("{other:?}"),
    }
}

/// What is warned of, one word each.
fn warned(run: &Run) -> Vec<String> {
    let word = |warning: &Warning| match warning {
        Warning::UnknownVariable { variable } => variable.clone(),
        Warning::UnknownKey { key } => key.clone(),
        Warning::NoEffect { flag, .. } => format!("{flag} has no effect"),
        Warning::Gate { gate, .. } => format!("{gate} has no effect"),
        Warning::Deprecated { text } => text.split(' ').next().unwrap_or_default().to_owned(),
        other => format!("{other:?}"),
    };
    run.warnings.iter().map(word).collect()
}

#[test]
fn kubeadms_command_line() {
    let line = filled(KUBEADM, &[("pki", "/etc/kubernetes/pki/etcd"), ("data", "/var/lib/etcd")]);
    let line: Vec<_> = ["client", "client2", "peer", "metrics"]
        .iter()
        .zip(["2379", "2378", "2380", "2381"])
        .fold(line, |line, (name, port)| line.replace(&format!("{{{name}}}"), port))
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let run = run(&line, &[]);
    // Members compare themselves all the time, and not at the start alone.
    let warns = ["InitialCorruptCheck has no effect"];
    assert_eq!(warned(&run), warns);
    assert_eq!(run.config.member.name, "node1");
    assert!(run.config.client_tls.client_cert_auth && run.config.peer_tls.client_cert_auth);
    // How a node joins: a learner of a cluster that is there.
    let joins = [line, vec!["--initial-cluster-state=existing".to_owned()]].concat();
    assert_eq!(warned(&self::run(&joins, &[])), warns);
}

#[test]
fn bitnamis_variables() {
    let run = run(&[], BITNAMI);
    let of_its_scripts = [
        "ETCD_ON_K8S",
        "ETCD_START_FROM_SNAPSHOT",
        "ETCD_DISASTER_RECOVERY",
        "ETCD_ROOT_PASSWORD",
        "ETCD_CLUSTER_DOMAIN",
        "ETCD_INIT_SNAPSHOT_FILENAME",
    ];
    assert_eq!(warned(&run), of_its_scripts);
    assert!(!format!("{:?}", run.warnings).contains("hunter2"));
    assert_eq!(run.config.member.data_dir.to_str(), Some("/bitnami/etcd/data"));
    assert_eq!(run.config.clustering.auto_compaction_retention, "10m");
}

#[test]
fn debians_variables() {
    let run = run(&[], DEBIAN);
    let of_old_times = [
        "ETCD_ENABLE_V2",
        "ETCD_PROXY",
        "ETCD_PROXY_FAILURE_WAIT",
        "ETCD_DEBUG",
        "ETCD_LOG_PACKAGE_LEVELS",
        "ETCD_LOG_OUTPUT",
    ];
    let flags = [
        "--max-snapshots",
        "discovery-fallback has no effect",
        "max-snapshots has no effect",
        "max-wals has no effect",
    ];
    assert_eq!(warned(&run), [&of_old_times[..], &flags].concat());
    assert_eq!(run.config.member.snapshot_count, 10_000);
}

#[test]
fn k3s_file() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("config");
    std::fs::write(&path, K3S).unwrap();
    let run = run(&[format!("--config-file={}", path.display())], &[]);
    let gone = ["experimental-initial-corrupt-check", "experimental-watch-progress-notify-interval"];
    assert_eq!(warned(&run), [&gone[..], &["logger has no effect"]].concat());
    assert_eq!(run.config.member.election_timeout, Duration::from_secs(5));
    assert_eq!(run.config.member.listen_client_urls.len(), 2);
    assert_eq!(run.config.member.listen_client_http_urls.len(), 1);
}

fn filled(text: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value))
}

/// Ends it whatever happens.
struct Process(std::process::Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process is gone already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubeadms_pod_is_live_and_ready() {
    let rusd = Some(env!("CARGO_BIN_EXE_rusd").into());
    for program in [peer("etcd", "kubeadm"), rusd].into_iter().flatten() {
        let dir = TempDir::new().unwrap();
        let authority = Authority::new("etcd-ca");
        authority.write(dir.path(), "ca");
        for name in ["server", "peer"] {
            authority.issue(dir.path(), name, &Wanted::default());
        }
        let ports: Vec<String> = (0..4).map(|_| ports::free().to_string()).collect();
        let (pki, data) = (dir.path().display().to_string(), dir.path().join("data").display().to_string());
        let values = [
            ("pki", &*pki),
            ("data", &*data),
            ("client", &*ports[0]),
            ("client2", &*ports[1]),
            ("peer", &*ports[2]),
            ("metrics", &*ports[3]),
        ];
        let log = File::create(dir.path().join("log")).unwrap();
        let child = Command::new(&program)
            .args(filled(KUBEADM, &values).split_whitespace())
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut process = Process(child);
        let begun = Instant::now();
        // The probes of the manifest: startup and readiness, then liveness.
        for probe in ["/readyz", "/livez", "/metrics"] {
            loop {
                let answer = page(&ports[3], probe).await;
                if answer.as_ref().is_ok_and(|answer| answer.starts_with("HTTP/1.0 200")) {
                    break;
                }
                let log = || std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
                let ended = process.0.try_wait().unwrap();
                assert!(ended.is_none(), "{} ended with {ended:?}\n{}", program.display(), log());
                assert!(begun.elapsed() < Duration::from_secs(60), "{probe}: {answer:?}\n{}", log());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn page(port: &str, path: &str) -> std::io::Result<String> {
    let mut socket = tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await?;
    socket.write_all(format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    Ok(answer)
}
