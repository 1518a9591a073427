//! Tokens: what a client shows instead of its password.
//!
//! ```text
//! simple  24 letters "." entry   told to all members by the log, forgotten after a time without use
//! jwt     signed claims          known to whoever has the key, for keys gone with the next change of users or roles
//! ```

mod es512;
mod issued;
mod jwt;
mod keys;
mod proof;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Secret;
use crate::types::RequestError;

pub use issued::{IssuedTokens, new_token, token_hash};
pub use jwt::{Jwt, JwtError, JwtOptions};
pub use keys::JwtKeys;
pub use proof::Proof;

/// How callers prove who they are.
#[derive(Clone, Debug)]
pub enum Tokens {
    /// `--auth-token=simple`
    Simple {
        /// The tokens that were given out.
        issued: Arc<IssuedTokens>,
        /// How long one lives without being used.
        ttl: Duration,
    },
    /// `--auth-token=jwt,…`
    Jwt(Arc<Jwt>),
}

impl Tokens {
    /// Begins the time of a token that was given out here: it runs also if nobody ever shows it.
    pub fn begin(&self, token: &str, now: Instant) {
        if let Self::Simple { issued, ttl } = self {
            // To be shown is what begins it.
            issued.user(token, now, *ttl);
        }
    }

    /// A signed token for a user whose password was right; `None` if tokens go through the log instead.
    ///
    /// # Errors
    /// `VerifyOnlyKey` if there is no key to sign with.
    pub fn sign(&self, name: &str, revision: u64, wall: SystemTime) -> Result<Option<Secret>, RequestError> {
        match self {
            Self::Simple { .. } => Ok(None),
            Self::Jwt(jwt) => jwt.sign(name, revision, wall).map(Some),
        }
    }
}
