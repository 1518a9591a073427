//! A container of the image, as a kubelet has it made: by runc, with less than it usually gets.
//!
//! ```text
//! config of the image ─► spec (root read-only, no capabilities, no new privileges, RuntimeDefault's seccomp) ─► runc run
//!                                                 its log ─► ready? ◄── runc exec (health check), runc kill TERM
//! ```

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::seccomp;
use crate::{sh, yaml};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What the server logs once it serves.
const READY: &str = "ready to serve client requests";
const READY_MAX: Duration = Duration::from_secs(60);
const STOP_MAX: Duration = Duration::from_secs(40);

/// In whose network it is.
pub(super) enum Net {
    /// One of its own, with nothing but loopback.
    Own,
    /// That of a name which `ip netns` knows.
    Named(String),
}

/// What is to be run.
pub(super) struct Plan<'a> {
    pub(super) name: &'a str,
    /// The unpacked image.
    pub(super) root: &'a Path,
    /// The image's config.
    pub(super) config: &'a Value,
    /// In place of the image's entrypoint, as a pod's `command`.
    pub(super) command: Option<Vec<String>>,
    pub(super) args: Vec<String>,
    /// From here, to there; nothing else can be written.
    pub(super) mounts: Vec<(PathBuf, String)>,
    pub(super) net: Net,
}

impl Plan<'_> {
    /// Entrypoint and arguments, and their environment.
    fn spec(&self) -> Result<Value> {
        let inner = &self.config["config"];
        let mut args = self.command.clone().unwrap_or_else(|| yaml::texts(&inner["Entrypoint"]));
        args.extend(self.args.iter().cloned());
        let user = inner["User"].as_str().ok_or("an image without a user")?;
        let (uid, gid) = user.split_once(':').ok_or("a user without a group")?;
        let (uid, gid): (u32, u32) = (uid.parse()?, gid.parse()?);
        let none: [&str; 0] = [];
        let mut namespaces: Vec<Value> = ["pid", "ipc", "uts", "mount"].map(|kind| json!({"type": kind})).to_vec();
        namespaces.push(match &self.net {
            Net::Own => json!({"type": "network"}),
            Net::Named(name) => json!({"type": "network", "path": format!("/run/netns/{name}")}),
        });
        let mount = |kind: &str, to: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": kind, "options": options});
        let mut mounts = vec![
            mount("proc", "/proc", &["nosuid", "noexec", "nodev"]),
            mount("tmpfs", "/dev", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("devpts", "/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
            mount("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
            mount("tmpfs", "/dev/shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        ];
        mounts.extend(self.mounts.iter().map(|(from, to)| {
            json!({"destination": to, "type": "bind", "source": from, "options": ["rbind", "rprivate", "nosuid", "nodev"]})
        }));
        let mut linux = json!({
            "namespaces": namespaces,
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/sched_debug", "/proc/scsi", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        });
        if let Some(filter) = seccomp::runtime_default()? {
            linux["seccomp"] = filter;
        }
        Ok(json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": {"uid": uid, "gid": gid},
                "args": args,
                "env": inner["Env"],
                "cwd": inner["WorkingDir"],
                "capabilities": {"bounding": none, "effective": none, "permitted": none, "inheritable": none, "ambient": none},
                "noNewPrivileges": true,
            },
            "root": {"path": self.root, "readonly": true},
            "hostname": self.name,
            "mounts": mounts,
            "linux": linux,
        }))
    }
}

/// A running container; gone at drop.
pub(super) struct Container {
    id: String,
    dir: PathBuf,
    begun: Instant,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    ready: mpsc::Receiver<Instant>,
}

fn runc(args: &[&str]) -> Command {
    let mut command = Command::new("runc");
    command.arg("--root").arg(sh::target().join("image/runc")).args(args).stdin(Stdio::null());
    command
}

impl Container {
    /// Starts it; it isn't ready yet.
    pub(super) fn start(plan: &Plan<'_>) -> Result<Self> {
        let id = format!("rusd-{}-{}", std::process::id(), plan.name);
        let dir = sh::target().join("image/bundles").join(&id);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("config.json"), serde_json::to_vec(&plan.spec()?)?)?;
        let mut command = runc(&["run", "--pid-file"]);
        command.arg(dir.join("pid")).arg("--bundle").arg(&dir).arg(&id);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let begun = Instant::now();
        let mut child = command.spawn().map_err(|error| format!("runc does not start: {error}"))?;
        let (told, ready) = mpsc::channel();
        let log = Arc::new(Mutex::new(Vec::new()));
        if let Some(stderr) = child.stderr.take() {
            let log = log.clone();
            // Ends with the container: nobody else holds the pipe.
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(std::result::Result::ok) {
                    if line.contains(READY) {
                        // Nobody waits for it any more: that is as well.
                        let _ = told.send(Instant::now());
                    }
                    log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            });
        }
        Ok(Self { id, dir, begun, child, log, ready })
    }

    /// Waits until it serves; how long that took since runc was called.
    pub(super) fn ready(&self) -> Result<Duration> {
        let at = self.ready.recv_timeout(READY_MAX).map_err(|_| format!("it isn't ready:\n{}", self.tail()))?;
        Ok(at.duration_since(self.begun))
    }

    /// The end of its log.
    pub(super) fn tail(&self) -> String {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log[log.len().saturating_sub(20)..].join("\n")
    }

    /// Its first process, by the number it has out here.
    pub(super) fn pid(&self) -> Result<u32> {
        Ok(fs::read_to_string(self.dir.join("pid"))?.trim().parse()?)
    }

    /// What a command inside says.
    pub(super) fn exec(&self, command: &[&str]) -> Result<Output> {
        Ok(runc(&[&["exec", &self.id], command].concat()).output()?)
    }

    /// What a program of this machine says in the container's network.
    pub(super) fn in_network(&self, program: &Path, args: &[&str]) -> Result<Output> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.pid()?)).arg(program).args(args).stdin(Stdio::null());
        Ok(command.output()?)
    }

    /// Ends it as a kubelet does.
    pub(super) fn stop(&mut self) -> Result<ExitStatus> {
        sh::output(runc(&["kill", &self.id, "TERM"]))?;
        let begun = Instant::now();
        while begun.elapsed() < STOP_MAX {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Err(format!("it doesn't end:\n{}", self.tail()).into())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // All of them fail only if it is gone already.
        let _ = runc(&["delete", "--force", &self.id]).output();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// An empty directory that belongs to the container's user.
pub(super) fn volume(name: &str, config: &Value) -> Result<PathBuf> {
    let dir = sh::target().join("image/volumes").join(format!("{}-{name}", std::process::id()));
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    let user = config["config"]["User"].as_str().and_then(|user| user.split_once(':'));
    let (uid, gid) = user.ok_or("an image without a user")?;
    std::os::unix::fs::chown(&dir, Some(uid.parse()?), Some(gid.parse()?))?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_gets_nothing_that_it_does_not_need() {
        let config = json!({"config": {"User": "65532:65532", "Entrypoint": ["/usr/local/bin/rusd"],
            "Env": ["PATH=/usr/local/bin"], "WorkingDir": "/var/lib/rusd"}});
        let plan = Plan {
            name: "one",
            root: Path::new("/root-of-it"),
            config: &config,
            command: None,
            args: vec!["--name=one".to_owned()],
            mounts: vec![("/volume".into(), "/var/lib/rusd".to_owned())],
            net: Net::Named("two".to_owned()),
        };
        let spec = plan.spec().expect("a spec");
        assert_eq!(spec["process"]["args"], json!(["/usr/local/bin/rusd", "--name=one"]));
        assert_eq!(spec["process"]["user"], json!({"uid": 65532, "gid": 65532}));
        assert_eq!(spec["process"]["noNewPrivileges"], true);
        assert_eq!(spec["root"]["readonly"], true);
        for kind in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
            assert_eq!(spec["process"]["capabilities"][kind], json!([]), "{kind}");
        }
        let spaces = spec["linux"]["namespaces"].as_array().expect("a list");
        assert!(spaces.contains(&json!({"type": "network", "path": "/run/netns/two"})), "{spaces:?}");
        let plan = Plan { command: Some(vec!["etcd".to_owned()]), args: Vec::new(), ..plan };
        assert_eq!(plan.spec().expect("a spec")["process"]["args"], json!(["etcd"]));
    }
}
