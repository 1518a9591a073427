//! Why no data directory was made; each says what to do.

use std::path::PathBuf;

use crate::apply::MachineError;
use crate::import::ImportError;
use crate::ops::data_dir::DataDirError;
use crate::types::StorageError;
use crate::wal::WalError;

/// Why no data directory was made.
#[derive(Debug, thiserror::Error)]
pub enum ImportFailure {
    /// What should be taken over can't be.
    #[error(transparent)]
    Source(#[from] ImportError),
    /// The new directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Its log.
    #[error(transparent)]
    Log(#[from] WalError),
    /// Its store.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What the log says can't be done.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// There is something already.
    #[error("data-dir {:?} not empty or could not be read: {why}", path.display())]
    Used {
        /// The directory.
        path: PathBuf,
        /// What is in it.
        why: String,
    },
    /// Options that contradict each other, or the source.
    #[error("{0}")]
    Refused(String),
}
