//! The Debian booted in a container, so that systemd itself starts the unit, with all that it takes from it.
//!
//! ```text
//! runc run systemd ─► systemctl start rusd (back once it is ready) ─► put, get, what the kernel says of the process
//!                  ─► kill -9 ─► back by itself ─► systemctl stop ─► no failure
//! ```

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::system::System;
use crate::report::{Tried, expect, passed, skipped};
use crate::{debian, peers, sh};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const BOOT_MAX: Duration = Duration::from_secs(60);
const BACK_MAX: Duration = Duration::from_secs(30);
/// What a service manager may have to do, by the kernel's numbers; it gets those of them that we have ourselves.
const CAPABILITIES: [(u32, &str); 23] = [
    (0, "CAP_CHOWN"),
    (1, "CAP_DAC_OVERRIDE"),
    (2, "CAP_DAC_READ_SEARCH"),
    (3, "CAP_FOWNER"),
    (4, "CAP_FSETID"),
    (5, "CAP_KILL"),
    (6, "CAP_SETGID"),
    (7, "CAP_SETUID"),
    (8, "CAP_SETPCAP"),
    (10, "CAP_NET_BIND_SERVICE"),
    (12, "CAP_NET_ADMIN"),
    (13, "CAP_NET_RAW"),
    (14, "CAP_IPC_LOCK"),
    (15, "CAP_IPC_OWNER"),
    (18, "CAP_SYS_CHROOT"),
    (19, "CAP_SYS_PTRACE"),
    (21, "CAP_SYS_ADMIN"),
    (23, "CAP_SYS_NICE"),
    (24, "CAP_SYS_RESOURCE"),
    (27, "CAP_MKNOD"),
    (28, "CAP_LEASE"),
    (29, "CAP_AUDIT_WRITE"),
    (31, "CAP_SETFCAP"),
];

/// Those that a process has, by its `status`.
fn capabilities(status: &str) -> Result<Vec<&'static str>> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).ok_or("a process without capabilities")?;
    let set = u64::from_str_radix(set.trim(), 16)?;
    Ok(CAPABILITIES.iter().filter(|(bit, _)| set >> bit & 1 == 1).map(|(_, name)| *name).collect())
}

/// The running system; gone at drop.
struct Booted {
    id: String,
    dir: PathBuf,
    child: Child,
}

fn runc(args: &[&str]) -> Command {
    let mut command = Command::new("runc");
    command.arg("--root").arg(sh::target().join("package/runc")).args(args).stdin(Stdio::null());
    command
}

fn spec(system: &System) -> Result<Value> {
    let capabilities = capabilities(&fs::read_to_string("/proc/self/status")?)?;
    let mount = |kind: &str, to: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": kind, "options": options});
    let namespaces = ["pid", "ipc", "uts", "mount", "network", "cgroup"].map(|kind| json!({"type": kind}));
    Ok(json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["/lib/systemd/systemd", "--log-target=console"],
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "container=runc"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities,
                "inheritable": [], "ambient": []},
        },
        "root": {"path": system.root, "readonly": false},
        "hostname": "rusd-host",
        "mounts": [
            mount("proc", "/proc", &["nosuid", "noexec", "nodev"]),
            mount("tmpfs", "/dev", &["nosuid", "mode=755"]),
            mount("devpts", "/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666"]),
            mount("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
            mount("tmpfs", "/dev/shm", &["nosuid", "nodev"]),
            mount("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
            mount("cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "rw"]),
            mount("tmpfs", "/run", &["nosuid", "nodev", "mode=755"]),
            mount("tmpfs", "/tmp", &["nosuid", "nodev"]),
        ],
        "linux": {"namespaces": namespaces},
    }))
}

impl Booted {
    /// Boots it; an error is no fault of ours.
    fn new(system: &System) -> Result<Self> {
        let id = format!("rusd-boot-{}", std::process::id());
        let dir = sh::target().join("package/bundles").join(&id);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join("config.json"), serde_json::to_vec(&spec(system)?)?)?;
        let log = File::create(dir.join("log"))?;
        let mut command = runc(&["run", "--pid-file"]);
        command.arg(dir.join("pid")).arg("--bundle").arg(&dir).arg(&id).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().map_err(|error| format!("runc does not start: {error}"))?;
        let mut booted = Self { id, dir, child };
        let begun = Instant::now();
        loop {
            let state = booted.exec(&["systemctl", "is-system-running"])?;
            let state = String::from_utf8_lossy(&state.stdout).trim().to_owned();
            if ["running", "degraded"].contains(&state.as_str()) {
                return Ok(booted);
            }
            if booted.child.try_wait()?.is_some() || begun.elapsed() > BOOT_MAX {
                let log = fs::read_to_string(booted.dir.join("log")).unwrap_or_default();
                let last = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
                return Err(format!("it is {state:?}: {last}").into());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn exec(&self, args: &[&str]) -> Result<Output> {
        Ok(runc(&[&["exec", &self.id], args].concat()).output()?)
    }

    /// What a program inside says, if it succeeds.
    fn ask(&self, args: &[&str]) -> Result<String> {
        let output = self.exec(args)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let more = String::from_utf8_lossy(&output.stderr).into_owned();
        expect(output.status.success(), format!("{}: {said}{more}", args.join(" ")))?;
        Ok(said)
    }

    /// A property of the unit.
    fn show(&self, property: &str) -> Result<String> {
        let asked = format!("--property={property}");
        Ok(self.ask(&["systemctl", "show", "--value", &asked, "rusd"])?.trim().to_owned())
    }

    /// The real etcdctl, in the system's network.
    fn etcdctl(&self, args: &[&str]) -> Result<String> {
        let pid = fs::read_to_string(self.dir.join("pid"))?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", pid.trim()));
        command.arg(peers::directory().join("etcdctl")).args(args);
        Ok(String::from_utf8_lossy(&sh::output(command)?).into_owned())
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        // All of them fail only if it is gone already.
        let _ = runc(&["delete", "--force", &self.id]).output();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The unit, from its start to its end.
pub(super) fn boots(system: &System) -> Tried {
    if let Err(why) = debian::need(&[("runc", "runc")]) {
        return skipped(why);
    }
    peers::run(&[])?;
    let booted = match Booted::new(system) {
        Ok(booted) => booted,
        Err(why) => return skipped(format!("systemd doesn't boot in a container here: {why}")),
    };
    let begun = Instant::now();
    if let Err(error) = booted.ask(&["systemctl", "start", "rusd"]) {
        let more = booted.ask(&["journalctl", "--unit=rusd", "--no-pager", "--lines=20"]).unwrap_or_default();
        return Err(format!("{error}{more}").into());
    }
    let started = begun.elapsed();
    // It was told, so it serves: nobody waits here.
    booted.etcdctl(&["put", "greeting", "hello"])?;
    let health = booted.ask(&["rusd", "status", "--exit-code"])?;
    expect(health.starts_with("well"), health)?;
    let pid = booted.show("MainPID")?;
    let status = booted.ask(&["cat", &format!("/proc/{pid}/status")])?;
    let seen = confined(&status)?;
    booted.ask(&["systemctl", "kill", "--signal=KILL", "rusd"])?;
    let begun = Instant::now();
    while booted.show("MainPID")? == pid || booted.show("ActiveState")? != "active" {
        expect(begun.elapsed() < BACK_MAX, "killed, it doesn't come back")?;
        std::thread::sleep(Duration::from_millis(100));
    }
    let got = booted.etcdctl(&["get", "greeting", "--print-value-only"])?;
    expect(got.trim() == "hello", "what was put is gone")?;
    booted.ask(&["systemctl", "stop", "rusd"])?;
    let (state, result) = (booted.show("ActiveState")?, booted.show("Result")?);
    expect((state.as_str(), result.as_str()) == ("inactive", "success"), format!("stopped, it is {state}, {result}"))?;
    passed(format!(
        "`systemctl start` to ready {} ms; {seen}; back after kill -9, stopped with success",
        started.as_millis()
    ))
}

/// What the kernel says of the service's process.
fn confined(status: &str) -> Result<String> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().split_whitespace().next().unwrap_or_default().to_owned()
    };
    let all = ["CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Uid"].map(field);
    let [effective, bounding, privileges, seccomp, user] = &all;
    let is_empty = |set: &str| !set.is_empty() && set.bytes().all(|byte| byte == b'0');
    expect(is_empty(effective) && is_empty(bounding), format!("it has capabilities: {effective}, {bounding}"))?;
    expect(privileges == "1" && seccomp == "2", format!("NoNewPrivs {privileges}, Seccomp {seccomp}"))?;
    expect(user != "0", "it runs as root")?;
    Ok(format!("user {user}, no capabilities, filtered system calls"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_lack_is_not_handed_on() {
        let all = capabilities("CapBnd:\t000001ffffffffff\n").expect("a set");
        let fewer = capabilities("CapBnd:\t000001fffeffffff\n").expect("a set");
        assert_eq!(all.len(), CAPABILITIES.len());
        assert!(!fewer.contains(&"CAP_SYS_RESOURCE") && fewer.len() == all.len() - 1);
        assert!(capabilities("").is_err() && capabilities("CapBnd:\tx\n").is_err());
    }

    #[test]
    fn a_service_that_has_too_much_is_found() {
        let status = |caps: &str, uid: &str| {
            format!("Name:\trusd\nUid:\t{uid}\t{uid}\nCapEff:\t{caps}\nCapBnd:\t{caps}\nNoNewPrivs:\t1\nSeccomp:\t2\n")
        };
        let fine = "0000000000000000";
        assert_eq!(confined(&status(fine, "100")).expect("fine"), "user 100, no capabilities, filtered system calls");
        assert!(confined(&status("0000000000000400", "100")).is_err());
        assert!(confined(&status(fine, "0")).is_err());
        assert!(confined("").is_err());
    }
}
