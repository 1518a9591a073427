//! The control plane: an apiserver on the store, controller manager, scheduler and kwok, all on loopback under TLS.
//!
//! Everything lies in one directory, made afresh at each start. A process that was started here is ended here, by its
//! own handle.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::api::Api;
use super::store::{MEMBERS, Program, Store};
use super::usage::{self, Usage};
use crate::certs::{self, Authority, Pair};
use crate::secure::{Dialer, Speech};
use crate::{ports, sh};

const WAIT_MAX: Duration = Duration::from_secs(180);
const APISERVER: &str = "kube-apiserver";
/// A member of this group may do everything.
const ADMIN: &str = "/O=system:masters/CN=admin";

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What differs between one control plane and another.
pub(super) struct Settings {
    pub(super) store: Program,
    /// Requests a second that the controllers and the scheduler may make of the apiserver.
    pub(super) rate: u32,
    /// How often the apiserver compacts the store.
    pub(super) compaction: &'static str,
}

/// A running control plane.
pub(super) struct Plane {
    programs: PathBuf,
    run: PathBuf,
    pub(super) store: Store,
    pub(super) runtime: Arc<Runtime>,
    others: Vec<Other>,
    dialer: Dialer,
    apiserver: SocketAddr,
    /// Nobody else's run is in the same directory.
    _lock: File,
}

struct Other {
    name: &'static str,
    start: Command,
    child: Child,
}

/// What kubectl answered.
pub(super) struct Answer {
    pub(super) ok: bool,
    pub(super) text: String,
}

impl Plane {
    /// Starts all of it in a directory of its own, and waits until the apiserver is ready.
    pub(super) fn start(programs: &Path, run: &Path, settings: &Settings) -> Result<Self> {
        let lock = sh::alone(run)?;
        if run.exists() {
            fs::remove_dir_all(run)?;
        }
        fs::create_dir_all(run)?;
        let runtime = Arc::new(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?);
        let store = Store::start(&settings.store, run, runtime.clone())?;
        let authority = Authority::new(&run.join("kube-tls"), "kube-ca")?;
        let server =
            authority.issue("apiserver", "/CN=kube-apiserver", certs::Usage::Server, "IP:127.0.0.1,DNS:localhost")?;
        let admin = authority.issue("admin", ADMIN, certs::Usage::Client, "")?;
        let dialer = Dialer::new(&authority.ca(), &admin, "localhost", Speech::Http1)?;
        let ports = ports::free(4)?;
        let apiserver = SocketAddr::from(([127, 0, 0, 1], ports[0]));
        write_files(run, apiserver, &authority.ca(), &admin)?;
        let (programs, run) = (programs.to_owned(), run.to_owned());
        let mut plane = Self { programs, run, store, runtime, others: Vec::new(), dialer, apiserver, _lock: lock };
        plane.start_apiserver(&authority.ca(), &server, settings.compaction)?;
        plane.wait_until_ready()?;
        plane.start_controllers([ports[1], ports[2], ports[3]], settings.rate)?;
        Ok(plane)
    }

    fn path(&self, name: &str) -> String {
        self.run.join(name).display().to_string()
    }

    fn start_apiserver(&mut self, ca: &Path, server: &Pair, compaction: &str) -> Result<()> {
        let show = |path: &Path| path.display().to_string();
        let args = [
            ("etcd-servers", self.store.urls()),
            ("etcd-cafile", show(&self.store.ca)),
            ("etcd-certfile", show(&self.store.client.cert)),
            ("etcd-keyfile", show(&self.store.client.key)),
            ("etcd-compaction-interval", compaction.to_owned()),
            ("bind-address", "127.0.0.1".to_owned()),
            ("secure-port", self.apiserver.port().to_string()),
            // Not loopback, or the reconciler of the endpoints, which uses leases, doesn't run.
            ("advertise-address", "192.0.2.1".to_owned()),
            ("tls-cert-file", show(&server.cert)),
            ("tls-private-key-file", show(&server.key)),
            ("client-ca-file", show(ca)),
            ("authorization-mode", "Node,RBAC".to_owned()),
            ("service-cluster-ip-range", "10.96.0.0/16".to_owned()),
            ("service-account-issuer", "https://rusd.invalid".to_owned()),
            ("service-account-key-file", self.path("sa.key")),
            ("service-account-signing-key-file", self.path("sa.key")),
            ("disable-admission-plugins", "ServiceAccount".to_owned()),
            ("allow-privileged", "true".to_owned()),
        ];
        self.start_other(APISERVER, &args)
    }

    fn start_controllers(&mut self, [manager, scheduler, kwok]: [u16; 3], rate: u32) -> Result<()> {
        let common = |port: u16| {
            vec![
                ("kubeconfig", self.path("kubeconfig")),
                ("bind-address", "127.0.0.1".to_owned()),
                ("secure-port", port.to_string()),
                ("cert-dir", self.path("own-tls")),
                ("kube-api-qps", rate.to_string()),
                ("kube-api-burst", (2 * rate).to_string()),
                // An apiserver that is started again must not cost them their lead.
                ("leader-elect-lease-duration", "60s".to_owned()),
                ("leader-elect-renew-deadline", "45s".to_owned()),
            ]
        };
        let mut args = common(manager);
        args.push(("service-account-private-key-file", self.path("sa.key")));
        args.push(("controllers", "*,-node-ipam-controller".to_owned()));
        let scheduler = common(scheduler);
        self.start_other("kube-controller-manager", &args)?;
        self.start_other("kube-scheduler", &scheduler)?;
        let args = [
            ("kubeconfig", self.path("kubeconfig")),
            ("config", self.programs.join("stages.yaml").display().to_string()),
            ("manage-all-nodes", "true".to_owned()),
            // Each is renewed every ten seconds.
            ("node-lease-duration-seconds", "40".to_owned()),
            ("server-address", format!("127.0.0.1:{kwok}")),
        ];
        self.start_other("kwok", &args)
    }

    fn start_other(&mut self, name: &'static str, args: &[(&str, String)]) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.run.join(format!("{name}.log")))?;
        let mut start = sh::bound(&self.programs.join(name));
        start
            .args(args.iter().map(|(name, value)| format!("--{name}={value}")))
            .current_dir(&self.run)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = start.spawn().map_err(|error| format!("{name}: `setpriv`: {error}"))?;
        self.others.push(Other { name, start, child });
        Ok(())
    }

    /// Waits until the apiserver says so itself.
    pub(super) fn wait_until_ready(&mut self) -> Result<()> {
        self.wait("the apiserver", |plane| {
            let asked = plane.runtime.block_on(plane.api().get("/readyz"));
            asked.is_ok_and(|answer| answer.is_ok())
        })
    }

    /// A client of the apiserver.
    pub(super) fn api(&self) -> Api {
        Api::new(self.dialer.clone(), self.apiserver)
    }

    /// The first process of ours that has ended by itself.
    pub(super) fn ended(&mut self) -> Option<&'static str> {
        let has_ended = |other: &mut Other| !matches!(other.child.try_wait(), Ok(None));
        self.others.iter_mut().find_map(|other| has_ended(other).then_some(other.name))
    }

    /// What the processes of the control plane use, the store's apart.
    pub(super) fn usage(&self) -> Usage {
        self.others.iter().fold(Usage::default(), |sum, other| sum.with(usage::of_process(other.child.id())))
    }

    /// Ends the apiserver and starts it again: its caches are filled from the store.
    pub(super) fn restart_apiserver(&mut self) -> Result<()> {
        self.stop_apiserver()?;
        self.start_apiserver_again()
    }

    /// Ends it without a word, as orderly it would wait a minute for its watchers.
    pub(super) fn stop_apiserver(&mut self) -> Result<()> {
        let other = self.the_apiserver()?;
        other.child.kill()?;
        other.child.wait()?;
        Ok(())
    }

    /// Starts the one that was ended.
    pub(super) fn start_apiserver_again(&mut self) -> Result<()> {
        let other = self.the_apiserver()?;
        other.child = other.start.spawn()?;
        Ok(())
    }

    fn the_apiserver(&mut self) -> Result<&mut Other> {
        Ok(self.others.iter_mut().find(|other| other.name == APISERVER).ok_or("there is no apiserver")?)
    }

    /// A kubectl that is not started yet.
    pub(super) fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("kubectl"));
        command.arg("--kubeconfig").arg(self.run.join("kubeconfig")).args(args).current_dir(&self.run);
        command.env("HOME", &self.run);
        command
    }

    /// Runs kubectl to its end.
    pub(super) fn kubectl(&self, args: &[&str]) -> Result<Answer> {
        let output = self.kubectl_command(args).stdin(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Ok(Answer { ok: output.status.success(), text })
    }

    /// The class of volumes that kwok provides.
    pub(super) fn storage_class(&self) -> String {
        self.programs.join("class.yaml").display().to_string()
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
            if begun.elapsed() > WAIT_MAX {
                return Err(format!("{what}: not within {} s", WAIT_MAX.as_secs()).into());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// The ends of all logs, for whoever has to find out why.
    pub(super) fn show_logs(&self) {
        let others = self.others.iter().map(|other| self.run.join(format!("{}.log", other.name)));
        for path in (0..MEMBERS).map(|at| self.store.log(at)).chain(others) {
            let log = fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- end of {}\n{}", path.display(), lines[lines.len().saturating_sub(12)..].join("\n"));
        }
    }

    /// Ends the control plane, then the store, and leaves no data behind.
    pub(super) fn remove(mut self) -> Result<()> {
        self.end_others();
        self.store.stop();
        self.store.remove_data()
    }

    fn end_others(&mut self) {
        for other in self.others.iter_mut().rev() {
            // Already ended is as good as ended now.
            let _ = other.child.kill();
            let _ = other.child.wait();
        }
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.end_others();
    }
}

fn write_files(run: &Path, apiserver: SocketAddr, ca: &Path, admin: &Pair) -> Result<()> {
    let (ca, cert, key) = (ca.display(), admin.cert.display(), admin.key.display());
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: rusd\n\
         clusters:\n- name: rusd\n  cluster: {{server: 'https://{apiserver}', certificate-authority: '{ca}'}}\n\
         users:\n- name: admin\n  user: {{client-certificate: '{cert}', client-key: '{key}'}}\n\
         contexts:\n- name: rusd\n  context: {{cluster: rusd, user: admin}}\n"
    );
    fs::write(run.join("kubeconfig"), kubeconfig)?;
    let key = run.join("sa.key");
    let key = key.to_str().ok_or("the target directory's path is not text")?;
    sh::output(sh::program("openssl", run, &["genrsa", "-out", key, "2048"]))?;
    Ok(())
}
