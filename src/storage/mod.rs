//! The revisioned store: engine below, index above, one published state between writer and readers.

pub mod backend;
pub mod compaction;
pub mod digest;
pub mod events;
pub mod index;
pub mod mvcc;
pub mod publish;
mod query;
mod record;
pub mod snapshot;
pub mod values;

pub use query::{RangeQuery, RangeResult, Scoped, SortOrder, SortTarget};
pub use record::{Record, VersionRecord};
