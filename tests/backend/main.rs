//! The engines behind their door, and the values over them: one suite for all three.
//!
//! `conformance` says what an engine is; `values` what is built on it; `crash`, `damage`,
//! `full_disk`, `moving` and `recycle` what must hold when things go wrong; `bbolt` that etcd's tools take a snapshot.

mod bbolt;
mod common;
mod conformance;
mod crash;
mod damage;
mod full_disk;
mod moving;
#[path = "../support/peers.rs"]
mod peers;
mod recycle;
mod values;
