//! Where the store stands in the Raft log, and the tables that one batch may touch.

use crate::types::{RaftIndex, Term};

/// The last Raft entry whose changes a state holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AppliedPosition {
    /// Its index; 0 is "none yet".
    pub index: RaftIndex,
    /// Its term.
    pub term: Term,
}

/// The tables of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// Records by revision.
    Kv,
    /// Positions, compact revision, membership, alarms.
    Meta,
    /// Leases.
    Lease,
    /// Users, roles and their state.
    Auth,
    /// Kept for later use.
    Index,
}
