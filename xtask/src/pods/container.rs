//! A container as a process: the image's program, alone in its namespaces, with the rights and the volumes that the pod gives it.
//!
//! ```text
//! ip netns exec ─► unshare (mounts, processes) ─► a read-only root with the volumes ─► chroot ─► setpriv ─► rusd, process 1
//! ```
//! The program lies where the image has it. The host's `/usr` lies there, too, for a program that is linked to libraries.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::Result;
use super::spec::PodSpec;

/// Where the image has it (`image::assemble`).
const PROGRAM: &str = "/usr/local/bin/rusd";

/// Run by the first process in the namespaces: `$1` is the root, `$2` what is to be mounted, a line each.
const SETUP: &str = r#"set -e
root=$1 mounts=$2
shift 2
mount --bind "$root" "$root"
mount --bind /usr "$root/usr"
mount -t tmpfs -o mode=755 tmpfs "$root/usr/local/bin"
touch "$root/usr/local/bin/rusd"
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
while read -r how from to; do
  [ -n "$how" ] || continue
  mount --bind "$from" "$root$to"
  [ "$how" = rw ] || mount -o remount,bind,ro "$root$to"
done <<END
$mounts
END
mount -o remount,ro "$root/usr/local/bin"
mount -o remount,bind,ro "$root"
exec chroot "$root" "$@""#;

/// What a container is started with.
pub(super) struct Settings<'a> {
    pub(super) name: &'a str,
    pub(super) space: &'a str,
    pub(super) address: Ipv4Addr,
    pub(super) program: &'a Path,
    pub(super) spec: &'a PodSpec,
    pub(super) env: &'a [(String, String)],
    /// A directory for each of the specification's mounts.
    pub(super) volumes: &'a [PathBuf],
    /// Text of `/etc/resolv.conf`, and the pod's name with its domain.
    pub(super) resolver: &'a str,
    pub(super) full_name: &'a str,
    /// Where its root is made.
    pub(super) root: &'a Path,
    pub(super) log: &'a Path,
}

/// Starts it.
pub(super) fn start(settings: &Settings) -> Result<Container> {
    let root = settings.root;
    if !root.exists() {
        for dir in ["usr", "dev", "proc", "etc"] {
            fs::create_dir_all(root.join(dir))?;
        }
        for link in ["lib", "lib64"] {
            if let Ok(to) = fs::read_link(Path::new("/").join(link)) {
                symlink(to, root.join(link))?;
            }
        }
        for mount in &settings.spec.mounts {
            fs::create_dir_all(root.join(mount.path.trim_start_matches('/')))?;
        }
        fs::write(root.join("etc/resolv.conf"), settings.resolver)?;
        // As kubelet writes it.
        let short = settings.full_name.split('.').next().unwrap_or_default();
        let own = format!("127.0.0.1 localhost\n{} {} {short}\n", settings.address, settings.full_name);
        fs::write(root.join("etc/hosts"), own)?;
    }
    let mut mounts = format!("ro {} {PROGRAM}\n", settings.program.display());
    for (mount, from) in settings.spec.mounts.iter().zip(settings.volumes) {
        let how = if mount.read_only { "ro" } else { "rw" };
        mounts += &format!("{how} {} {}\n", from.display(), mount.path);
    }
    let log = File::options().create(true).append(true).open(settings.log)?;
    let spec = settings.spec;
    // Whoever is killed takes what it started along: a change of user would forget it, so it is said again.
    let dies_too = "--pdeathsig=KILL";
    let child = Command::new("setpriv")
        .args([dies_too, "ip", "netns", "exec", settings.space, "unshare", "--mount", "--pid", "--fork"])
        .args(["sh", "-c", SETUP, "sh"])
        .arg(root)
        .arg(&mounts)
        .args(["/usr/bin/setpriv", dies_too, "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"])
        .args([format!("--reuid={}", spec.user), format!("--regid={}", spec.group)])
        .arg(format!("--groups={}", spec.fs_group))
        .arg(PROGRAM)
        .args(spec.arguments(settings.env))
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOSTNAME", settings.name)
        .envs(settings.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("`setpriv`: {error}"))?;
    Ok(Container { child })
}

/// A directory that a pod's group may write to.
pub(super) fn volume(dir: &Path, group: u64) -> Result<()> {
    fs::create_dir_all(dir)?;
    chown(dir, None, Some(u32::try_from(group)?))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o2770))?;
    Ok(())
}

/// A directory with a secret's files.
pub(super) fn secret(dir: &Path, files: &[(String, Vec<u8>)], mode: u32, group: u64) -> Result<()> {
    fs::create_dir_all(dir)?;
    for (name, bytes) in files {
        let path = dir.join(name);
        fs::write(&path, bytes)?;
        chown(&path, None, Some(u32::try_from(group)?))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// It runs; dropped, it is killed.
pub(super) struct Container {
    child: Child,
}

impl Container {
    /// Asks its first process to end.
    pub(super) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends it at once.
    pub(super) fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Waits for its end: whether that was one that it had wished for.
    pub(super) async fn ended(&mut self) -> bool {
        self.child.wait().await.is_ok_and(|status| status.success())
    }

    fn signal(&self, signal: Signal) {
        let first = self.child.id().and_then(|unshare| {
            let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).ok()?;
            Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
        });
        if let Some(first) = first {
            // It fails only if it has ended.
            let _ = kill_process(first, signal);
        }
    }
}
