//! Who may call what, on a real etcd 3.7.1 and on rusd.
//!
//! ```text
//! descriptors ─► every method × every kind of caller ─► as its need says, and as etcd answers (matrix; over gRPC and over JSON,
//!   on one port and on two, at a follower, by tokens and by certificates: sites)
//! holes that etcd had, by their numbers (holes) · messages that come late (late)
//! signed tokens (jwt) · tokens that were shown before (remembered) · a session of etcdctl (session)
//! three members, and what lies on the disk: `tests/cluster`
//! ```

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the test starts real processes, which live in the real world"
)]

mod callers;
mod holes;
mod json;
mod jwt;
mod late;
mod matrix;
mod needs;
mod remembered;
mod session;
mod sites;
mod watches;

#[expect(dead_code, reason = "tests of TLS revoke, and sign what they make themselves")]
#[path = "../tls/authority.rs"]
mod authority;
#[path = "../support/peers.rs"]
mod peers;
#[expect(dead_code, reason = "others restart theirs")]
#[path = "../support/server.rs"]
mod server;
#[expect(dead_code, reason = "others ask for the status")]
#[path = "../support/users.rs"]
mod users;
#[expect(dead_code, reason = "the conversations find methods by name")]
#[path = "../golden/wire.rs"]
mod wire;

/// A file of `tests/keys`.
fn key(name: &str) -> String {
    format!("{}/tests/keys/{name}", env!("CARGO_MANIFEST_DIR"))
}
