//! The keeper of leases on the leader: what ran out is ended through the log, many in one entry.
//!
//! ```text
//! tick ─► Lessor::expired ─► LeaseExpire ─► log ─► apply (keys deleted, lease gone)
//! tick ─► Lessor::checkpoints ─► LeaseCheckpoint ─► log ─► remaining time survives a restart
//! ```
