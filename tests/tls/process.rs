//! One `rusd` process, or the real etcd beside it, and the real etcdctl against it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::peers::peer;
use crate::ports;

/// Longest wait for what must come.
pub(crate) const COMES_MAX: Duration = Duration::from_secs(60);

/// Where the certificates and the processes' data lie, and a shorthand for flags.
pub(crate) struct Place(pub(crate) TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().expect("a directory"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// A flag with a path.
pub(crate) fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

/// A member; killed at drop.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) client: String,
    pub(crate) peer: String,
    pub(crate) dir: PathBuf,
    pub(crate) flags: Vec<String>,
    program: PathBuf,
    child: Option<Child>,
}

impl Member {
    /// A member with URLs of these schemes; not started.
    pub(crate) fn new(place: &Place, name: &str, client: &str, peer: &str) -> Self {
        let dir = place.path().join(name);
        fs::create_dir(&dir).expect("a directory");
        let url = |scheme: &str| match scheme {
            "unix" | "unixs" => format!("{scheme}://{}", place.path().join(format!("{name}.sock")).display()),
            _ => format!("{scheme}://localhost:{}", ports::free()),
        };
        let (client, peer) = (url(client), url(peer));
        Self {
            name: name.to_owned(),
            client,
            peer,
            dir,
            flags: Vec::new(),
            program: env!("CARGO_BIN_EXE_rusd").into(),
            child: None,
        }
    }

    /// Gives it the flags that every member has, and these.
    pub(crate) fn with(mut self, more: &[String]) -> Self {
        let initial = format!("{}={}", self.name, self.peer);
        self.set_flags(&initial, more);
        self
    }

    pub(crate) fn set_flags(&mut self, initial: &str, more: &[String]) {
        self.flags = vec![
            format!("--name={}", self.name),
            flag("data-dir", &self.dir.join("data")),
            format!("--listen-client-urls={}", self.client),
            format!("--advertise-client-urls={}", self.client),
            format!("--listen-peer-urls={}", self.peer),
            format!("--initial-advertise-peer-urls={}", self.peer),
            format!("--initial-cluster={initial}"),
        ];
        self.flags.extend_from_slice(more);
    }

    /// Another program than rusd.
    pub(crate) fn run_by(mut self, program: PathBuf) -> Self {
        self.program = program;
        self
    }

    pub(crate) fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.dir.join("log")).expect("a log");
        let child = Command::new(&self.program)
            .args(&self.flags)
            .arg("--log-format=json")
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a handle"))
            .stderr(log)
            .spawn();
        self.child = Some(child.expect("it starts"));
    }

    /// Starts it and waits until it says that it is ready.
    pub(crate) fn started(mut self) -> Self {
        self.start();
        self.ready();
        self
    }

    pub(crate) fn ready(&mut self) {
        self.says("ready to serve client requests");
    }

    /// Waits until its log has these words.
    pub(crate) fn says(&mut self, words: &str) {
        let begun = Instant::now();
        while !self.log().contains(words) {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("a child of ours"));
            assert!(ended.is_none(), "{} ended:\n{}", self.name, self.log());
            assert!(begun.elapsed() < COMES_MAX, "{} never says {words:?}:\n{}", self.name, self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end of a process that refuses to start; its log.
    pub(crate) fn refuses(mut self) -> String {
        self.start();
        let begun = Instant::now();
        let child = self.child.as_mut().expect("started");
        while child.try_wait().expect("a child of ours").is_none() {
            assert!(begun.elapsed() < COMES_MAX, "it runs:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.log()
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only if the process is gone already.
            child.kill().ok();
            child.wait().ok();
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Runs etcdctl against it; `None` if it isn't built.
    pub(crate) fn ctl(&self, tls: &[String], args: &[&str]) -> Option<Result<String, String>> {
        self.ctl_at(&self.client, tls, args)
    }

    /// The same at another endpoint.
    pub(crate) fn ctl_at(&self, endpoint: &str, tls: &[String], args: &[&str]) -> Option<Result<String, String>> {
        let output = Command::new(peer("etcdctl", "tls")?)
            .current_dir(&self.dir)
            .arg(format!("--endpoints={endpoint}"))
            .args(["--dial-timeout=3s", "--command-timeout=5s"])
            .args(tls)
            .args(args)
            .output()
            .expect("etcdctl starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some(if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) })
    }

    /// That etcdctl can write and read, once whatever election there is is over.
    pub(crate) fn serves(&self, tls: &[String], key: &str) {
        self.answers(tls, &["put", key, "v"], "OK\n");
        self.answers(tls, &["get", key, "--print-value-only"], "v\n");
    }

    fn answers(&self, tls: &[String], args: &[&str], wanted: &str) {
        let begun = Instant::now();
        while let Some(answer) = self.ctl(tls, args) {
            match answer {
                Ok(text) => return assert_eq!(text, wanted, "{}", self.log()),
                Err(error) => assert!(begun.elapsed() < COMES_MAX, "{args:?}: {error}\n{}", self.log()),
            }
        }
    }

    /// That etcdctl is not let in.
    pub(crate) fn turns_away(&self, tls: &[String], why: &str) {
        let Some(got) = self.ctl(tls, &["get", "k"]) else { return };
        assert!(got.is_err(), "{why}: {got:?}\n{}", self.log());
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}
