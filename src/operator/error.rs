//! What a server answers instead of what was asked for.

use tonic::{Code, Status};

/// Why there is no answer, or another one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// It can't be reached, has no leader, or is late: later it may answer.
    #[error("no answer: {0}")]
    Unreachable(String),
    /// It says no.
    #[error("{0}")]
    Refused(String),
}

impl AskError {
    /// Whether the server said something like this.
    pub fn says(&self, text: &str) -> bool {
        matches!(self, Self::Refused(said) if said.contains(text))
    }
}

impl From<Status> for AskError {
    fn from(status: Status) -> Self {
        let mut said = status.message().to_owned();
        // The innermost reason is what can be acted on: "connection refused", not "transport error".
        let mut source = std::error::Error::source(&status);
        while let Some(error) = source {
            said = error.to_string();
            source = error.source();
        }
        match status.code() {
            Code::Unavailable if !said.starts_with("etcdserver: unhealthy") => Self::Unreachable(said),
            Code::DeadlineExceeded | Code::Cancelled => Self::Unreachable(said),
            _ => Self::Refused(said),
        }
    }
}
