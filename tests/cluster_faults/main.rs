//! Three and five real members under faults: killed, paused, cut off, far behind, while clients write and read.
//!
//! ```text
//! Load (workers at every member) ─► Op, Call: what was asked, when, what was answered ─┐
//! Follower (at every member, resumed after faults and compactions) ─► events ─────────┴► check: is it one history?
//!                     ▲ fault: SIGKILL, SIGSTOP, SIGTERM, a network that holds bytes (`net`)
//! ```
//! Each story tells what happens at its top; what has to hold after any of them is in `check`.
//! `RUSD_FAULT_ROUNDS` runs each for as many rounds, `RUSD_FAULT_SEED` and `RUSD_FAULT_BACKEND` as in
//! `tests/faults`; `cargo xtask faults` runs both programs.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the test looks at the real world from outside"
)]

mod check;
mod cluster;
mod follower;
mod leases;
mod load;
mod membership;
mod messages;
mod namespaces;
mod net;
#[path = "../support/ports.rs"]
mod ports;
mod process;
mod run;
mod split;
#[path = "../support/subnet.rs"]
mod subnet;
mod weather;

mod addresses;
mod behind;
mod chaos;
mod clocks;
mod copies;
mod cut_off;
mod disks;
mod divergence;
mod failover;
#[cfg(feature = "failpoints")]
#[path = "../support/failpoint.rs"]
mod failpoint;
#[cfg(feature = "failpoints")]
mod failpoints;
mod flood;
mod fuzz;
mod handed_on;
mod killed;
mod learners;
mod lease_reads;
mod listed;
mod lossy;
mod majority;
mod marked;
mod observed;
mod overload;
mod paused;
mod replaced;
mod restarted;
mod rolled;
#[cfg(feature = "failpoints")]
mod slow_disk;
mod stale_reads;
mod stopped;
mod turns;
mod without_quorum;

#[path = "../support/client.rs"]
mod client;
#[allow(dead_code, reason = "half of it is for tests/api")]
#[path = "../support/frames.rs"]
mod frames;
#[allow(dead_code, reason = "to follow all without holes is for tests/faults")]
#[path = "../support/history.rs"]
mod history;
#[path = "../support/peers.rs"]
mod peers;
#[path = "../support/settings.rs"]
mod settings;
#[allow(dead_code, reason = "who has which right is for tests/auth")]
#[path = "../support/users.rs"]
mod users;
#[path = "../support/volume.rs"]
mod volume;
#[allow(dead_code, reason = "conversations are for tests/golden")]
#[path = "../golden/wire.rs"]
mod wire;
