//! What an operator sees: configuration, the data directory, logs, the banner, metrics.
//!
//! ```text
//! cli ─► Config ─► logging ─► data_dir ─► identity ─► server::run ─► banner
//!                                                        └─► metrics (scraped by api)
//! ```
//!
//! Nothing here knows of Raft, of storage or of gRPC: `server.rs` joins them.

pub mod banner;
pub mod command_line;
pub mod config;
pub mod data_dir;
pub mod doctor;
pub mod identity;
pub mod join;
pub mod logging;
pub mod metrics;
pub mod notify;
pub mod restart;
pub mod signals;
pub mod startup;
pub mod traces;

pub use config::Config;
