//! When this member's state was replaced by the others' lately.
//!
//! ```text
//! a snapshot that heals has come ─► so many within a day? ─► left to a person
//!                                └► its time is noted ─► only then it is taken in ─► no room for it: that is noted, too
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
/// What stands behind the time of a try for which there was no room.
const FULL: &str = "-full";

/// What has become of the tries of a day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Healings {
    /// How often the state was replaced, or may have been.
    pub replaced: usize,
    /// How often there was no room for it: nothing was replaced, and the next try asks for more.
    pub full: usize,
}

impl DataDir {
    /// How often the state was replaced lately. A time that can't be read, or that is yet to come, counts.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn healings_since(&self, disk: &dyn Disk, now: SystemTime) -> Result<Healings, DataDirError> {
        let since = seconds(now).saturating_sub(HEALINGS_WITHIN.as_secs());
        let is_late = |time: &str| time.parse::<u64>().ok().is_none_or(|time| time > since);
        let mut lately = Healings::default();
        for time in self.healings(disk)? {
            match time.strip_suffix(FULL) {
                Some(time) => lately.full += usize::from(is_late(time)),
                None => lately.replaced += usize::from(is_late(&time)),
            }
        }
        Ok(lately)
    }

    /// Notes durably that it is replaced once more.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn note_healing(&self, disk: &dyn Disk, now: SystemTime) -> Result<(), DataDirError> {
        let mut times = self.healings(disk)?;
        times.push(seconds(now).to_string());
        self.write_healings(disk, &times)
    }

    /// Notes durably that there was no room for the newest one.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn note_healing_full(&self, disk: &dyn Disk) -> Result<(), DataDirError> {
        let mut times = self.healings(disk)?;
        match times.last_mut().filter(|time| !time.ends_with(FULL)) {
            Some(newest) => newest.push_str(FULL),
            None => return Ok(()),
        }
        self.write_healings(disk, &times)
    }

    fn write_healings(&self, disk: &dyn Disk, times: &[String]) -> Result<(), DataDirError> {
        let newest = newest(times);
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

/// The newest ones: those of which the state was replaced always as many as count, however many found no room.
fn newest(times: &[String]) -> Vec<&str> {
    let mut left = HEALINGS_MAX;
    let mut kept: Vec<_> = times
        .iter()
        .rev()
        .enumerate()
        .filter(|(behind, time)| {
            let counts = !time.ends_with(FULL) && left > 0;
            left -= usize::from(counts);
            counts || *behind < KEPT
        })
        .map(|(_, time)| time.as_str())
        .collect();
    kept.reverse();
    kept
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
        let all = |hours| open().healings_since(&RealDisk, at(hours)).expect("read");
        let since = |hours| all(hours).replaced;
        assert_eq!(all(0), Healings::default());
        open().note_healing_full(&RealDisk).expect("there is none");
        for hours in [0, 10, 20] {
            open().note_healing(&RealDisk, at(hours)).expect("written");
        }
        assert_eq!((since(20), since(23), since(24), since(43), since(44)), (3, 3, 2, 1, 0));
        assert_eq!(since(5), 3, "a clock that was set back forgets nothing");
        for hours in 100..200 {
            open().note_healing(&RealDisk, at(hours)).expect("written");
        }
        assert_eq!(open().healings(&RealDisk).expect("read").len(), KEPT);
        for _ in 0..2 {
            open().note_healing_full(&RealDisk).expect("written");
        }
        assert_eq!(all(200), Healings { replaced: KEPT - 1, full: 1 });
        assert_eq!(all(300), Healings::default(), "room that there wasn't a day ago tells nothing");
        for hours in [300, 301] {
            open().note_healing(&RealDisk, at(hours)).expect("written");
        }
        for _ in 0..2 * KEPT {
            open().note_healing(&RealDisk, at(302)).expect("written");
            open().note_healing_full(&RealDisk).expect("written");
        }
        assert_eq!(since(303), 2, "tries without room push out none that counts");
        assert!(open().healings(&RealDisk).expect("read").len() <= KEPT + HEALINGS_MAX);
        write_atomic(&RealDisk, &dir.path().join("member").join(HEALINGS), b"what is this").expect("written");
        assert_eq!(since(900), 3, "rather never healed than for ever");
    }
}
