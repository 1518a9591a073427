//! Pods: each has an address, a name and a volume; all see the same names.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Pods that a set may have.
const PODS: u8 = 5;
/// How long anything may take before the test has failed: two cores are shared by much.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);
const CLIENT: u16 = 21_379;
const PEER: u16 = 21_380;
const METRICS: u16 = 21_381;
/// What distinguishes the sets of this process.
static NEXT: AtomicU8 = AtomicU8::new(0);
const NAMES: &str = "headless.space.svc";

/// A StatefulSet called `rusd`.
pub(crate) struct Set {
    dir: TempDir,
    net: u8,
    /// Whoever holds this port of an address that no pod has, has all addresses of the net.
    _claim: TcpListener,
    pods: Vec<Option<Child>>,
}

impl Set {
    /// No pods yet. `None`, said loudly, where there are no mount namespaces.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let tried = Command::new("unshare").args(["--mount", "true"]).output();
        if !tried.as_ref().is_ok_and(|tried| tried.status.success()) {
            // Not println!: the harness would keep it to itself.
            writeln!(std::io::stdout(), "SKIPPED {test}: no mount namespaces here: {tried:?}").ok();
            return None;
        }
        // Other tests may run at the same time: a set has addresses of its own.
        let bind = |net: u8, at: u8| TcpListener::bind((format!("127.7.{net}.{at}"), CLIENT)).ok();
        let first = std::process::id().to_le_bytes()[0];
        let mut nets = (0..=u8::MAX).map(|_| first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)));
        // Pods of a test that was killed may still be there.
        let claimed =
            nets.find_map(|net| bind(net, PODS + 1).filter(|_| bind(net, 1).is_some()).map(|claim| (net, claim)));
        let (net, claim) = claimed.expect("addresses of loopback");
        let dir = TempDir::new().expect("a directory");
        let hosts = (0..PODS).map(|at| format!("127.7.{net}.{} rusd-{at}.{NAMES}\n", at + 1));
        let hosts: String = ["127.0.0.1 localhost\n".to_owned()].into_iter().chain(hosts).collect();
        fs::write(dir.path().join("hosts"), hosts).expect("names");
        Some(Self { dir, net, _claim: claim, pods: (0..PODS).map(|_| None).collect() })
    }

    /// A command that sees the names.
    fn command(&self, arguments: &[String]) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""])
            .arg(self.dir.path().join("hosts"))
            .arg(env!("CARGO_BIN_EXE_rusd"))
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// What a subcommand says.
    pub(crate) fn run(&self, arguments: &str) -> Output {
        let endpoints = (0..PODS).map(|at| format!("http://rusd-{at}.{NAMES}:{CLIENT}")).collect::<Vec<_>>().join(",");
        let arguments: Vec<_> =
            arguments.split(' ').map(str::to_owned).chain([format!("--endpoints={endpoints}")]).collect();
        self.command(&arguments).output().expect("rusd runs")
    }

    pub(crate) fn volume(&self, at: u8) -> PathBuf {
        self.dir.path().join(format!("volume-{at}"))
    }

    /// Starts a pod of a set of so many, as the chart does.
    pub(crate) fn start(&mut self, at: u8, replicas: u8, more: &[&str]) {
        let name = format!("rusd-{at}");
        let (address, host) = (format!("127.7.{}.{}", self.net, at + 1), format!("{name}.{NAMES}"));
        let mut arguments: Vec<String> = [
            "pod".to_owned(),
            "start".to_owned(),
            format!("--replicas={replicas}"),
            format!("--name={name}"),
            format!("--data-dir={}", self.volume(at).join("data").display()),
            format!("--listen-client-urls=http://{address}:{CLIENT}"),
            format!("--advertise-client-urls=http://{host}:{CLIENT}"),
            format!("--listen-peer-urls=http://{address}:{PEER}"),
            format!("--initial-advertise-peer-urls=http://{host}:{PEER}"),
            format!("--listen-metrics-urls=http://{address}:{METRICS}"),
            "--initial-cluster-token=space/rusd".to_owned(),
            "--auto-promote-learners".to_owned(),
        ]
        .into();
        arguments.extend(more.iter().map(|flag| (*flag).to_owned()));
        fs::create_dir_all(self.volume(at)).expect("a volume");
        let log = File::options().create(true).append(true).open(self.log(at)).expect("a log");
        let mut command = self.command(&arguments);
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("the pod starts");
        self.pods[usize::from(at)] = Some(child);
    }

    fn log(&self, at: u8) -> PathBuf {
        self.dir.path().join(format!("log-{at}"))
    }

    /// All that a pod has logged.
    pub(crate) fn logged(&self, at: u8) -> String {
        fs::read_to_string(self.log(at)).unwrap_or_default()
    }

    /// Ends a pod as kubelet does.
    pub(crate) fn stop(&mut self, at: u8) {
        let mut child = self.pods[usize::from(at)].take().expect("the pod runs");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::TERM).expect("it is there");
        child.wait().expect("it ends");
    }

    /// Waits until a pod's process has ended by itself.
    pub(crate) fn ended(&mut self, at: u8) {
        let begun = Instant::now();
        let child = self.pods[usize::from(at)].as_mut().expect("the pod runs");
        let status = loop {
            if let Some(status) = child.try_wait().expect("a child of ours") {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "pod {at} doesn't end:\n{}", tail(&self.logged(at)));
            std::thread::sleep(Duration::from_millis(50));
        };
        self.pods[usize::from(at)] = None;
        assert!(status.success(), "{status}: {}", tail(&self.logged(at)));
    }

    /// Ends a pod as a broken node does.
    pub(crate) fn kill(&mut self, at: u8) {
        let mut child = self.pods[usize::from(at)].take().expect("the pod runs");
        child.kill().expect("it is there");
        child.wait().expect("it ends");
    }

    /// The members' state, whoever tells of it.
    pub(crate) fn status(&self, flags: &str) -> Value {
        let output = self.run(&format!("status -w=json --cluster --dial-timeout=1s --command-timeout=3s{flags}"));
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Waits until there are so many members, all of them voters that are well.
    pub(crate) fn well(&self, members: usize) -> Value {
        let begun = Instant::now();
        loop {
            let status = self.status(&format!(" --members={members}"));
            let rows = status["members"].as_array().map_or(&[][..], Vec::as_slice);
            let votes = rows.iter().filter(|row| row["role"] == "leader" || row["role"] == "follower").count();
            if status["well"] == true && rows.len() == members && votes == members {
                return status;
            }
            if begun.elapsed() > PATIENCE {
                let logs: Vec<_> = (0..PODS).map(|at| tail(&self.logged(at))).collect();
                panic!("there should be {members} members that are well: {status:#}\n{}", logs.join("\n---\n"));
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Waits until a pod's log holds a text more often than `before`.
    pub(crate) fn says(&self, at: u8, text: &str, before: usize) {
        let begun = Instant::now();
        while self.logged(at).matches(text).count() <= before {
            assert!(begun.elapsed() < PATIENCE, "pod {at} doesn't say {text:?}:\n{}", tail(&self.logged(at)));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The status that a page of the metrics' port answers with, by HTTP/1.0.
    pub(crate) fn page(&self, at: u8, path: &str) -> Option<u16> {
        use std::io::Read as _;
        let mut stream = std::net::TcpStream::connect((format!("127.7.{}.{}", self.net, at + 1), METRICS)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    }

    /// Where clients reach a pod, by its address.
    pub(crate) fn client(&self, at: u8) -> String {
        format!("http://127.7.{}.{}:{CLIENT}", self.net, at + 1)
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        for child in self.pods.iter_mut().flatten() {
            // Both fail only if the process is gone already.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}
