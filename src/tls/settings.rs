//! What one side of the server is told about TLS: where its files are and whom it trusts.

use std::path::PathBuf;

use super::suites::{Suites, Version};

/// A certificate's file and its key's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The certificate, with those between it and the authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// TLS for clients, or for members.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What a listener shows, and a connection that has no other.
    pub pair: Option<Pair>,
    /// What a connection shows instead.
    pub client_pair: Option<Pair>,
    /// The authorities. With it, a listener demands a certificate from each client.
    pub trusted_ca: Option<PathBuf>,
    /// Revoked certificates, as PEM or DER.
    pub crl: Option<PathBuf>,
    /// Common names that the other side may have; empty is any.
    pub allowed_cn: Vec<String>,
    /// Host names and addresses of which its certificate must hold one; empty is any.
    pub allowed_hostname: Vec<String>,
    /// Whether the address that a client calls from must be one of its certificate's.
    pub check_address: bool,
    /// Whether connections take any certificate: members whose certificates come from no authority.
    pub trust_anyone: bool,
    /// Whether connections say that they speak HTTP/2 alone: servers written in Go speak HTTP/1 to whoever doesn't.
    pub http2: bool,
    /// Oldest version.
    pub version_min: Version,
    /// Newest version.
    pub version_max: Option<Version>,
    /// Cipher suites of TLS 1.2.
    pub suites: Suites,
}
