//! rusd as a process, where what counts is the process: the figures it shows and the memory it takes.
//!
//! ```text
//! support/server: etcd, rusd ─► metrics    the same calls on both, then GET /metrics
//!                          ├──► own_metrics  rusd's own, under the work that moves them
//!                          └──► overload   far too much, then kill -9: refused, bounded, nothing lost
//! traces: the spans of requests on both, as a collector gets them
//! flags: how kubeadm, Bitnami, Debian and k3s start etcd
//! connections: as many as it takes, and all say nothing · limits: those of the flags, each reached once
//! manager: rusd under a service manager, from "ready" to the signal that ends it
//! ```

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the tests start real processes, which live in the real world"
)]

#[expect(dead_code, reason = "tests of TLS revoke, and sign what they make themselves")]
#[path = "../tls/authority.rs"]
mod authority;
#[expect(dead_code, reason = "others send more kinds of frames")]
#[path = "../support/frames.rs"]
mod frames;
#[path = "../support/peers.rs"]
mod peers;
#[path = "../support/server.rs"]
mod server;

mod connections;
mod flags;
mod limits;
mod manager;
mod metrics;
mod overload;
mod own_metrics;
mod status;
mod traces;
mod unread;
