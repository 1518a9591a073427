//! `rusd pod backup`: a snapshot under a name that says when, and no more of them than are to be kept.
//!
//! ```text
//! rests of killed ones removed ─► snapshot ─► DIR/rusd-20261126T054800Z.db (whole, checked, or not at all)
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

/// Saves one; gives the text to print. If the directory is full, old ones go first, but never the last.
pub(in crate::server) async fn backup(
    env: &Env,
    remote: &Remote,
    dir: &Path,
    keep: usize,
) -> Result<String, ToolError> {
    let disk = env.disk.as_ref();
    let (mut removed, path) = (remove_rests(disk, dir)?, dir.join(name(env)?));
    let bytes = loop {
        let error = match remote.save(env.disk.clone(), &path, &mut |_, _| ()).await {
            Ok((bytes, _)) => break bytes,
            Err(error) => error,
        };
        let left = ours(disk, dir, SUFFIX)?.len();
        if !error.is_full() || left < 2 {
            return Err(error.into());
        }
        tracing::warn!(%error, "no room: the oldest backup is removed");
        removed += prune(disk, dir, left - 1)?;
    };
    removed += prune(disk, dir, keep)?;
    Ok(format!("saved {} ({bytes} bytes), removed {removed} old ones\n", path.display()))
}

fn name(env: &Env) -> Result<String, PodError> {
    let now = OffsetDateTime::from(env.clock.wall());
    let stamp = now.format(format_description!("[year][month][day]T[hour][minute][second]Z"));
    Ok(format!("{PREFIX}{}{SUFFIX}", stamp.map_err(|error| PodError::Flags(format!("the clock: {error}")))?))
}

/// Files with our names, the oldest first; what isn't named so is nobody's business.
fn ours(disk: &dyn Disk, dir: &Path, suffix: &str) -> Result<Vec<PathBuf>, PodError> {
    let names = disk.list(dir).map_err(io("list", dir))?;
    let is_ours = |name: &str| name.starts_with(PREFIX) && name.ends_with(suffix);
    let mut ours: Vec<PathBuf> =
        names.iter().filter(|name| name.to_str().is_some_and(is_ours)).map(|name| dir.join(name)).collect();
    ours.sort_unstable();
    Ok(ours)
}

/// Removes the oldest beyond `keep`; names sort by time.
fn prune(disk: &dyn Disk, dir: &Path, keep: usize) -> Result<usize, PodError> {
    let ours = ours(disk, dir, SUFFIX)?;
    let old = ours.len().saturating_sub(keep.max(1));
    for path in ours.iter().take(old) {
        disk.remove(path).map_err(io("remove", path))?;
    }
    Ok(old)
}

/// Removes what backups left that were killed; one that is under way holds its file.
fn remove_rests(disk: &dyn Disk, dir: &Path) -> Result<usize, PodError> {
    let mut removed = 0;
    for path in ours(disk, dir, REST)? {
        let file = disk.open(&path, Access::Read).map_err(io("open", &path))?;
        if file.try_lock().map_err(io("lock", &path))? {
            disk.remove(&path).map_err(io("remove", &path))?;
            removed += 1;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::MemDisk;

    #[test]
    fn the_newest_are_kept_and_what_is_not_ours() {
        let (disk, dir) = (MemDisk::new(), Path::new("/b"));
        disk.create_dir_all(dir).expect("made");
        let stamps = ["20240101T000000Z", "20251231T235959Z", "20260101T000000Z"];
        for name in stamps.map(|at| format!("rusd-{at}.db")).iter().chain(&["other.db".into(), "rusd-x.db.part".into()])
        {
            disk.open(&dir.join(name), Access::CreateNew).expect("made");
        }
        assert_eq!(prune(&disk, dir, 2).expect("pruned"), 1);
        let left: Vec<_> =
            disk.list(dir).expect("listed").into_iter().filter_map(|name| name.into_string().ok()).collect();
        assert_eq!(left, ["other.db", "rusd-20251231T235959Z.db", "rusd-20260101T000000Z.db", "rusd-x.db.part"]);
        // The one just made is never removed.
        assert_eq!(prune(&disk, dir, 0).expect("pruned"), 1);
    }

    #[test]
    fn a_rest_goes_unless_somebody_writes_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = crate::env::RealDisk;
        let (rest, held) = (dir.path().join("rusd-1.db.part"), dir.path().join("rusd-2.db.part"));
        disk.open(&rest, Access::CreateNew).expect("made");
        let file = disk.open(&held, Access::CreateNew).expect("made");
        assert!(file.try_lock().expect("locked"));
        assert_eq!(remove_rests(&disk, dir.path()).expect("removed"), 1);
        assert_eq!([rest, held].map(|path| path.exists()), [false, true]);
    }
}
