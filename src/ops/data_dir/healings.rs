//! When this member's state was replaced by the others' lately.
//!
//! ```text
//! a snapshot that heals has come ─► so many within a day? ─► left to a person
//!                                └► its time is noted ─► only then it is taken in
//! ```
//! It outlasts the mark of one divergence: a member whose machine is broken heals, differs, and heals again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{DataDir, DataDirError, HEALINGS, Opener, SMALL_FILE_BYTES_MAX};
use crate::env::{Disk, read_all, write_atomic};

/// How often a member's state is replaced within [`HEALINGS_WITHIN`], whatever became of it.
pub const HEALINGS_MAX: usize = 3;
/// See there.
pub const HEALINGS_WITHIN: Duration = Duration::from_secs(24 * 60 * 60);
/// Times that are kept.
const KEPT: usize = 16;

impl DataDir {
    /// How often the state was replaced lately. A time that can't be read, or that is yet to come, counts.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn healings_since(&self, disk: &dyn Disk, now: SystemTime) -> Result<usize, DataDirError> {
        let since = seconds(now).saturating_sub(HEALINGS_WITHIN.as_secs());
        let counts = |time: &String| time.parse::<u64>().ok().is_none_or(|time| time > since);
        Ok(self.healings(disk)?.iter().filter(|time| counts(time)).count())
    }

    /// Notes durably that it is replaced once more.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn note_healing(&self, disk: &dyn Disk, now: SystemTime) -> Result<(), DataDirError> {
        let mut times = self.healings(disk)?;
        times.push(seconds(now).to_string());
        let newest = &times[times.len().saturating_sub(KEPT)..];
        let path = self.member().join(HEALINGS);
        let opener = Opener { disk, root: &self.root };
        write_atomic(disk, &path, (newest.join("\n") + "\n").as_bytes()).map_err(opener.io("write", &path))
    }

    fn healings(&self, disk: &dyn Disk) -> Result<Vec<String>, DataDirError> {
        let path = self.member().join(HEALINGS);
        let opener = Opener { disk, root: &self.root };
        if !disk.exists(&path).map_err(opener.io("look for", &path))? {
            return Ok(Vec::new());
        }
        let bytes = read_all(disk, &path, SMALL_FILE_BYTES_MAX).map_err(opener.io("read", &path))?;
        Ok(String::from_utf8_lossy(&bytes).split_ascii_whitespace().map(str::to_owned).collect())
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::RealDisk;
    use crate::ops::config::Config;

    #[test]
    fn a_days_healings_are_remembered_over_starts() {
        let dir = tempfile::tempdir().expect("a directory");
        let open = || {
            let mut config = Config::default();
            config.member.data_dir = dir.path().to_owned();
            DataDir::open(&RealDisk, &config, None).expect("opened")
        };
        let at = |hours: u64| UNIX_EPOCH + Duration::from_secs((1_000 + hours) * 3_600);
        let since = |hours| open().healings_since(&RealDisk, at(hours)).expect("read");
        assert_eq!(since(0), 0);
        for hours in [0, 10, 20] {
            open().note_healing(&RealDisk, at(hours)).expect("written");
        }
        assert_eq!((since(20), since(23), since(24), since(43), since(44)), (3, 3, 2, 1, 0));
        assert_eq!(since(5), 3, "a clock that was set back forgets nothing");
        for hours in 100..200 {
            open().note_healing(&RealDisk, at(hours)).expect("written");
        }
        assert_eq!(open().healings(&RealDisk).expect("read").len(), KEPT);
        write_atomic(&RealDisk, &dir.path().join("member").join(HEALINGS), b"what is this").expect("written");
        assert_eq!(since(900), 3, "rather never healed than for ever");
    }
}
