//! What goes into the log and what comes out of it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::types::{MemberId, RaftIndex, Term};

/// Names an entry: its place and the leadership that put it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// The leader's term.
    pub term: Term,
    /// The place in the log.
    pub index: RaftIndex,
    /// The leader, where the caller's leader ids carry one.
    pub node: Option<MemberId>,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalEntry {
    /// Which.
    pub id: EntryId,
    /// The caller's own tag; the log keeps it and gives it back.
    pub kind: u8,
    /// The caller's bytes, at most [`WalEntry::PAYLOAD_BYTES_MAX`].
    pub payload: Bytes,
}

impl WalEntry {
    /// The longest payload of one entry.
    pub const PAYLOAD_BYTES_MAX: usize = 256 * 1024 * 1024;
}

/// Sizes. The defaults are for production; tests make them small.
#[derive(Clone, Debug)]
pub struct WalOptions {
    /// Length of a segment file, allocated ahead. Smaller ones are made when the disk is small.
    pub segment_bytes: u32,
    /// From this size on a group is written and synced though more is waiting.
    pub group_bytes_max: usize,
    /// Payload bytes of recent entries kept in memory; entries that aren't durable yet come on top.
    pub cache_bytes: usize,
    /// Whether writes go past the page cache where the file system can (`env/sectors.rs`).
    pub direct_io: bool,
    /// Whose log it is, in a line of the caller's own; a log that says another is refused.
    pub owner: Option<String>,
    /// Told of every synced group, on the log thread.
    pub observer: Option<Arc<dyn WalObserver>>,
}

/// What one group cost.
#[derive(Clone, Copy, Debug)]
pub struct GroupStats {
    /// Records in it.
    pub records: usize,
    /// Bytes written.
    pub bytes: usize,
    /// Time in the write.
    pub write: Duration,
    /// Time in the fsync.
    pub sync: Duration,
}

/// Takes figures for metrics; must not block.
pub trait WalObserver: fmt::Debug + Send + Sync {
    /// A group is durable.
    fn group_synced(&self, stats: GroupStats);
}

impl WalOptions {
    /// The shortest segment that is made on a small disk.
    pub const SEGMENT_BYTES_MIN: u32 = 64 * 1024;
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 * 1024 * 1024,
            group_bytes_max: 4 * 1024 * 1024,
            cache_bytes: 1024 * 1024,
            direct_io: true,
            owner: None,
            observer: None,
        }
    }
}

/// What the log held when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The vote saved last, in the caller's bytes.
    pub vote: Option<Bytes>,
    /// The entry up to which the log was purged.
    pub purged: Option<EntryId>,
    /// The last entry; the purged one if there is none after it.
    pub last: Option<EntryId>,
    /// The committed entry saved last; never beyond `last`. A hint: it may lag.
    pub committed: Option<EntryId>,
    /// What was cut from the end, if a crash had left a write unfinished.
    pub cut: Option<TornTail>,
}

/// The end of an unfinished write that was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment file.
    pub path: PathBuf,
    /// Where the valid part ends.
    pub offset: u64,
    /// How many bytes from there on were not zero, to the last one that wasn't.
    pub bytes: u64,
}

/// A finished segment that was read again.
#[derive(Debug)]
pub struct Scrubbed {
    /// Its number; they ascend.
    pub segment: u64,
    /// The last entry that it can hold.
    pub last: RaftIndex,
    /// Bytes checked, or what is wrong with them.
    pub result: Result<u64, WalError>,
}

/// Why the log could not be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The system refused a file operation.
    #[error("raft log: {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// Bytes on disk are not what was written.
    #[error(
        "raft log: damaged data in {path} at byte {offset}: {what}; the disk has changed or lost bytes that were \
         already synced. Do not delete the file by hand: remove this member from the cluster and add it again with \
         an empty data directory, or restore a snapshot"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What was found.
        what: String,
    },
    /// Another process has it open.
    #[error(
        "raft log: {dir} is in use by {holder}. A log belongs to one member and one process: stop that one, or \
         type another --wal-dir"
    )]
    InUse {
        /// The log's directory.
        dir: PathBuf,
        /// What the lock file says.
        holder: String,
    },
    /// It was written by another member.
    #[error(
        "raft log: {dir} belongs to {found}, and this is {owner}. Type the --wal-dir that this data directory was \
         made with"
    )]
    Foreign {
        /// The log's directory.
        dir: PathBuf,
        /// Who wants it.
        owner: String,
        /// Who wrote it.
        found: String,
    },
    /// Written by a version with another format.
    #[error("raft log: {path} has format {found}, this version reads {supported}; start the version that wrote it")]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format number.
        found: u32,
        /// The one known here.
        supported: u32,
    },
}

impl WalError {
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

impl From<WalError> for io::Error {
    fn from(error: WalError) -> Self {
        let kind = match &error {
            WalError::Io { source, .. } => source.kind(),
            WalError::Damaged { .. } => io::ErrorKind::InvalidData,
            WalError::Format { .. } | WalError::Foreign { .. } => io::ErrorKind::Unsupported,
            WalError::InUse { .. } => io::ErrorKind::ResourceBusy,
        };
        Self::new(kind, error)
    }
}

/// The failure that ended the log's writing. Everything asked of it afterwards gets this error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("raft log: {action} {path} at byte {offset}: {message}; {advice}")]
pub struct Fatal {
    /// What failed.
    pub action: &'static str,
    /// The segment file.
    pub path: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// The system's text.
    pub message: String,
    /// The system's error number, if it gave one.
    pub errno: Option<i32>,
    /// The kind of the system's answer.
    pub kind: io::ErrorKind,
    /// What the operator should do.
    pub advice: &'static str,
}

impl Fatal {
    pub(super) fn new(action: &'static str, path: impl Into<PathBuf>, offset: u64, source: &io::Error) -> Self {
        let advice = if source.kind() == io::ErrorKind::StorageFull {
            "free space on this disk, then start the member again; nothing acknowledged is lost"
        } else {
            "nothing acknowledged is lost, but this disk can no longer be trusted: check it, then start the member again"
        };
        Self {
            action,
            path: path.into(),
            offset,
            message: source.to_string(),
            errno: source.raw_os_error(),
            kind: source.kind(),
            advice,
        }
    }
}

impl Fatal {
    /// A thread of the log ended by a panic: an error in rusd.
    pub(super) fn panicked(action: &'static str, dir: impl Into<PathBuf>, why: &str) -> Self {
        let source = io::Error::other(format!("its thread panicked: {why}"));
        let advice = "nothing acknowledged is lost: start the member again, and report this";
        Self { advice, ..Self::new(action, dir, 0, &source) }
    }
}

impl From<Fatal> for io::Error {
    fn from(fatal: Fatal) -> Self {
        Self::new(fatal.kind, fatal)
    }
}
