//! The KV service.
//!
//! ```text
//! read   convert ─► read barrier (not if serializable) ─► one Snapshot ─► reply
//! write  admit (alarms, quota) ─► shape ─► size ─► room for what it tells ─► propose ─► reply
//! ```

mod compare;
mod meter;
mod read;
mod room;
mod stream;
mod txn;
mod write;

pub(crate) use read::{
    barrier, barrier_as_logged, blocking, blocking_in, if_leaderless, range, read_own, read_range, run,
};
pub(crate) use stream::range_stream;
pub(crate) use txn::txn;
pub(crate) use write::{admit, compact, delete_range, propose, propose_permitted, put, submit, unexpected};
