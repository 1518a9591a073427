//! Why certificates can't be used, told with the file.

use std::path::{Path, PathBuf};

/// What is wrong with a file, or with what files make together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// The system didn't give it.
    #[error("can't read {}: {why}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        why: String,
    },
    /// It was given, and isn't what it should be.
    #[error("{}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A certificate and a key of another one.
    #[error(
        "tls: private key does not match public key: the key in {} is not that of the certificate in {}",
        key.display(), cert.display()
    )]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's.
        key: PathBuf,
    },
    /// A certificate that is over, where one is in use that isn't.
    #[error("{}: the certificate expired at {when}", path.display())]
    Expired {
        /// The certificate's file.
        path: PathBuf,
        /// When, in UTC.
        when: String,
    },
    /// A certificate of one's own can't be made.
    #[error("no certificate can be made: {0}")]
    Make(String),
    /// Settings that the library refuses.
    #[error("TLS settings: {0}")]
    Settings(String),
}

impl TlsError {
    pub(super) fn file(path: &Path, why: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), why: why.into() }
    }
}
