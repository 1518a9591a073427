//! A server process for a test: the real etcd or our own `rusd`, fresh, on loopback, gone at drop.
//!
//! ```text
//! Server::start(Kind, flags) ─► free ports, empty directory, child process ─► Status answers with a leader
//!                                                                      └──► died: its log is in the error
//! ```

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb::auth_client::AuthClient;
use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use rusd_proto::etcdserverpb::{AuthenticateRequest, StatusRequest};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::peers::peer;

pub(crate) mod ports;

/// Which server to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Etcd,
    Rusd,
}

/// A running server; killed and its directory removed at drop.
pub(crate) struct Server {
    program: PathBuf,
    flags: Vec<String>,
    dir: TempDir,
    port: u16,
    peer_port: u16,
    child: Child,
}

impl Server {
    /// Start a fresh server and wait until it serves. `None` if the real etcd isn't built (said loudly).
    ///
    /// # Panics
    /// When the server doesn't serve; the message holds the end of its log.
    pub(crate) async fn start(kind: Kind, flags: &[String], test: &str) -> Option<Self> {
        let program = match kind {
            Kind::Etcd => peer("etcd", test)?,
            Kind::Rusd => PathBuf::from(env!("CARGO_BIN_EXE_rusd")),
        };
        let mut refused = String::new();
        // Another process may take a port between our look and the server's bind.
        for _ in 0..3 {
            let dir = TempDir::new().expect("a temporary directory can be made");
            let (port, peer_port) = (ports::free(), ports::free());
            let mut all = arguments(&dir, port, peer_port);
            all.extend_from_slice(flags);
            let child = spawn(&program, &all, &dir);
            let mut server = Self { program: program.clone(), flags: all, dir, port, peer_port, child };
            match server.ready().await {
                Ok(()) => return Some(server),
                Err(error) => refused = error,
            }
        }
        panic!("{kind:?} does not serve: {refused}");
    }

    /// Where clients reach it, and where other members would.
    pub(crate) fn urls(&self) -> [String; 2] {
        [self.port, self.peer_port].map(|port| format!("http://127.0.0.1:{port}"))
    }

    /// A new connection.
    pub(crate) async fn connect(&self) -> Channel {
        let [client, _] = self.urls();
        Endpoint::from_shared(client)
            .expect("the address is well formed")
            .connect()
            .await
            .expect("a serving server accepts connections")
    }

    /// Kill without warning and start again on the same data.
    pub(crate) async fn restart(&mut self) {
        self.stop();
        self.child = spawn(&self.program, &self.flags, &self.dir);
        if let Err(error) = self.ready().await {
            panic!("the server does not come back: {error}");
        }
    }

    fn stop(&mut self) {
        // Both fail only if the process is gone already.
        self.child.kill().ok();
        self.child.wait().ok();
    }

    async fn ready(&mut self) -> Result<(), String> {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(30) {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("it ended with {status}\n{}", self.log_tail()));
            }
            let [client, _] = self.urls();
            let endpoint =
                Endpoint::from_shared(client).expect("the address is well formed").timeout(Duration::from_secs(2));
            if let Ok(channel) = endpoint.connect().await {
                match MaintenanceClient::new(channel.clone()).status(StatusRequest {}).await {
                    Ok(status) if status.get_ref().leader != 0 && self.has_cluster_version().await => return Ok(()),
                    // Authentication is on. Who logs in is answered once there is a leader.
                    Err(refused) if refused.code() == Code::InvalidArgument => {
                        let login = AuthClient::new(channel).authenticate(AuthenticateRequest::default()).await;
                        let is_led = login.is_err_and(|refused| refused.code() == Code::InvalidArgument);
                        if is_led && self.has_cluster_version().await {
                            return Ok(());
                        }
                    }
                    _ => {}
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(format!("no leader after 30 s\n{}", self.log_tail()))
    }

    /// Whether the cluster has agreed on its version, which comes a moment after a leader: until then etcd refuses some
    /// requests with `cluster version not found`, and leaves its version out of answers.
    async fn has_cluster_version(&self) -> bool {
        self.version()
            .await
            .is_ok_and(|answer| answer.contains("\"etcdcluster\":\"") && !answer.contains("not_decided"))
    }

    async fn version(&self) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.write_all(b"GET /version HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        let mut all = stream.take(64 << 10);
        tokio::time::timeout(Duration::from_secs(2), all.read_to_string(&mut answer)).await??;
        Ok(answer)
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn arguments(dir: &TempDir, port: u16, peer_port: u16) -> Vec<String> {
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer_port}"));
    vec![
        "--name=default".to_owned(),
        format!("--data-dir={}", dir.path().join("data").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
    ]
}

fn spawn(program: &PathBuf, flags: &[String], dir: &TempDir) -> Child {
    let log = File::options().create(true).append(true).open(dir.path().join("log")).expect("the log can be opened");
    let stdout = log.try_clone().expect("a file handle can be cloned");
    Command::new(program)
        .args(flags)
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()))
}
