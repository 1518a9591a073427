//! Small file systems of a test's own: ext4, whose power can be cut (`ext4`, shared with other tests), and tmpfs.

#[path = "../support/volume.rs"]
mod ext4;

use std::fs;
use std::path::PathBuf;

pub(crate) use ext4::Volume;
use ext4::{run, text};

impl Volume {
    /// A tmpfs of `mib` MiB; `None` where that can't be done, said loudly for `test`.
    pub(crate) fn tmpfs(mib: u64, test: &str) -> Option<Self> {
        let mut volume = Self::prepare(test, &["mount", "umount"])?;
        run("mount", &["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs", text(&volume.path())]);
        volume.is_mounted = true;
        Some(volume)
    }

    /// A place beside it, on the machine's own disk.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Takes all but `kib` KiB of its room away.
    pub(crate) fn fill_up_to(&self, kib: u64) {
        let free = rustix::fs::statvfs(self.path()).map(|stat| stat.f_bavail * stat.f_frsize).unwrap();
        let ballast = fs::File::create(self.path().join("ballast")).unwrap();
        rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), 0, free.saturating_sub(kib << 10))
            .unwrap();
    }
}
