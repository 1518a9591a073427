//! The simulation's oracles and records: what a right cluster may answer. Free of the simulator, so that
//! they are tried by ordinary tests.
//!
//! ```text
//! members publish ─► ledger (what every revision is) ─► check::members, check::linear, check::watches, check::leases
//! clients ask     ─► history ────────────────────────────────┘
//! ```
//! The members, the network, the faults and the clients are the binary's (`src/world/`), which needs the
//! flags that `cargo xtask simulate` sets.

pub mod check;
pub mod history;
pub mod ledger;
pub mod random;
