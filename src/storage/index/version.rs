//! `Version`: one entry of a key's history as the index holds it, and `KeyMeta`: the same for others.

use crate::types::{LeaseId, Revision};

/// What the index knows about the living version of a key, without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyMeta {
    /// Main revision of the put that began this generation.
    pub create: i64,
    /// Where the version was written.
    pub modified: Revision,
    /// Puts since creation, 1 for the first.
    pub version: i64,
    /// The lease, or none.
    pub lease: LeaseId,
}
