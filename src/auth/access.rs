//! `Access`: what one caller may do with keys.
//!
//! ```text
//! AuthState::access(Caller) ─► Access       for a short look
//!          ::kept_access    ─► KeptAccess ─► the same later, as long as the state is the same
//! ```

use std::sync::Arc;

use super::{Spans, User};
use crate::types::{KeyRange, RequestError};

/// A user with what its roles allow.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) user: User,
    pub(super) is_root: bool,
    pub(super) read: Spans,
    pub(super) write: Spans,
    /// What the two took before they were merged, in bytes: to make them takes as long.
    pub(super) compiled_bytes: usize,
}

/// What one caller may do now.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// `None`: everything.
    account: Option<&'a Account>,
}

impl<'a> Access<'a> {
    /// What `account` may do; everything without one.
    pub(super) fn of(account: Option<&'a Account>) -> Self {
        Self { account }
    }

    /// Up to where it may read all keys from `key` on; `Some(None)` is no end, `None` that it may not read `key`.
    pub fn read_stretch(&self, key: &[u8]) -> Option<Option<&'a [u8]>> {
        self.account.map_or(Some(None), |account| account.read.stretch(key))
    }

    /// The same for writing.
    pub fn write_stretch(&self, key: &[u8]) -> Option<Option<&'a [u8]>> {
        self.account.map_or(Some(None), |account| account.write.stretch(key))
    }

    /// Whether it may do everything, so that single keys need not be looked at.
    pub fn is_full(&self) -> bool {
        self.account.is_none()
    }

    /// Whether it may read all of `range`.
    ///
    /// # Errors
    /// `PermissionDenied`.
    pub fn read(&self, range: &KeyRange) -> Result<(), RequestError> {
        allowed(self.account.is_none_or(|account| account.read.contains(range)))
    }

    /// Whether it may write all of `range`.
    ///
    /// # Errors
    /// `PermissionDenied`.
    pub fn write(&self, range: &KeyRange) -> Result<(), RequestError> {
        allowed(self.account.is_none_or(|account| account.write.contains(range)))
    }

    /// Whether it may read one key.
    ///
    /// # Errors
    /// `PermissionDenied`.
    pub fn read_key(&self, key: &[u8]) -> Result<(), RequestError> {
        allowed(self.account.is_none_or(|account| account.read.contains_key(key)))
    }

    /// Whether it may write one key.
    ///
    /// # Errors
    /// `PermissionDenied`.
    pub fn write_key(&self, key: &[u8]) -> Result<(), RequestError> {
        allowed(self.account.is_none_or(|account| account.write.contains_key(key)))
    }
}

fn allowed(is_allowed: bool) -> Result<(), RequestError> {
    if is_allowed { Ok(()) } else { Err(RequestError::PermissionDenied) }
}

/// [`Access`] as of one state, which it outlives.
#[derive(Clone, Debug)]
pub(super) struct KeptAccess {
    account: Option<Arc<Account>>,
}

impl KeptAccess {
    /// What `account` may do; everything without one.
    pub(super) fn of(account: Option<Arc<Account>>) -> Self {
        Self { account }
    }

    pub(super) fn access(&self) -> Access<'_> {
        Access::of(self.account.as_deref())
    }
}
