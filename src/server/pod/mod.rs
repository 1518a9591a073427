//! `rusd pod …`: a member that is a pod of a StatefulSet, whose image has no shell (`docs/adr/0035-pods.md`).
//!
//! ```text
//! start ─┬► data is there ──────────────────────────────────────────────► the server ─┬► a signal
//!        └► no data ─► others asked ─┬► all without data ─► agreed ─► new ─┘           └► removed ─► set aside ─► wait
//!                                    └► a cluster ─► own old row removed ─► added as a learner ─┘
//! shrink ─► none is missing, and those beyond the last ordinal removed   backup ─► a file, old ones gone
//! users  ─► root and its password, authentication on
//! ```
//! Nothing here asks Kubernetes: all of it follows from a name, a number of replicas and what members say.

mod agreement;
mod backup;
mod join;
mod names;
mod patience;
mod rolling;
mod room;
mod shrink;
mod start;
mod users;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub(super) use backup::{Shelf, backup};
pub(super) use shrink::{Shrinking, shrink, shrink_without};
pub use start::removed;
pub(super) use start::start;
pub(super) use users::users;

use crate::operator::AskError;
use crate::ops::data_dir::DataDirError;

/// Between two tries.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two lines of the log about the same.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Why a pod can't do its work.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// Flags that don't go together with a pod.
    #[error("{0}")]
    Flags(String),
    /// The disk.
    #[error("can't {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// What is in the data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The members' answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// It took longer than it may.
    #[error("not done after {after:?}: {last}. It may be tried again; what was done stays done")]
    Late {
        /// How long it may take.
        after: Duration,
        /// What was in the way.
        last: String,
    },
}

fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> PodError {
    let path = path.to_owned();
    move |source| PodError::Io { action, path, source }
}
