//! A small file system of a test's own: ext4 on a loop device, whose power can be cut, and which is full when the
//! test says so. It needs root; without it a test skips, and says so.
//!
//! ```text
//! image file ─► mount -o loop ─► directory ─► power_cut (ext4's shutdown without log flush) ─► remount
//! ```
//! All lies below cargo's directory for tests; what a killed test left mounted is taken away by the next.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// `_IOR('X', 125, u32)` with flag 2: no write reaches the disk from here on, and what was not synced is lost.
const SHUTDOWN: &str = r#"open(my $dir, "<", $ARGV[0]) or die "open: $!\n"; my $flag = pack("L", 2);
    ioctl($dir, 0x8004587d, $flag) or die "shutdown: $!\n";"#;

/// A mounted file system; unmounted and removed at drop.
pub(crate) struct Volume {
    pub(super) dir: PathBuf,
    pub(super) is_mounted: bool,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Volume {
    /// An ext4 of `mib` MiB; `None` where that can't be done, said loudly for `test`.
    pub(crate) fn ext4(mib: u64, test: &str) -> Option<Self> {
        let mut volume = Self::prepare(test, &["mkfs.ext4", "mount", "umount", "perl"])?;
        fs::File::create(volume.image()).unwrap().set_len(mib << 20).unwrap();
        run("mkfs.ext4", &["-q", "-F", text(&volume.image())]);
        volume.mount();
        Some(volume)
    }

    pub(super) fn prepare(test: &str, programs: &[&str]) -> Option<Self> {
        let missing = programs.iter().find(|name| !is_program(name));
        let reason = match missing {
            _ if !rustix::process::geteuid().is_root() => "it needs root to mount a file system".to_owned(),
            Some(name) => format!("`{name}` is not installed"),
            None => {
                let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
                clear_away(base);
                let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                let dir = base.join(format!("volume-{}-{number}", std::process::id()));
                fs::create_dir_all(dir.join("mount")).unwrap();
                return Some(Self { dir, is_mounted: false });
            }
        };
        // Written past the test runner's capture, which would hide it in a passing test.
        writeln!(std::io::stdout(), "SKIPPED {test}: {reason}").ok();
        None
    }

    fn image(&self) -> PathBuf {
        self.dir.join("image")
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join("mount")
    }

    fn mount(&mut self) {
        run("mount", &["-o", "loop", text(&self.image()), text(&self.path())]);
        self.is_mounted = true;
    }

    /// Cuts the power: from now on every access fails, and what was not synced will be gone.
    pub(crate) fn power_cut(&self) {
        run("perl", &["-e", SHUTDOWN, text(&self.path())]);
    }

    /// Brings it back as it is on disk. Nobody may have a file of it open.
    pub(crate) fn power_on(&mut self) {
        run("umount", &[text(&self.path())]);
        self.is_mounted = false;
        self.mount();
    }

    /// Takes the very last byte, what is kept for root included.
    pub(crate) fn fill(&self) {
        let mut ballast = fs::File::create(self.path().join("ballast")).unwrap();
        // The most of it at once, so that nobody writes much meanwhile.
        let free = rustix::fs::statvfs(self.path()).map(|stat| stat.f_bfree * stat.f_frsize).unwrap();
        let most = free.saturating_sub(1 << 20);
        if most > 0 {
            // As much as can be had; the rest is taken below.
            let _ = rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), 0, most);
        }
        ballast.seek(SeekFrom::End(0)).unwrap();
        for piece in [64 << 10, 4 << 10, 1] {
            while ballast.write_all(&vec![0; piece]).and_then(|()| ballast.sync_data()).is_ok() {}
        }
    }

    /// Gives the room back.
    pub(crate) fn make_room(&self) {
        fs::remove_file(self.path().join("ballast")).unwrap();
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.is_mounted {
            unmount(&self.path());
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Unmounts what test processes that live no more left behind.
fn clear_away(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("volume-").and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists()) {
            unmount(&entry.path().join("mount"));
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn unmount(path: &Path) {
    let plain = Command::new("umount").arg(path).output();
    if !plain.is_ok_and(|output| output.status.success()) {
        // Someone still looks at it; it goes when they are done. The loop device goes with it.
        let _ = Command::new("umount").arg("-l").arg(path).output();
    }
}

fn is_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().expect("cargo's directory for tests is text")
}

pub(super) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
