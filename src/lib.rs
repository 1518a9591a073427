//! rusd: a coordination server that takes etcd's place, as a library.
//!
//! ```text
//! write: api ─► admit ─► propose ─► consensus ─► wal ─► apply ─► storage ─► publish ─► watch ─► reply
//! read:  api ─► admit ─► propose::read_barrier ─► storage::publish ─► index ─► value ─► encode
//! ```
//!
//! | to embed | begin with |
//! |---|---|
//! | a versioned key-value store | [`storage::Store`], [`storage::StoreReader`] |
//! | a durable log with group commit | [`wal::Wal`] |
//! | the deterministic machine over the store | [`apply::Machine`] |
//! | Raft over log and machine | [`consensus::Node`], [`propose::Proposer`] |
//! | watchers | [`watch::WatchHub`] |
//! | etcd's client port | [`api::serve`], [`api::Services`] |
//! | the whole server | [`server::run`] |
//!
//! The rooms stand in the order of their dependence: [`types`] and [`env`] know nobody, `server` knows
//! all. `INTEGRATION_GUIDE.md` has programs for each row of the table, which run as this crate's doctests;
//! `ARCHITECTURE.md` has the way through the source, `STORAGE_DESIGN.md` what lies on the disk and why.
//!
//! Everything that touches the world takes an [`env::Env`], so that a test can stop time, step threads by
//! hand, cut the power and make any operation of the disk fail.

#![forbid(unsafe_code)]

pub mod admit;
pub mod api;
pub mod apply;
pub mod auth;
pub mod cli;
pub mod consensus;
pub mod discovery;
pub mod env;
pub mod failpoint;
pub mod import;
pub mod lease;
pub mod operator;
pub mod ops;
pub mod propose;
pub mod server;
pub mod storage;
pub mod tls;
pub mod types;
pub mod wal;
pub mod watch;

/// The guide's programs, run by `cargo test --doc`.
#[cfg(doctest)]
#[doc = include_str!("../INTEGRATION_GUIDE.md")]
struct IntegrationGuide;
