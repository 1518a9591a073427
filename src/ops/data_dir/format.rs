//! `member/format`: lines of `name value` that say what the directory is, the last one a checksum of those before it.

use std::fmt;

use crate::ops::config::EngineKind;
use crate::ops::identity::Identity;
use crate::types::{ClusterId, MemberId};

/// The layout that this version writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// What begins the last line. Files of builds before it lack it.
const CRC: &str = "crc ";

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
    /// A byte isn't what was written.
    #[error("member/format is damaged: its checksum doesn't fit. Restore the directory from a backup")]
    Checksum,
}

impl Format {
    /// Reads the file.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        if let Some((lines, crc)) = text.rsplit_once(CRC)
            && u32::from_str_radix(crc.trim_end(), 16) != Ok(crc32c::crc32c(lines.as_bytes()))
        {
            return Err(FormatError::Checksum);
        }
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
        let (engine, joined) = (self.engine.name(), if self.joined { "joined yes\n" } else { "" });
        let lines = format!(
            "rusd data directory\nformat {FORMAT_VERSION}\nengine {engine}\ncluster {cluster}\nmember {member}\n{joined}"
        );
        writeln!(f, "{lines}{CRC}{:08x}", crc32c::crc32c(lines.as_bytes()))
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

    /// A digit of an id that flips would make another member of it, and a letter of `joined` one that may begin a cluster.
    #[test]
    fn a_changed_byte_is_damage_or_nothing() {
        let identity = Identity { cluster: ClusterId(0x0123_4567), member: MemberId(0x89ab_cdef) };
        let format = Format { engine: EngineKind::Sled, identity, joined: true };
        let text = format.to_string();
        for at in 0..text.len() {
            for bit in 0..7 {
                let mut bytes = text.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let read = Format::parse(&String::from_utf8_lossy(&bytes));
                assert!(read.is_err() || read == Ok(format), "byte {at}, bit {bit}: {read:?}");
            }
        }
        let (older, _) = text.rsplit_once(CRC).expect("a checksum");
        assert_eq!(Format::parse(older), Ok(format), "of a build before it");
    }

    #[test]
    fn other_versions_and_damage_are_told_apart() {
        assert_eq!(Format::parse("format 2\n"), Err(FormatError::Version(2)));
        assert_eq!(Format::parse(""), Err(FormatError::Damaged("format")));
        assert_eq!(Format::parse("format 1\nengine lmdb\n"), Err(FormatError::Damaged("engine")));
        assert_eq!(Format::parse("format 1\nengine sled\ncluster x\n"), Err(FormatError::Damaged("cluster")));
    }
}
