//! One rusd process: started, killed, ended, waited for; its data directory outlives it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use tonic::transport::Channel;

use crate::client;

/// How long a start may take; the machine may be busy with other tests.
const READY_MAX: Duration = Duration::from_secs(60);

/// A member and where it lives. Killed at drop.
pub(crate) struct Member {
    log: PathBuf,
    port: u16,
    flags: Vec<String>,
    /// Variables of its environment beside the test's own.
    variables: Vec<(&'static str, String)>,
    child: Option<Child>,
}

impl Member {
    /// A member on `data` that is not started yet; its log goes to `log`.
    pub(crate) fn new(data: &Path, log: &Path, flags: &[String]) -> Self {
        let (client, peer) = (crate::ports::free(), crate::ports::free());
        let mut all = vec![
            format!("--data-dir={}", data.display()),
            format!("--listen-client-urls=http://127.0.0.1:{client}"),
            format!("--advertise-client-urls=http://127.0.0.1:{client}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
            format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
            format!("--initial-cluster=default=http://127.0.0.1:{peer}"),
        ];
        all.extend_from_slice(flags);
        Self { log: log.into(), port: client, flags: all, variables: Vec::new(), child: None }
    }

    /// Adds a variable to the environment of the processes to come.
    pub(crate) fn set_variable(&mut self, name: &'static str, value: String) {
        self.variables.push((name, value));
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts the process without waiting for anything.
    pub(crate) fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_rusd"))
            .args(&self.flags)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// Starts the process and waits until it answers.
    pub(crate) async fn start(&mut self) -> Channel {
        self.spawn();
        self.ready().await
    }

    /// Waits until it answers.
    pub(crate) async fn ready(&mut self) -> Channel {
        match self.ready_or_ended().await {
            Ok(channel) => channel,
            Err(status) => panic!("rusd ended with {status} instead of serving\n{}", self.log_tail()),
        }
    }

    /// Waits until it answers, or has ended by itself.
    pub(crate) async fn ready_or_ended(&mut self) -> Result<Channel, ExitStatus> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.as_mut().expect("it was started").try_wait().unwrap() {
                self.child = None;
                return Err(status);
            }
            if let Ok(channel) = client::connect(&self.url()).await
                && client::revision(&channel).await.is_ok()
            {
                return Ok(channel);
            }
            assert!(begun.elapsed() < READY_MAX, "not ready after {READY_MAX:?}\n{}", self.log_tail());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM; the exit is waited for.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        let child = self.child.as_ref().expect("it was started");
        kill_process(Pid::from_child(child), Signal::TERM).unwrap();
        self.ended(Duration::from_secs(30)).await.expect("it ends when it is asked to")
    }

    /// Waits until the process has ended by itself; `None` if it hasn't within `most`.
    pub(crate) async fn ended(&mut self, most: Duration) -> Option<ExitStatus> {
        let begun = Instant::now();
        while begun.elapsed() < most {
            let child = self.child.as_mut().expect("it was started");
            if let Some(status) = child.try_wait().unwrap() {
                self.child = None;
                return Some(status);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        None
    }

    /// Has the running process open no file any more whose number would be as high as that.
    pub(crate) fn allow_files(&self, most: u64) {
        let child = self.child.as_ref().expect("it was started");
        let maximum = getrlimit(Resource::Nofile).maximum;
        prlimit(Some(Pid::from_child(child)), Resource::Nofile, Rlimit { current: Some(most), maximum }).unwrap();
    }

    /// Whether the running process has this `NAME=value` in its environment.
    pub(crate) fn has_variable(&self, variable: &str) -> bool {
        let id = self.child.as_ref().expect("it was started").id();
        let all = fs::read(format!("/proc/{id}/environ")).unwrap();
        all.split(|byte| *byte == 0).any(|one| one == variable.as_bytes())
    }

    /// All that it and its predecessors on this data have said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The end of it.
    pub(crate) fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- end of rusd's log\n{}", self.log_tail());
        }
    }
}
