//! Leases: which there are and what hangs on them (replicated), and when they run out (the leader's).
//!
//! ```text
//! apply ──► LeaseWriter ──► ┌ Lessor: 64 shards, each behind its own mutex ┐ ◄── renew, remaining, keys: api
//!   grant, revoke, attach,  │ lease = ttl, checkpoint, keys │ deadline      │ ◄── expired, checkpoints: the leader's
//!   detach, checkpoint      └───────── replicated ──────────┴─ leader only ─┘     ticker, which proposes what they say
//! ```
//!
//! A renewal only stores a new deadline: no log entry, no heap operation. The heap entry that a
//! lease was queued with is moved on when its turn comes. No clock is read here: every method that
//! needs the time takes it. Nothing here knows of Raft, of the wire or of the store.

mod checkpoint;
mod counts;
mod keys;
mod lessor;
mod record;
mod shard;
mod writer;

pub use checkpoint::CHECKPOINT_SHRINK_SECS_MIN;
pub use counts::LeaseCounts;
pub use keys::Pass;
pub use lessor::{EXPIRE_RETRY, LeaseStatus, Lessor, Renewal, SHARDS};
pub use record::LeaseRecord;
pub use writer::LeaseWriter;
