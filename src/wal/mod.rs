//! The Raft log on disk.

mod types;

pub use types::{EntryId, Fatal, Recovered, TornTail, WalEntry, WalError, WalOptions};
