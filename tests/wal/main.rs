//! The Raft log from outside: model, damage, faults, threads.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "readers beside the log run on threads of the test's own")]

mod damage;
mod faults;
mod model;
mod owner;
mod regressions;
mod rig;
mod threads;
