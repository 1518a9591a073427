//! The revisioned store: engine below, index above, one published state between writer and readers.

mod query;
mod record;

pub use query::{RangeQuery, RangeResult, Scoped, SortOrder, SortTarget};
pub use record::{Record, VersionRecord};
