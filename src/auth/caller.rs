//! `Caller`: on whose behalf something is done.

use std::sync::Arc;

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Caller {
    /// Nobody that is known.
    #[default]
    Nobody,
    /// A user.
    User {
        /// Its name.
        name: Arc<str>,
        /// The revision of users and roles at which it was let in.
        revision: u64,
    },
    /// This cluster itself: automatic compaction, alarms, tokens.
    Member,
}

impl Caller {
    /// The user's name, if it is one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::User { name, .. } => Some(name),
            Self::Nobody | Self::Member => None,
        }
    }
}
