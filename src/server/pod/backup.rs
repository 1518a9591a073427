//! `rusd pod backup`: a snapshot under a name that says when, and no more of them than are to be kept.
//!
//! ```text
//! snapshot ─► DIR/rusd-20261126T054800Z.db (whole, checked, or not at all) ─► the oldest ones beyond --keep removed
//! ```

use std::path::{Path, PathBuf};

use time::OffsetDateTime;
use time::macros::format_description;

use super::{PodError, io};
use crate::env::{Disk, Env};
use crate::import::remote::Remote;
use crate::server::tools::ToolError;

const PREFIX: &str = "rusd-";
const SUFFIX: &str = ".db";

/// Saves one; gives the text to print.
pub(in crate::server) async fn backup(
    env: &Env,
    remote: &Remote,
    dir: &Path,
    keep: usize,
) -> Result<String, ToolError> {
    let path = dir.join(name(env)?);
    let (bytes, _) = remote.save(env.disk.clone(), &path, &mut |_, _| ()).await?;
    let removed = prune(env.disk.as_ref(), dir, keep)?;
    Ok(format!("saved {} ({bytes} bytes), removed {removed} old ones\n", path.display()))
}

fn name(env: &Env) -> Result<String, PodError> {
    let now = OffsetDateTime::from(env.clock.wall());
    let stamp = now.format(format_description!("[year][month][day]T[hour][minute][second]Z"));
    Ok(format!("{PREFIX}{}{SUFFIX}", stamp.map_err(|error| PodError::Flags(format!("the clock: {error}")))?))
}

/// Removes the oldest beyond `keep`; names sort by time. What isn't named so stays.
fn prune(disk: &dyn Disk, dir: &Path, keep: usize) -> Result<usize, PodError> {
    let names = disk.list(dir).map_err(io("list", dir))?;
    let is_ours = |name: &str| name.starts_with(PREFIX) && name.ends_with(SUFFIX);
    let mut ours: Vec<PathBuf> =
        names.iter().filter(|name| name.to_str().is_some_and(is_ours)).map(|name| dir.join(name)).collect();
    ours.sort_unstable();
    let old = ours.len().saturating_sub(keep.max(1));
    for path in ours.iter().take(old) {
        disk.remove(path).map_err(io("remove", path))?;
    }
    Ok(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{Access, MemDisk};

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
}
