//! What `--auto-compaction-mode` and `--auto-compaction-retention` mean together.

use std::time::Duration;

use super::duration::parse_duration;
use super::{CompactionMode, ConfigError};

/// What the server compacts by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Nothing.
    Off,
    /// Keep the history of this long.
    Periodic(Duration),
    /// Keep this many revisions.
    Revision(i64),
}

impl AutoCompaction {
    /// In periodic mode a bare number is hours; in revision mode it is revisions.
    pub(super) fn resolve(mode: CompactionMode, retention: &str) -> Result<Self, ConfigError> {
        let bad = |why: &str, instead: &str| {
            let what = format!("--auto-compaction-retention={retention}");
            Err(ConfigError::new(what, why, instead))
        };
        let number = retention.parse::<u32>().ok();
        match (mode, number) {
            (_, Some(0)) => Ok(Self::Off),
            (CompactionMode::Revision, Some(count)) => Ok(Self::Revision(count.into())),
            (CompactionMode::Revision, None) => bad(
                "in revision mode it is a number of revisions",
                "Type --auto-compaction-retention=1000, or --auto-compaction-mode=periodic",
            ),
            (CompactionMode::Periodic, Some(hours)) => Ok(Self::Periodic(Duration::from_secs(u64::from(hours) * 3600))),
            (CompactionMode::Periodic, None) => match parse_duration(retention) {
                Ok(Duration::ZERO) => Ok(Self::Off),
                Ok(duration) => Ok(Self::Periodic(duration)),
                Err(_) => bad(
                    "in periodic mode it is a duration, or a number of hours",
                    "Type --auto-compaction-retention=30m",
                ),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_gives_the_number_its_meaning() {
        use CompactionMode::{Periodic, Revision};
        let secs = |n| AutoCompaction::Periodic(Duration::from_secs(n));
        assert_eq!(AutoCompaction::resolve(Periodic, "0"), Ok(AutoCompaction::Off));
        assert_eq!(AutoCompaction::resolve(Periodic, "2"), Ok(secs(7200)));
        assert_eq!(AutoCompaction::resolve(Periodic, "5m"), Ok(secs(300)));
        assert_eq!(AutoCompaction::resolve(Revision, "1000"), Ok(AutoCompaction::Revision(1000)));
        assert!(AutoCompaction::resolve(Revision, "5m").is_err());
        assert!(AutoCompaction::resolve(Periodic, "-1").is_err());
    }
}
