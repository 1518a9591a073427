//! The Raft log on disk: entries, the vote and the purge point, in preallocated segment files.
//!
//! ```text
//! append / save_vote / truncate_after / purge_to          read ─► cache ─► places ─► segment files
//!    │ state changed at once, work queued (log)             ▲
//!    ▼                                                      │ publish: durable now
//! log thread (writer): encode the queue ─► one write ─► one fdatasync ─► callbacks in order
//!    │ segment full                                         │ after a durable purge
//!    ▼                                                      ▼
//! keeper thread: next segment's file made ahead          old files removed, oldest first
//!
//! open: lock, owner ─► recovery ─► scan each segment ─► replay ─► repair the end
//! ```
//!
//! The files are append-only: truncating is a record, too, so no valid byte is ever written over.
//! This room knows nothing of Raft's rules nor of what payloads and votes mean.

mod format;
mod handle;
mod keeper;
mod log;
mod owner;
mod places;
mod reader;
mod recovery;
mod replay;
mod scan;
#[cfg(test)]
mod schedules;
mod segment;
mod sums;
mod types;
mod writer;

pub use handle::Wal;
pub use owner::UNFINISHED_IMPORT;
pub use recovery::is_log_file;
pub use types::{
    EntryId, Fatal, GroupStats, Recovered, Scrubbed, TornTail, WalEntry, WalError, WalObserver, WalOptions,
};
