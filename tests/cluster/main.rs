//! Clusters of real processes on loopback.
//!
//! ```text
//! cluster: free ports, directories, children ─► membership   who is in it, and changes of that under writes
//! ```

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the tests start real processes, which live in the real world"
)]

#[path = "../support/peers.rs"]
mod peers;

mod cluster;
mod fresh_tokens;
#[path = "../support/ports.rs"]
mod ports;
mod secrets;
mod users_everywhere;

mod membership;
#[path = "../support/users.rs"]
mod users;
