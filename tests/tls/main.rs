//! TLS: handshakes in this process, then real servers with the real etcdctl.
//!
//! ```text
//! authority: certificates made here ─┬► handshake  Acceptor and Connector over a pipe: who is let in
//!                                    ├► entrance   stalled and slow clients against short patience
//!                                    ├► clients    a process: etcdctl, pages, rotation under load
//!                                    ├► gateway    a process: JSON, and whose certificate counts
//!                                    ├► rotation   all files change under calls, streams, members
//!                                    └► members    three processes: peer certificates, kill, join
//! ```

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the tests start real processes, which live in the real world"
)]

#[path = "../support/peers.rs"]
mod peers;
#[path = "../support/ports.rs"]
mod ports;

mod authority;
mod clients;
mod entrance;
mod gateway;
mod handshake;
mod members;
mod process;
mod rotation;
