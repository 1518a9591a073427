//! Why something of etcd's can't be taken over.

use std::io;
use std::path::PathBuf;

use crate::storage::snapshot::SnapshotError;
use crate::storage::snapshot::bbolt::BboltError;
use crate::types::StorageError;

/// Why something of etcd's can't be taken over; each says where.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The file that holds the keys.
    #[error("{}: {source}", path.display())]
    Database {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        source: BboltError,
    },
    /// A pair in it.
    #[error("{}: the bucket {bucket:?} holds {what}", path.display())]
    Pair {
        /// The file.
        path: PathBuf,
        /// Where in it.
        bucket: &'static str,
        /// What is wrong.
        what: String,
    },
    /// The log.
    #[error("{}: byte {offset}: {what}", path.display())]
    Log {
        /// The log's file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// The system.
    #[error("can't {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// What comes of it can't be stored.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The file that is made of it can't be written.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// It can be read, and must not be used.
    #[error("{0}")]
    Refused(String),
}

impl ImportError {
    /// For `map_err` at a call of the disk.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// What a walk over a file's pairs may end with, before the file's name is put to it.
#[derive(Debug)]
pub(super) enum Stop {
    File(BboltError),
    Other(ImportError),
}

impl From<BboltError> for Stop {
    fn from(error: BboltError) -> Self {
        Self::File(error)
    }
}

impl From<ImportError> for Stop {
    fn from(error: ImportError) -> Self {
        Self::Other(error)
    }
}

impl Stop {
    pub(super) fn at(self, path: impl Into<PathBuf>) -> ImportError {
        match self {
            Self::File(source) => ImportError::Database { path: path.into(), source },
            Self::Other(error) => error,
        }
    }
}
