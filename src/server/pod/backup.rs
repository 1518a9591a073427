//! `rusd pod backup`: a snapshot under a name that says when, and no more of them than are to be kept.
//!
//! ```text
//! rests of killed ones removed ─► snapshot ─► DIR/rusd-SET-20261126T054800Z.db (whole, checked, or not at all)
//!                                    └► no room: the oldest removed, again ─► the oldest ones beyond --keep removed
//! ```

use std::path::{Path, PathBuf};

use time::OffsetDateTime;
use time::macros::format_description;

use super::{PodError, io};
use crate::env::{Access, Disk, Env};
use crate::import::remote::Remote;
use crate::server::tools::ToolError;

const PREFIX: &str = "rusd-";
const SUFFIX: &str = ".db";
/// Of a file that isn't whole.
const REST: &str = ".db.part";

/// Where backups lie, and whose they are: several sets may share a directory, and none touches another's.
#[derive(Clone, Debug)]
pub(in crate::server) struct Shelf {
    /// The directory.
    pub(in crate::server) dir: PathBuf,
    /// The set's name, in its files' names.
    pub(in crate::server) set: Option<String>,
}

/// Saves one; gives the text to print. If the directory is full, old ones go first, but never the last.
pub(in crate::server) async fn backup(
    env: &Env,
    remote: &Remote,
    shelf: &Shelf,
    keep: usize,
) -> Result<String, ToolError> {
    let disk = env.disk.as_ref();
    let (mut removed, path) = (shelf.remove_rests(disk)?, shelf.dir.join(shelf.name(env)?));
    let bytes = loop {
        let error = match remote.save(env.disk.clone(), &path, &mut |_, _| ()).await {
            Ok((bytes, _)) => break bytes,
            Err(error) => error,
        };
        let left = shelf.ours(disk, SUFFIX)?.len();
        if !error.is_full() || left < 2 {
            return Err(error.into());
        }
        tracing::warn!(%error, "no room: the oldest backup is removed");
        removed += shelf.prune(disk, left - 1)?;
    };
    removed += shelf.prune(disk, keep)?;
    Ok(format!("saved {} ({bytes} bytes), removed {removed} old ones\n", path.display()))
}

impl Shelf {
    fn prefix(&self) -> String {
        self.set.as_ref().map_or_else(|| PREFIX.to_owned(), |set| format!("{PREFIX}{set}-"))
    }

    fn name(&self, env: &Env) -> Result<String, PodError> {
        let now = OffsetDateTime::from(env.clock.wall());
        let stamp = now.format(format_description!("[year][month][day]T[hour][minute][second]Z"));
        let stamp = stamp.map_err(|error| PodError::Flags(format!("the clock: {error}")))?;
        Ok(format!("{}{stamp}{SUFFIX}", self.prefix()))
    }

    /// Files with our names, the oldest first; what isn't named so is nobody's business.
    fn ours(&self, disk: &dyn Disk, suffix: &str) -> Result<Vec<PathBuf>, PodError> {
        let prefix = self.prefix();
        let is_ours = |name: &str| {
            let stamp = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(suffix));
            stamp.is_some_and(is_stamp)
        };
        let names = disk.list(&self.dir).map_err(io("list", &self.dir))?;
        let ours = names.iter().filter(|name| name.to_str().is_some_and(is_ours));
        let mut ours: Vec<PathBuf> = ours.map(|name| self.dir.join(name)).collect();
        ours.sort_unstable();
        Ok(ours)
    }

    /// Removes the oldest beyond `keep`; names sort by time.
    fn prune(&self, disk: &dyn Disk, keep: usize) -> Result<usize, PodError> {
        let ours = self.ours(disk, SUFFIX)?;
        let old = ours.len().saturating_sub(keep.max(1));
        for path in ours.iter().take(old) {
            disk.remove(path).map_err(io("remove", path))?;
        }
        Ok(old)
    }

    /// Removes what backups left that were killed; one that is under way holds its file. What can't be removed keeps nobody
    /// from his backup.
    fn remove_rests(&self, disk: &dyn Disk) -> Result<usize, PodError> {
        let mut removed = 0;
        for path in self.ours(disk, REST)? {
            match remove_rest(disk, &path) {
                Ok(is_removed) => removed += usize::from(is_removed),
                Err(error) => {
                    tracing::warn!(%error, path = %path.display(), "what an earlier backup left could not be removed");
                }
            }
        }
        Ok(removed)
    }
}

fn remove_rest(disk: &dyn Disk, path: &Path) -> std::io::Result<bool> {
    // To write: over NFS the lock is one of the file's bytes, and needs that.
    let file = disk.open(path, Access::Write)?;
    let is_nobodys = file.try_lock()?;
    if is_nobodys {
        disk.remove(path)?;
    }
    Ok(is_nobodys)
}

/// Whether it is a time as names have it, and not the rest of a longer set's name.
fn is_stamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 16
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            8 => *byte == b'T',
            15 => *byte == b'Z',
            _ => byte.is_ascii_digit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::MemDisk;

    fn shelf(dir: &Path, set: Option<&str>) -> Shelf {
        Shelf { dir: dir.to_owned(), set: set.map(str::to_owned) }
    }

    fn names(disk: &dyn Disk, dir: &Path) -> Vec<String> {
        disk.list(dir).expect("listed").into_iter().filter_map(|name| name.into_string().ok()).collect()
    }

    #[test]
    fn the_newest_are_kept_and_what_is_not_ours() {
        let (disk, dir) = (MemDisk::new(), Path::new("/b"));
        disk.create_dir_all(dir).expect("made");
        let stamps = ["20240101T000000Z", "20251231T235959Z", "20260101T000000Z"];
        let part = format!("rusd-{}.db.part", stamps[0]);
        for name in stamps.map(|at| format!("rusd-{at}.db")).iter().chain(&["other.db".into(), part.clone()]) {
            disk.open(&dir.join(name), Access::CreateNew).expect("made");
        }
        let shelf = shelf(dir, None);
        assert_eq!(shelf.prune(&disk, 2).expect("pruned"), 1);
        let left = ["other.db", &part, "rusd-20251231T235959Z.db", "rusd-20260101T000000Z.db"];
        assert_eq!(names(&disk, dir), left);
        // The one just made is never removed.
        assert_eq!(shelf.prune(&disk, 0).expect("pruned"), 1);
    }

    /// Cause: names said when and not whose. Symptom: a release that was made of another one's backup pushed that one's
    /// out of the claim that they shared.
    #[test]
    fn sets_leave_each_others_alone() {
        let (disk, dir) = (MemDisk::new(), Path::new("/b"));
        disk.create_dir_all(dir).expect("made");
        let of = |set: &str, year: u32| format!("rusd-{set}{year}0101T000000Z.db");
        let all: Vec<_> = ["", "a-", "a-b-"].iter().flat_map(|set| [2024, 2025].map(|year| of(set, year))).collect();
        for name in &all {
            disk.open(&dir.join(name), Access::CreateNew).expect("made");
        }
        assert_eq!(shelf(dir, Some("a")).prune(&disk, 1).expect("pruned"), 1);
        let mut left: Vec<_> = all.into_iter().filter(|name| *name != of("a-", 2024)).collect();
        left.sort_unstable();
        assert_eq!(names(&disk, dir), left);
    }

    #[test]
    fn a_rest_goes_unless_somebody_writes_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = crate::env::RealDisk;
        let [odd, rest, held] = ["20230101T000000Z", "20240101T000000Z", "20250101T000000Z"]
            .map(|at| dir.path().join(format!("rusd-{at}.db.part")));
        disk.open(&rest, Access::CreateNew).expect("made");
        let file = disk.open(&held, Access::CreateNew).expect("made");
        assert!(file.try_lock().expect("locked"));
        // Cause: what could not be opened ended the job. Symptom: no backup was made any more until somebody removed it.
        disk.create_dir_all(&odd).expect("made");
        assert_eq!(shelf(dir.path(), None).remove_rests(&disk).expect("removed"), 1);
        assert_eq!([odd, rest, held].map(|path| path.exists()), [true, false, true]);
    }
}
