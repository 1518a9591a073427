//! A Debian of its own, in which the package is installed, looked at and purged.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::report::{Tried, expect, passed};
use crate::{debian, sh};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What the system has beyond the least: what the package depends on, and what runs its unit.
const INCLUDED: &str = "--include=adduser,systemd,systemd-sysv,dbus";
/// In points of `systemd-analyze security`, tenfold: 0 is shut, 100 open.
const EXPOSURE_MAX: &str = "--threshold=15";

/// The system's root.
pub(super) struct System {
    pub(super) root: PathBuf,
}

impl System {
    /// A fresh copy; made first if there is none to copy.
    ///
    /// # Errors
    /// A reason to skip all of it.
    pub(super) fn new() -> Result<Self> {
        if !debian::is_root() {
            return Err("a system of its own can be made by root alone".into());
        }
        debian::need(&[("debootstrap", "debootstrap"), ("nsenter", "util-linux")])?;
        let dir = sh::target().join("package");
        let base = dir.join("base");
        let stamp = dir.join("base.stamp");
        if !fs::read_to_string(&stamp).is_ok_and(|old| old == INCLUDED) {
            if base.exists() {
                fs::remove_dir_all(&base)?;
            }
            fs::create_dir_all(&dir)?;
            let mut debootstrap = Command::new("debootstrap");
            debootstrap.args(["--variant=minbase", INCLUDED, &release()?]).arg(&base).stdout(Stdio::null());
            sh::run(debootstrap)?;
            fs::write(stamp, INCLUDED)?;
        }
        let root = dir.join("system");
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        let mut copy = Command::new("cp");
        copy.arg("--archive").arg(&base).arg(&root);
        sh::output(copy)?;
        Ok(Self { root })
    }

    fn chroot(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new("chroot");
        command.arg(&self.root).args(args).stdin(Stdio::null());
        command.env("DEBIAN_FRONTEND", "noninteractive").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        Ok(command.output()?)
    }

    /// What a program inside says, if it succeeds.
    fn ask(&self, args: &[&str]) -> Result<String> {
        let output = self.chroot(args)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let more = String::from_utf8_lossy(&output.stderr).into_owned();
        expect(output.status.success(), format!("{}: {said}{more}", args.join(" ")))?;
        Ok(said)
    }

    /// dpkg takes it, with its user, directory and links, and starts nothing.
    pub(super) fn install(&self, package: &Path) -> Tried {
        fs::copy(package, self.root.join("rusd.deb"))?;
        self.ask(&["dpkg", "--install", "/rusd.deb"])?;
        let user = self.ask(&["getent", "passwd", "rusd"])?;
        let uid: u32 = user.split(':').nth(2).and_then(|uid| uid.parse().ok()).ok_or("a user without a number")?;
        let data = fs::metadata(self.root.join("var/lib/rusd"))?;
        let mode = data.permissions().mode() & 0o7777;
        expect(data.uid() == uid && mode == 0o700, format!("/var/lib/rusd is of {} with {mode:o}", data.uid()))?;
        for program in ["rusd", "/usr/lib/rusd/bin/etcd"] {
            let said = self.ask(&[program, "--version"])?;
            expect(said.starts_with("etcd Version: "), format!("{program} says {said}"))?;
        }
        expect(!self.root.join("usr/bin/etcd").exists(), "it took /usr/bin/etcd")?;
        let enabled = self.chroot(&["systemctl", "is-enabled", "rusd"])?;
        let enabled = String::from_utf8_lossy(&enabled.stdout).trim().to_owned();
        expect(enabled == "disabled", format!("the unit is {enabled}"))?;
        // Once more, as an upgrade does it.
        self.ask(&["dpkg", "--install", "/rusd.deb"])?;
        passed(format!("user {uid}, /var/lib/rusd 0700, both names, unit disabled, and once more over itself"))
    }

    /// systemd reads the unit where it lies.
    pub(super) fn unit(&self) -> Tried {
        let output = self.chroot(&["systemd-analyze", "verify", "--man=no", "rusd.service"])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        expect(output.status.success() && !said.contains("rusd.service"), said)?;
        let args = ["systemd-analyze", "security", "--offline=true", "--no-pager", EXPOSURE_MAX, "rusd.service"];
        let said = self.ask(&args)?;
        let level = said.lines().last().and_then(|line| line.split_once("rusd.service: ")).map(|(_, level)| level);
        passed(format!("no complaint; exposure {}", level.ok_or("no level")?))
    }

    /// Gone, but for the data.
    pub(super) fn purge(&self) -> Tried {
        let data = self.root.join("var/lib/rusd");
        fs::create_dir_all(data.join("default"))?;
        self.ask(&["dpkg", "--purge", "rusd"])?;
        for path in ["usr/bin/rusd", "etc/default/rusd", "usr/lib/systemd/system/rusd.service"] {
            expect(!self.root.join(path).exists(), format!("/{path} is still there"))?;
        }
        expect(data.join("default").is_dir(), "the data is gone")?;
        passed("programs, settings and unit gone; the data stays")
    }
}

/// The Debian that this machine has.
fn release() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release")?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(name.ok_or("this is no Debian with a name")?.trim_matches('"').to_owned())
}
