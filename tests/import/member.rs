//! A server on a directory of the test's choice, and etcd's tools beside it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use crate::ports;

/// A running server; killed at drop.
pub(crate) struct Member {
    pub(crate) child: Child,
    pub(crate) port: u16,
    log: PathBuf,
}

/// Where a member of a cluster is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) port: u16,
    pub(crate) peer_port: u16,
}

impl Place {
    pub(crate) fn free() -> Self {
        Self { port: ports::free(), peer_port: ports::free() }
    }

    pub(crate) fn client(self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn peer(self) -> String {
        format!("http://127.0.0.1:{}", self.peer_port)
    }

    /// The flags that say who it is.
    pub(crate) fn identity(self, data: &Path) -> Vec<String> {
        vec![
            "--name=default".into(),
            format!("--data-dir={}", data.display()),
            format!("--initial-advertise-peer-urls={}", self.peer()),
            format!("--initial-cluster=default={}", self.peer()),
        ]
    }

    /// The flags that say where it listens.
    pub(crate) fn listeners(self) -> Vec<String> {
        vec![
            format!("--listen-client-urls={}", self.client()),
            format!("--advertise-client-urls={}", self.client()),
            format!("--listen-peer-urls={}", self.peer()),
        ]
    }

    pub(crate) fn flags(self, data: &Path) -> Vec<String> {
        [self.identity(data), self.listeners()].concat()
    }
}

/// The program to try: this tree's, or what `cargo xtask import --rusd PATH` names.
pub(crate) fn rusd() -> PathBuf {
    std::env::var_os("RUSD_IMPORT_PROGRAM").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_rusd")), PathBuf::from)
}

impl Member {
    /// Starts a program and waits until it serves.
    pub(crate) async fn start(program: &Path, place: Place, flags: &[String], log: &Path) -> Self {
        let mut member = Self::spawn(program, place, flags, log);
        member.ready().await;
        member
    }

    /// Starts a program.
    pub(crate) fn spawn(program: &Path, place: Place, flags: &[String], log: &Path) -> Self {
        let out = File::options().create(true).append(true).open(log).unwrap();
        let child = Command::new(program)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        Self { child, port: place.port, log: log.to_owned() }
    }

    /// Waits until it serves and has a leader.
    pub(crate) async fn ready(&mut self) {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(600) {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("it ended with {status}:\n{}", self.log());
            }
            if let Ok(channel) = self.endpoint().connect().await {
                match MaintenanceClient::new(channel).status(pb::StatusRequest {}).await {
                    Ok(status) if status.get_ref().leader != 0 => return,
                    // Authentication is on.
                    Err(refused) if refused.code() == Code::InvalidArgument => return,
                    _ => {}
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it doesn't serve:\n{}", self.log());
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://127.0.0.1:{}", self.port)).unwrap()
    }

    pub(crate) fn channel(&self) -> Channel {
        self.endpoint().connect_lazy()
    }

    pub(crate) fn log(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Ends it as an operator does.
    pub(crate) fn end(mut self) {
        let id = self.child.id().to_string();
        run(Path::new("kill"), &["-TERM".into(), id]);
        self.child.wait().unwrap();
    }

    /// etcd's hash of all keys, at the latest revision.
    pub(crate) async fn hash_kv(&self, token: Option<&str>) -> (u32, i64) {
        let mut request = Request::new(pb::HashKvRequest { revision: 0 });
        if let Some(token) = token {
            request.metadata_mut().insert("token", token.parse().unwrap());
        }
        let answer = MaintenanceClient::new(self.channel()).hash_kv(request).await.unwrap().into_inner();
        (answer.hash, answer.header.unwrap().revision)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a program to its end.
pub(crate) fn run(program: &Path, arguments: &[String]) -> Output {
    Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// The same, which must succeed; its output.
pub(crate) fn must(program: &Path, arguments: &[String]) -> String {
    let output = run(program, arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Words of a command line, with what the test puts in.
pub(crate) fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}
