//! What etcd left on a disk, in this house's terms.
//!
//! ```text
//! snapshot file, or member/snap/db ─► database: buckets ─► rows (leases, alarms, users) and records, in their order
//!                                  └► trailer, status: is it whole, what is in it
//! member/wal ─► log: checksummed records ─► entries after the database ─► replay: requests ─► commands
//! ```
//! Every byte may be wrong: what can't be read is named and ends the import. Nothing is written here, and nothing of
//! etcd's is changed; what is made of it is the server's (`server/import`).

mod database;
mod error;
mod log;
pub mod remote;
mod replay;
mod status;
mod trailer;

#[cfg(test)]
mod tests;

pub use database::{Database, REVISION_MAX, Rows};
pub use error::ImportError;
pub use log::{Log, LogEntry};
pub use replay::commands;
pub use status::Status;
pub use trailer::{Trailer, check_trailer, is_trailed, trailer_of};
