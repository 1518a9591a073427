//! The versioned store's writer: a single owner, plain values, no lock.
//!
//! ```text
//! begin ─► WriteTxn (put, delete, range) ─► commit ─► … ─► publish ─► ValueWriter, ArcSwap, EventBatch
//! compact ─► history is unreadable at once ─► compact_step … ─► the index and the disk give space back
//! ```

mod compared;
mod install;
mod open;
mod range;
mod reclaim;
mod store;
mod txn;

#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod tests;

pub use install::{InstallHook, Installation, Prepared, SnapshotItem};
pub use open::{Opened, StoreConfig};
pub(super) use range::{Records, View};
pub use reclaim::CompactStep;
pub use store::{Store, compact_row};
pub use txn::{PutOutcome, WriteTxn};
