//! The only room that names openraft.
//!
//! ```text
//! propose ─► LogData ─► Raft core ─► log_store ─► wal (fsync) ─► Raft core ─► state_machine ─► Machine
//!                          └► peer ─► the other members' Raft cores ─► their logs
//! ```

mod alone;
mod answers;
mod codec;
mod divergence;
mod heal;
mod index;
mod leader_lines;
mod lease;
mod lineage;
mod log_cache;
mod log_store;
mod membership;
mod node;
pub mod peer;
mod promoter;
mod seed;
mod snapshots;
mod state_machine;
mod status;
mod tenure;
mod types;
mod vouched;
mod waiters;

pub use alone::force_alone;
pub use codec::{members_of, term_of_vote};
pub use divergence::{Finding, Landmarks, PARTS, Verdict, Witness, judge, longer, should_agree, stands};
pub use lineage::{COPIED_KEY, Lineage};
pub use log_cache::LogCache;
pub use log_store::LogStore;
pub use membership::{MemberChange, MemberRecord, MemberRules, RemovedMembers};
pub use node::{Node, NodeConfig, StartError};
pub use seed::{seed_log, seed_membership};
pub use snapshots::{Load, Save, SavedSnapshot, SnapshotBuilder, Snapshots};
pub use state_machine::{MEMBERSHIP_KEY, OnApply, OnPublish, OnPublished, StateMachine};
pub use status::{DiskState, NodeStatus};
pub use types::{Applied, EntryTimes, LocalBatch, ORIGIN_LEN, Origin, PeerNode, Proposals, Reply};
pub use waiters::Waiters;

/// Runs a member of the simulation: what openraft draws at random inside comes from `seed`.
#[cfg(rusd_sim)]
pub fn seeded<F: Future>(seed: u64, member: F) -> impl Future<Output = F::Output> {
    types::Runtime::scope(seed, member)
}

#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod history_tests;
#[cfg(test)]
pub(crate) mod tests;
