//! The words of the house: identifiers, revisions, key ranges, limits, errors.
//!
//! Every room may use these and they use nothing. A bare integer never stands for one of them
//! outside the wire code in `api` and the byte code in `wal` and `storage::backend`.

mod budget;
mod error;
mod ids;
mod key_range;
mod kv;
mod limits;
mod places;
pub mod planted;
mod revision;
pub mod stages;

pub use budget::{Budget, Held};
pub use error::{RequestError, StorageError};
pub use ids::{ClusterId, LeaseId, MemberId, RaftIndex, Term};
pub use key_range::{KeyRange, RangeEnd};
pub use kv::{Event, EventKind, KeyValue};
pub use limits::Limits;
pub use places::{Place, Places};
pub use revision::Revision;
