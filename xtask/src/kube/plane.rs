//! The control plane: three processes on loopback, with nothing but a token and a key to keep them safe.
//!
//! Everything lies below `target/kube/run`, made afresh at each start. A process that was started
//! here is ended here, by its own handle.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::sh;

const TOKEN: &str = "rusd-xtask";
const READY_MAX: Duration = Duration::from_secs(90);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A running control plane.
pub(super) struct Plane {
    programs: PathBuf,
    run: PathBuf,
    rusd: PathBuf,
    rusd_args: Vec<String>,
    store: Option<Child>,
    others: Vec<(&'static str, Child)>,
}

/// What kubectl answered.
pub(super) struct Answer {
    pub(super) ok: bool,
    pub(super) text: String,
}

fn port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Plane {
    pub(super) fn start(programs: &Path, rusd: &Path, backend: &str) -> Result<Self> {
        let run = sh::target().join("kube/run");
        if run.exists() {
            fs::remove_dir_all(&run)?;
        }
        fs::create_dir_all(&run)?;
        let (client, peer, secure, manager) = (port()?, port()?, port()?, port()?);
        let rusd_args = [
            ("data-dir", run.join("data").display().to_string()),
            ("backend", backend.to_owned()),
            ("listen-client-urls", format!("http://127.0.0.1:{client}")),
            ("advertise-client-urls", format!("http://127.0.0.1:{client}")),
            ("listen-peer-urls", format!("http://127.0.0.1:{peer}")),
            ("initial-advertise-peer-urls", format!("http://127.0.0.1:{peer}")),
            ("initial-cluster", format!("default=http://127.0.0.1:{peer}")),
            ("watch-progress-notify-interval", "5s".to_owned()),
        ]
        .map(|(name, value)| format!("--{name}={value}"))
        .to_vec();
        let mut plane =
            Self { programs: programs.into(), run, rusd: rusd.into(), rusd_args, store: None, others: Vec::new() };
        plane.write_files(secure)?;
        plane.start_store()?;
        plane.start_apiserver(client, secure)?;
        plane
            .wait("the apiserver", |plane| plane.kubectl(&["get", "--raw", "/readyz"]).is_ok_and(|answer| answer.ok))?;
        plane.start_manager(manager)?;
        Ok(plane)
    }

    fn path(&self, name: &str) -> String {
        self.run.join(name).display().to_string()
    }

    fn write_files(&self, secure: u16) -> Result<()> {
        fs::write(self.run.join("tokens.csv"), format!("{TOKEN},admin,admin,system:masters\n"))?;
        let kubeconfig = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: rusd\n\
             clusters:\n- name: rusd\n  cluster: {{server: 'https://127.0.0.1:{secure}', insecure-skip-tls-verify: true}}\n\
             users:\n- name: admin\n  user: {{token: {TOKEN}}}\n\
             contexts:\n- name: rusd\n  context: {{cluster: rusd, user: admin}}\n"
        );
        fs::write(self.run.join("kubeconfig"), kubeconfig)?;
        let key = self.path("sa.key");
        sh::output(sh::program("openssl", &self.run, &["genrsa", "-out", &key, "2048"]))?;
        Ok(())
    }

    fn spawn(&self, program: &Path, log: &str, args: &[String]) -> Result<Child> {
        let log = File::options().create(true).append(true).open(self.run.join(log))?;
        let child = Command::new(program)
            .args(args)
            .current_dir(&self.run)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(child)
    }

    /// Starts rusd on the data directory as it is, and waits until it is ready.
    pub(super) fn start_store(&mut self) -> Result<()> {
        let before = self.ready_lines();
        self.store = Some(self.spawn(&self.rusd, "rusd.log", &self.rusd_args)?);
        self.wait("rusd", |plane| plane.ready_lines() > before)
    }

    fn ready_lines(&self) -> usize {
        let log = fs::read_to_string(self.run.join("rusd.log")).unwrap_or_default();
        log.matches("ready to serve client requests").count()
    }

    /// Ends rusd as a power failure of the process would: SIGKILL.
    pub(super) fn kill_store(&mut self) -> Result<()> {
        let mut store = self.store.take().ok_or("rusd does not run")?;
        store.kill()?;
        store.wait()?;
        Ok(())
    }

    /// Resident memory of rusd in MiB.
    pub(super) fn store_memory_mib(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.store.as_ref()?.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
    }

    fn start_apiserver(&mut self, client: u16, secure: u16) -> Result<()> {
        let args = [
            ("etcd-servers", format!("http://127.0.0.1:{client}")),
            ("bind-address", "127.0.0.1".to_owned()),
            ("secure-port", secure.to_string()),
            // Not loopback, or the reconciler of the endpoints, which uses leases, doesn't run.
            ("advertise-address", "192.0.2.1".to_owned()),
            ("cert-dir", self.path("certs")),
            ("token-auth-file", self.path("tokens.csv")),
            ("authorization-mode", "Node,RBAC".to_owned()),
            ("service-cluster-ip-range", "10.96.0.0/16".to_owned()),
            ("service-account-issuer", "https://rusd.invalid".to_owned()),
            ("service-account-key-file", self.path("sa.key")),
            ("service-account-signing-key-file", self.path("sa.key")),
            ("disable-admission-plugins", "ServiceAccount".to_owned()),
            ("allow-privileged", "true".to_owned()),
        ];
        self.start_other("kube-apiserver", &args)
    }

    fn start_manager(&mut self, port: u16) -> Result<()> {
        let args = [
            ("kubeconfig", self.path("kubeconfig")),
            ("bind-address", "127.0.0.1".to_owned()),
            ("secure-port", port.to_string()),
            ("service-account-private-key-file", self.path("sa.key")),
            ("controllers", "*,-nodeipam".to_owned()),
            ("leader-elect", "false".to_owned()),
        ];
        self.start_other("kube-controller-manager", &args)
    }

    fn start_other(&mut self, name: &'static str, args: &[(&str, String)]) -> Result<()> {
        let args: Vec<_> = args.iter().map(|(name, value)| format!("--{name}={value}")).collect();
        let child = self.spawn(&self.programs.join(name), &format!("{name}.log"), &args)?;
        self.others.push((name, child));
        Ok(())
    }

    /// Whether the apiserver that was started at the beginning still runs.
    pub(super) fn apiserver_lives(&mut self) -> bool {
        self.others.iter_mut().any(|(name, child)| *name == "kube-apiserver" && matches!(child.try_wait(), Ok(None)))
    }

    /// A kubectl that is not started yet.
    pub(super) fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("kubectl"));
        command.arg("--kubeconfig").arg(self.run.join("kubeconfig")).args(args).current_dir(&self.run);
        command
    }

    /// Runs kubectl to its end.
    pub(super) fn kubectl(&self, args: &[&str]) -> Result<Answer> {
        let output = self.kubectl_command(args).stdin(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Ok(Answer { ok: output.status.success(), text })
    }

    /// Writes a manifest for kubectl's `-f`.
    pub(super) fn manifest(&self, name: &str, text: &str) -> Result<String> {
        let path = self.run.join(name);
        fs::write(&path, text)?;
        Ok(path.display().to_string())
    }

    /// Where a file of this run lies.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.run.join(name)
    }

    /// Asks until it is so.
    pub(super) fn wait(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) -> Result<()> {
        let begun = Instant::now();
        while !is_so(self) {
            if begun.elapsed() > READY_MAX {
                return Err(format!("{what}: not within {} s", READY_MAX.as_secs()).into());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// The ends of all logs, for whoever has to find out why.
    pub(super) fn show_logs(&self) {
        for name in ["rusd", "kube-apiserver", "kube-controller-manager"] {
            let log = fs::read_to_string(self.run.join(format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- end of {name}.log\n{}", lines[lines.len().saturating_sub(15)..].join("\n"));
        }
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        for (_, mut child) in self.others.drain(..).rev() {
            // Already ended is as good as ended now.
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Some(mut store) = self.store.take() {
            let _ = store.kill();
            let _ = store.wait();
        }
    }
}
