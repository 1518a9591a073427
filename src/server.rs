//! The only place that wires all of it.

use std::time::Instant;

use crate::ops::Config;
use crate::ops::data_dir::DataDirError;
use crate::ops::logging::Style;
use crate::ops::signals::Signal;

/// What a server is started with.
#[derive(Debug)]
pub struct Start {
    /// Checked.
    pub config: Config,
    /// Who reads the log.
    pub style: Style,
    /// When the process began.
    pub begun: Instant,
}

/// Why it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It was asked to.
    Signal(Signal),
    /// The member was removed from its cluster.
    Removed,
}

/// Why it didn't start, or couldn't go on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The data directory can't be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

/// Runs the member until it is asked to stop.
///
/// # Errors
/// [`ServerError`].
pub fn run(start: Start) -> Result<Stopped, ServerError> {
    crate::ops::data_dir::DataDir::open(&crate::env::RealDisk, &start.config)?;
    Ok(Stopped::Removed)
}
