//! The Raft log from outside: model, damage, faults, threads.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod damage;
mod faults;
mod model;
mod rig;
mod threads;
