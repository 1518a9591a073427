//! The revisioned store: engine below, index above, one published state between writer and readers.

pub mod backend;
pub mod compaction;
pub mod digest;
mod each_value;
pub mod events;
pub mod index;
pub mod mvcc;
mod position;
pub mod publish;
mod query;
mod record;
pub mod snapshot;
pub mod values;

pub use backend::Table;
pub use events::{EventBatch, EventEntry, History, HistoryError};
pub use index::{KeyMeta, Rows};
pub use mvcc::{
    CompactStep, InstallHook, Installation, Opened, Prepared, PutOutcome, SnapshotItem, Store, StoreConfig, WriteTxn,
    compact_row,
};
pub use position::AppliedPosition;
pub use publish::{Disk, HashKv, ReadError, Snapshot, StoreCounts, StoreReader};
pub use query::{RangeQuery, RangeResult, Scoped, SortOrder, SortTarget};
pub use record::{Record, VersionRecord};
