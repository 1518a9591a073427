//! What a running etcd answers instead of what was asked for.

use tonic::{Code, Status};

/// Why a source gave no answer, or another one.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// It can't be reached, or has no leader: later it may be.
    #[error("the source doesn't answer: {0}")]
    Unreachable(String),
    /// It says no, now.
    #[error("the source refuses: {0}")]
    Refused(String),
    /// It says no, and will: this user may not, or it doesn't know such a call.
    #[error("the source refuses: {0}")]
    Denied(String),
    /// The history that was asked for is gone there.
    #[error("the source's history before revision {0} was compacted")]
    Compacted(i64),
    /// It answers what can't be.
    #[error("the source answers what can't be: {0}")]
    Odd(String),
}

impl RemoteError {
    pub(super) fn unreachable(what: &str) -> Self {
        Self::Unreachable(what.to_owned())
    }

    pub(super) fn odd(what: impl Into<String>) -> Self {
        Self::Odd(what.into())
    }

    pub(super) fn says(&self, text: &str) -> bool {
        matches!(self, Self::Refused(said) | Self::Denied(said) if said.contains(text))
    }

    /// Of a watch that the source ended.
    pub(super) fn canceled(reason: String) -> Self {
        if reason.contains("permission denied") { Self::Denied(reason) } else { Self::Refused(reason) }
    }

    /// Whether it may answer otherwise later.
    pub fn is_passing(&self) -> bool {
        !matches!(self, Self::Denied(_))
    }
}

impl From<Status> for RemoteError {
    fn from(status: Status) -> Self {
        let mut said = status.message().to_owned();
        let mut source = std::error::Error::source(&status);
        while let Some(error) = source {
            said = error.to_string();
            source = error.source();
        }
        match status.code() {
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => Self::Unreachable(said),
            Code::PermissionDenied | Code::Unimplemented => Self::Denied(said),
            // All that is wrong with a name and a password.
            Code::InvalidArgument if said.contains("user name is empty") || said.contains("invalid user ID") => {
                Self::Denied(said)
            }
            _ => Self::Refused(said),
        }
    }
}
