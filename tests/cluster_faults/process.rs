//! One member's process: its flags, its files, where clients reach it; killed at drop.
//!
//! ```text
//! Process::new(what belongs to it) ─► spawn ─► … kill, pause, terminate … ─► spawn again, on the same data
//! ```
//! It can be run under another program (`within`), as one that puts it into a namespace, with variables in its
//! environment, and by another `rusd` than the one that is tested.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tonic::transport::{Channel, Endpoint};

use crate::cluster::COMES_MAX;

/// No call takes longer: above what a member waits for the others, the calm ones' 13 s as well.
pub(crate) const CALL_MAX: Duration = Duration::from_secs(18);

/// Where a member listens.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Client URL.
    pub(crate) client: String,
    /// Where it listens for the other members, and where they are told to call.
    pub(crate) peer: [String; 2],
    /// Where its failpoints listen.
    #[cfg(feature = "failpoints")]
    pub(crate) failpoints: u16,
}

/// A process that runs or doesn't.
pub(crate) struct Process {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) program: PathBuf,
    /// The program that starts it, with its arguments; empty for none.
    pub(crate) within: Vec<String>,
    pub(crate) variables: Vec<(String, String)>,
    flags: Vec<String>,
    log: PathBuf,
    /// Not in a test's way when it is asked for the leader; made anew by itself after the member was away.
    pub(crate) channel: Channel,
    child: Option<Child>,
}

impl Process {
    /// One that doesn't run yet, with its data in `data` and its log in `dir`.
    pub(crate) fn new(name: &str, dir: &Path, data: &Path, place: Place, program: &Path, flags: &[String]) -> Self {
        let [listen, advertised] = &place.peer;
        let mut own = vec![
            format!("--name={name}"),
            format!("--data-dir={}", data.display()),
            format!("--listen-client-urls={}", place.client),
            format!("--advertise-client-urls={}", place.client),
            format!("--listen-peer-urls={listen}"),
            format!("--initial-advertise-peer-urls={advertised}"),
        ];
        own.extend_from_slice(flags);
        let endpoint = Endpoint::from_shared(place.client.clone()).unwrap();
        Self {
            name: name.to_owned(),
            channel: endpoint.timeout(CALL_MAX).tcp_nodelay(true).connect_lazy(),
            place,
            program: program.to_owned(),
            within: Vec::new(),
            variables: Vec::new(),
            flags: own,
            log: dir.join(format!("{name}.log")),
            child: None,
        }
    }

    /// Sets a flag, in the place of the one that it has, if it has.
    pub(crate) fn set_flag(&mut self, name: &str, value: &str) {
        let start = format!("--{name}=");
        self.flags.retain(|flag| !flag.starts_with(&start));
        self.flags.push(format!("{start}{value}"));
    }

    /// The value of a flag that it has.
    pub(crate) fn flag(&self, name: &str) -> &str {
        let start = format!("--{name}=");
        self.flags.iter().find_map(|flag| flag.strip_prefix(&start)).expect("it has this flag")
    }

    /// Starts it, without waiting for anything; gives its process id.
    pub(crate) fn spawn(&mut self, variables: &[(&str, &str)]) -> u32 {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut words = self.within.iter().map(String::as_str).chain(self.program.to_str()).chain(self.words());
        let mut command = Command::new(words.next().unwrap());
        #[cfg(feature = "failpoints")]
        command.env("GOFAIL_HTTP", format!("127.0.0.1:{}", self.place.failpoints));
        let child = command
            .args(words)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .envs(variables.iter().copied())
            .current_dir(self.log.parent().unwrap())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let pid = child.id();
        self.child = Some(child);
        pid
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        self.flags.iter().map(String::as_str)
    }

    /// Its process id; it runs.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().expect("it was started").id()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// How it ended, if it was started and isn't there any more.
    pub(crate) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().expect("it was started").try_wait().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().expect("it was started")), signal).unwrap();
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.has_ended() {
                self.child = None;
                return status;
            }
            assert!(begun.elapsed() < COMES_MAX, "{} doesn't end", self.name);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// All that it has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let (name, log) = (&self.name, self.log());
        assert!(std::thread::panicking() || !log.contains("panicked"), "{name} panicked:\n{log}");
        if std::thread::panicking() {
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- end of {name}'s log\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
        }
    }
}
