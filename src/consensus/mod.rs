//! The only room that names openraft.
//!
//! ```text
//! propose ─► LogData ─► Raft core ─► log_store ─► wal (fsync) ─► Raft core ─► state_machine ─► Machine
//! ```

mod codec;
mod network;
mod types;
