//! The oracles: pure, each tried in its own tests with histories that are wrong.

pub mod leases;
pub mod linear;
pub mod lives;
pub mod members;
pub mod watches;
