//! What `packaging/` hands out, as far as processes can show it: the commands of kubeadm's static pod and of the compose file
//! run as they are written, and the unit and its settings are read by what reads them.
//!
//! ```text
//! packaging/kubeadm/etcd.yaml ─► flags, probes ─► a process with certificates like kubeadm's ─► probes, etcdctl
//! packaging/compose.yaml ─► commands, health checks ─► three processes that find each other
//! packaging/systemd ─► systemd-analyze; rusd's own reader of variables
//! ```
//! `cargo xtask image` and `cargo xtask package` try the same with the image, the real kubeadm, and a Debian that has booted.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the tests start real processes, which live in the real world"
)]

mod compose;
mod kubeadm;
#[path = "../support/peers.rs"]
mod peers;
#[path = "../support/ports.rs"]
mod ports;
mod process;
mod unit;
#[path = "../support/yaml.rs"]
mod yaml;
