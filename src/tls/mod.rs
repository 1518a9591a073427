//! TLS: from files of certificates to streams that nobody else reads.
//!
//! ```text
//! Settings ─► files ─► material (PEM, CRL) ─┬► Acceptor   handshake ─► client's certificate ─► ClientIdentity
//!                                          └► Connector  handshake ─► server's certificate
//! telling: why a server that was dialled ended the stream after all
//! verify: authority ─► revoked? ─► allowed name?     (both ways; `san`: where the caller calls from)
//! auto:   a certificate of one's own, where none is given
//! reload: on a handshake, once a second at most: have the files changed?
//! ```
//! The only room that names rustls and what reads certificates. What a file holds is checked before
//! anything listens, and every refusal names the file. Files that break while the server runs leave
//! those in use that were there before. Nothing here puts a key into a message.

mod accept;
mod auto;
mod certificate;
mod connect;
mod error;
mod files;
mod material;
mod reload;
mod san;
mod settings;
mod suites;
mod telling;
mod verify;

pub use accept::{Acceptor, HandshakeError, ServerStream};
pub use auto::self_signed;
pub use certificate::ClientIdentity;
pub use connect::{ClientStream, Connector};
pub use error::TlsError;
pub use settings::{Pair, Settings};
pub use suites::{Suites, SuitesError, Version};
pub use telling::Telling;
