//! The mark of a member whose state differs from the others'.
//!
//! ```text
//! found to differ ─► <entry> ─► a snapshot takes the state's place: healed <entry> attempts <n> ─► compared ─► removed
//! ```
//! As long as the mark is there, the member isn't served.

use super::{DIVERGED, DataDir, DataDirError, Opener, SMALL_FILE_BYTES_MAX};
use crate::env::{Disk, read_all, write_atomic};
use crate::types::RaftIndex;

/// What the mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// After which entry the state was found to differ.
    pub index: RaftIndex,
    /// The snapshot of which entry has taken its place, or does so at the next start.
    pub healed: Option<RaftIndex>,
    /// How often one did.
    pub attempts: u32,
}

impl Divergence {
    /// One that was just found.
    pub fn found(index: RaftIndex) -> Self {
        Self { index, healed: None, attempts: 0 }
    }

    /// What can't be read counts as the mark of a member that was found to differ at once.
    fn parse(text: &str) -> Self {
        let mut words = text.split_ascii_whitespace();
        let index = words.next().and_then(|word| word.parse().ok()).unwrap_or(1);
        let mut mark = Self::found(RaftIndex(index));
        while let Some((name, value)) = words.next().zip(words.next()) {
            match name {
                "healed" => mark.healed = value.parse().ok().map(RaftIndex),
                "attempts" => mark.attempts = value.parse().unwrap_or(u32::MAX),
                _ => {}
            }
        }
        mark
    }

    fn text(&self) -> String {
        let healed = self.healed.map(|index| format!("healed {}\n", index.get())).unwrap_or_default();
        format!("{}\n{healed}attempts {}\n", self.index.get(), self.attempts)
    }
}

impl DataDir {
    /// What was noted of this member's state, if it was found to differ from the others'.
    ///
    /// # Errors
    /// Those of the disk. A mark that can't be read counts.
    pub fn divergence(&self, disk: &dyn Disk) -> Result<Option<Divergence>, DataDirError> {
        let path = self.member().join(DIVERGED);
        let opener = Opener { disk, root: &self.root };
        if !disk.exists(&path).map_err(opener.io("look for", &path))? {
            return Ok(None);
        }
        let bytes = read_all(disk, &path, SMALL_FILE_BYTES_MAX).map_err(opener.io("read", &path))?;
        Ok(Some(Divergence::parse(&String::from_utf8_lossy(&bytes))))
    }

    /// Notes it durably.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn note_divergence(&self, disk: &dyn Disk, mark: &Divergence) -> Result<(), DataDirError> {
        let path = self.member().join(DIVERGED);
        let opener = Opener { disk, root: &self.root };
        write_atomic(disk, &path, mark.text().as_bytes()).map_err(opener.io("write", &path))
    }

    /// Notes durably that the state is what the others hold again.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn clear_divergence(&self, disk: &dyn Disk) -> Result<(), DataDirError> {
        let path = self.member().join(DIVERGED);
        let opener = Opener { disk, root: &self.root };
        if disk.exists(&path).map_err(opener.io("look for", &path))? {
            disk.remove(&path).map_err(opener.io("remove", &path))?;
        }
        disk.sync_dir(&self.member()).map_err(opener.io("sync", &self.member()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::RealDisk;
    use crate::ops::config::Config;

    #[test]
    fn that_it_differs_from_the_others_is_remembered() {
        let dir = tempfile::tempdir().expect("a directory");
        let open = || {
            let mut config = Config::default();
            config.member.data_dir = dir.path().to_owned();
            DataDir::open(&RealDisk, &config, None).expect("opened")
        };
        let first = open();
        assert_eq!(first.divergence(&RealDisk).expect("read"), None);
        let found = Divergence::found(RaftIndex(512));
        first.note_divergence(&RealDisk, &found).expect("written");
        drop(first);
        let again = open();
        assert_eq!(again.divergence(&RealDisk).expect("read"), Some(found));
        let healed = Divergence { healed: Some(RaftIndex(700)), attempts: 2, ..found };
        again.note_divergence(&RealDisk, &healed).expect("written");
        assert_eq!(again.divergence(&RealDisk).expect("read"), Some(healed));
        again.clear_divergence(&RealDisk).expect("removed");
        again.clear_divergence(&RealDisk).expect("nothing to remove");
        assert_eq!(again.divergence(&RealDisk).expect("read"), None);
    }

    #[test]
    fn a_mark_that_cannot_be_read_counts() {
        assert_eq!(Divergence::parse(""), Divergence::found(RaftIndex(1)));
        assert_eq!(Divergence::parse("512\n"), Divergence::found(RaftIndex(512)), "of an older version");
        assert_eq!(Divergence::parse("512\nattempts x\n").attempts, u32::MAX, "rather never healed than for ever");
        assert_eq!(Divergence::parse("512 new 7 healed 9").healed, Some(RaftIndex(9)));
    }
}
