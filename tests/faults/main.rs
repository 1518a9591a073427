//! A real rusd under faults: killed, without power, without room on the disk, with damaged files.
//!
//! ```text
//! Load (workers that write down what they ask and what is answered) ─► Ledger ─┐
//! Watcher (one watch, resumed after each fault) ─────────────────────► History ┴─► check: do they agree?
//!                     ▲ fault: SIGKILL, power cut, full disk, flipped bytes
//! ```
//! What has to hold is in `check.rs`. Sizes come from the environment, so that `cargo xtask` can run
//! the same for longer: `RUSD_FAULT_ROUNDS`, `RUSD_FAULT_SEED`, `RUSD_FAULT_BACKEND`.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "the test looks at the real disk from outside")]

mod check;
mod client;
mod damage;
mod disk_full;
mod disk_nearly_full;
#[cfg(feature = "failpoints")]
#[path = "../support/failpoint.rs"]
mod failpoint;
#[cfg(feature = "failpoints")]
mod failpoints;
mod history;
mod kill;
mod ledger;
mod load;
mod member;
#[path = "../support/ports.rs"]
mod ports;
mod power_cut;
mod process;
mod settings;
#[cfg(feature = "failpoints")]
mod slow;
mod stuck;
mod volume;
