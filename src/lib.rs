//! rusd: a coordination server that takes etcd's place. `ARCHITECTURE.md` has the way through.
//!
//! ```text
//! write: api ─► admit ─► propose ─► consensus ─► wal ─► apply ─► storage ─► publish ─► watch ─► reply
//! read:  api ─► admit ─► propose::read_barrier ─► storage::publish ─► index ─► value ─► encode
//! ```

#![forbid(unsafe_code)]

pub mod admit;
pub mod api;
pub mod apply;
pub mod cli;
pub mod consensus;
pub mod env;
pub mod lease;
pub mod ops;
pub mod propose;
pub mod server;
pub mod storage;
pub mod types;
pub mod wal;
pub mod watch;
