//! Failpoints: places at which a test slows the process, has it say something, or ends it, by etcd's names.
//!
//! ```text
//! GOFAIL_HTTP ─► http (list, get, put, delete) ─► registry: what each point does ◄── hit, at the place itself
//! ```
//! Only with the cargo feature `failpoints`; without it [`hit`] is empty, and nothing listens. A point that
//! sleeps blocks its thread, which is meant: what it stands in the way of has to wait.

#[cfg(feature = "failpoints")]
mod http;
#[cfg(feature = "failpoints")]
mod registry;
#[cfg(feature = "failpoints")]
mod term;

#[cfg(feature = "failpoints")]
pub use http::serve;

/// A place, called as etcd calls the equivalent one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Point {
    /// A group of log records is about to be written.
    RaftBeforeSave,
    /// The group is synced, and nobody has been told.
    RaftAfterSave,
    /// The leader is about to send entries.
    RaftBeforeLeaderSend,
    /// A follower is about to answer.
    RaftBeforeFollowerSend,
    /// A snapshot from another member is about to be kept.
    RaftBeforeSaveSnap,
    /// It is on the disk, whole and checked.
    RaftAfterSaveSnap,
    /// It is about to take the place of the state.
    RaftBeforeApplySnap,
    /// It has.
    RaftAfterApplySnap,
    /// Its file is about to be opened for that.
    ApplyBeforeOpenSnapshot,
    /// It has been read, and the state isn't it yet.
    ApplyAfterOpenSnapshot,
    /// Files of the log that a snapshot made useless are gone.
    RaftAfterWalRelease,
    /// The log is about to be synced.
    WalBeforeSync,
    /// It is.
    WalAfterSync,
    /// An entry with commands is about to be applied.
    BeforeApplyOneEntryNormal,
    /// An entry that changes the membership is about to be applied.
    BeforeApplyOneConfChange,
    /// The store's next step is about to be put together.
    CommitBeforePreCommitHook,
    /// The step is put together and about to be written.
    BeforeCommit,
    /// It is written and flushed.
    AfterCommit,
    /// A compaction's revision is about to be noted.
    CompactBeforeCommitScheduledCompact,
    /// It is noted, and not yet published.
    CompactAfterCommitScheduledCompact,
    /// A compaction's next keys are about to be looked at.
    CompactBeforeCommitBatch,
    /// They have been.
    CompactAfterCommitBatch,
    /// All that a compaction found is about to be handed to the disk.
    CompactBeforeSetFinishedCompact,
    /// It has been.
    CompactAfterSetFinishedCompact,
    /// A lease's time is about to be looked up.
    BeforeLookupWhenLeaseTimeToLive,
    /// A renewal is about to take a lease's checkpoint back.
    BeforeCheckpointInLeaseRenew,
}

/// Every point's name, in the order of [`Point`].
pub const NAMES: [&str; 26] = [
    "raftBeforeSave",
    "raftAfterSave",
    "raftBeforeLeaderSend",
    "raftBeforeFollowerSend",
    "raftBeforeSaveSnap",
    "raftAfterSaveSnap",
    "raftBeforeApplySnap",
    "raftAfterApplySnap",
    "applyBeforeOpenSnapshot",
    "applyAfterOpenSnapshot",
    "raftAfterWALRelease",
    "walBeforeSync",
    "walAfterSync",
    "beforeApplyOneEntryNormal",
    "beforeApplyOneConfChange",
    "commitBeforePreCommitHook",
    "beforeCommit",
    "afterCommit",
    "compactBeforeCommitScheduledCompact",
    "compactAfterCommitScheduledCompact",
    "compactBeforeCommitBatch",
    "compactAfterCommitBatch",
    "compactBeforeSetFinishedCompact",
    "compactAfterSetFinishedCompact",
    "beforeLookupWhenLeaseTimeToLive",
    "beforeCheckpointInLeaseRenew",
];

/// Does here what the point was told to do; nothing, mostly.
#[inline(always)]
pub fn hit(point: Point) {
    #[cfg(feature = "failpoints")]
    registry::hit(point);
    #[cfg(not(feature = "failpoints"))]
    let _ = point;
}
