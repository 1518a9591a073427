//! A data directory made of what etcd left: a snapshot file, or a directory of its own with its log.
//!
//! ```text
//! source ─► whole? ─► base: rows, records ─► <data-dir>/import.tmp/member/snap/<index>.snapshot
//!                          └─ entries of etcd's log ─► a store for the time being ─► the same, later ─┐
//! log: purged up to there, with a vote ◄──────────────────────────────────────────────────────────────┘
//! import.tmp/member ─► <data-dir>/member, in one step
//! ```
//! Killed anywhere, there is no `member` yet, and the next try begins again; it removes what is left of the first, in a
//! `--wal-dir`, too. At its first start the member makes its
//! store of the snapshot, as it does when a store was lost. Memory holds a page of each level of the file's tree, and
//! a chunk of the snapshot; with entries to apply also their keys' index.

mod build;
mod error;
mod first;
mod follow;
mod progress;
mod source;
mod wal_dir;

pub use build::{Imported, build};
pub use error::ImportFailure;
pub(super) use first::at_first_start;
pub use follow::{FollowError, FollowOptions, Follower, TakenOver, is_taken_over, tell_to_take_over};
pub use progress::Progress;
pub(super) use progress::human;
pub use source::Source;

/// What may be asked for besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImportOptions {
    /// Revisions to skip after the last one, so that none that clients may have seen comes again; 0 is none.
    pub bump_revision: u64,
    /// All history before the last revision, with those that were skipped, is compacted.
    pub mark_compacted: bool,
    /// A file without a checksum, or with a wrong one, is taken.
    pub skip_hash_check: bool,
}
