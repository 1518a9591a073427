//! `member/format`: lines of `name value` that say what the directory is.

use std::fmt;

use crate::ops::config::EngineKind;
use crate::ops::identity::Identity;
use crate::types::{ClusterId, MemberId};

/// The layout that this version writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// What a data directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// The engine of its store.
    pub engine: EngineKind,
    /// Whose it is.
    pub identity: Identity,
    /// Whether it joined a cluster that was there: it never begins one then.
    pub joined: bool,
}

/// Why a format file isn't taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A version that isn't known here.
    #[error("its format is version {0}, this rusd knows {FORMAT_VERSION}. Start the rusd that made it, or a newer one")]
    Version(u32),
    /// A line is missing or unreadable.
    #[error("member/format is damaged: no usable line {0:?}. Restore the directory from a backup")]
    Damaged(&'static str),
}

impl Format {
    /// Reads the file.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        let line = |name: &'static str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).ok_or(FormatError::Damaged(name))
        };
        let version = line("format")?.parse().map_err(|_| FormatError::Damaged("format"))?;
        if version != FORMAT_VERSION {
            return Err(FormatError::Version(version));
        }
        let engine = line("engine")?;
        let engine = [EngineKind::Sled, EngineKind::Redb]
            .into_iter()
            .find(|kind| kind.name() == engine)
            .ok_or(FormatError::Damaged("engine"))?;
        let id = |name| u64::from_str_radix(line(name)?, 16).map_err(|_| FormatError::Damaged(name));
        let identity = Identity { cluster: ClusterId(id("cluster")?), member: MemberId(id("member")?) };
        Ok(Self { engine, identity, joined: line("joined").is_ok() })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity { cluster, member } = self.identity;
        writeln!(f, "rusd data directory\nformat {FORMAT_VERSION}\nengine {}", self.engine.name())?;
        writeln!(f, "cluster {cluster}\nmember {member}")?;
        if self.joined { writeln!(f, "joined yes") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_as_it_is_written() {
        let identity = Identity { cluster: ClusterId(u64::MAX), member: MemberId(1) };
        for joined in [false, true] {
            let format = Format { engine: EngineKind::Redb, identity, joined };
            assert_eq!(Format::parse(&format.to_string()), Ok(format));
        }
    }

    #[test]
    fn other_versions_and_damage_are_told_apart() {
        assert_eq!(Format::parse("format 2\n"), Err(FormatError::Version(2)));
        assert_eq!(Format::parse(""), Err(FormatError::Damaged("format")));
        assert_eq!(Format::parse("format 1\nengine lmdb\n"), Err(FormatError::Damaged("engine")));
        assert_eq!(Format::parse("format 1\nengine sled\ncluster x\n"), Err(FormatError::Damaged("cluster")));
    }
}
