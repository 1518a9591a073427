//! Forgetting old revisions in the background.
//!
//! ```text
//! AutoCompactor (leader) ─ Schedule says when and what ─► propose Compact ─► … ─► Store::compact
//! Reclaimer ─ sees a published compact revision ─► Store::compact_step, pause, … ─► reclaimed
//! ```
//!
//! Both are tokio workers beside the way of a write. They never own the store: what changes it
//! goes to its one owner, by a proposal or by a message.

mod auto;
mod reclaimer;
mod schedule;

#[cfg(test)]
mod tests;

pub use auto::AutoCompactor;
pub use reclaimer::{ReclaimOptions, Reclaimer};
pub use schedule::{AutoCompaction, Schedule};
