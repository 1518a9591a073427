//! A StatefulSet's pods as processes: `rusd pod …` with the names that a headless service would give.
//!
//! ```text
//! set: one address of loopback a pod, /etc/hosts in a mount namespace ─► story: begin, lose a volume, grow, shrink, roll
//! ```

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the tests start real processes, which live in the real world"
)]

mod chart;
mod set;
mod story;
#[path = "../support/yaml.rs"]
mod yaml;
