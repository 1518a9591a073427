//! The state as one checksummed stream: to send to a member, to keep beside the log, to restore.
//!
//! ```text
//! Frozen (rows, position) + ValueReader (records) ─► write_snapshot ─► file or socket
//!                                                     read_snapshot ─► items ─► values::Replacement
//! ```
//!
//! Both ends hold one chunk in memory. The bytes are a function of the rows and records alone. [`bbolt`] writes the same state as etcd's tools read it.

pub mod bbolt;
mod check;
mod chunk;
mod file;
mod read;
mod through;
mod write;

use std::path::PathBuf;

use bytes::Bytes;

use crate::storage::values::Frozen;
use crate::storage::{AppliedPosition, Table};
use crate::types::StorageError;

pub use crate::storage::mvcc::SnapshotItem;
pub use check::SnapshotCheck;
pub use file::{FileStream, SaveTimes, open_snapshot, save_snapshot};
pub use read::{SnapshotReader, read_header, read_snapshot};
pub use through::read_through;
pub use write::{SnapshotWriter, write_snapshot};

/// The row of `Meta` that holds the membership, in the bytes of the room that knows them.
pub const MEMBERSHIP_KEY: &[u8] = b"membership";
/// The row of `Meta` that begins with the compacted revision as 8 big-endian bytes.
const COMPACT_KEY: &[u8] = b"compact_revision";

/// What a snapshot is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// The entry that it is after.
    pub position: AppliedPosition,
    /// The store's revision.
    pub revision: i64,
    /// The lowest readable revision; −1 if nothing was ever compacted.
    pub compact_revision: i64,
    /// The membership as of that entry; empty if there was none.
    pub membership: Bytes,
}

impl SnapshotHeader {
    /// The header of a frozen state.
    pub fn of(frozen: &Frozen) -> Self {
        let compacted = frozen.row(Table::Meta, COMPACT_KEY).and_then(|row| row.first_chunk::<8>().copied());
        let compact_revision = compacted.map_or(-1, i64::from_be_bytes);
        Self {
            position: frozen.position,
            revision: frozen.last_main.max(compact_revision).max(1),
            compact_revision,
            membership: frozen.row(Table::Meta, MEMBERSHIP_KEY).cloned().unwrap_or_default(),
        }
    }
}

/// Why a snapshot could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The stream.
    #[error("the snapshot's stream: {0}")]
    Io(#[from] std::io::Error),
    /// The store below, or whoever takes the items.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The bytes are not what was written.
    #[error("the snapshot is damaged at byte {offset}: {what}")]
    Damaged {
        /// Where in the stream.
        offset: u64,
        /// What was found.
        what: &'static str,
    },
    /// It was written by a later version.
    #[error("the snapshot is of format {0}, which this version doesn't know")]
    Format(u16),
}

impl SnapshotError {
    /// The same as a storage error of the file at `path`.
    pub fn at(self, path: impl Into<PathBuf>) -> StorageError {
        let path = path.into();
        match self {
            Self::Io(error) => StorageError::io("use the snapshot", path, error),
            Self::Storage(error) => error,
            Self::Damaged { offset, what } => StorageError::Damaged { path, offset, what: what.to_owned() },
            Self::Format(_) => StorageError::Mismatch(format!("{}: {self}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests;
