//! Where the store stands in the Raft log.

use crate::types::{RaftIndex, Term};

/// The last Raft entry whose changes a state holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AppliedPosition {
    /// Its index; 0 is "none yet".
    pub index: RaftIndex,
    /// Its term.
    pub term: Term,
}
