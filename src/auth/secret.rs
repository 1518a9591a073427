//! `Secret`: text that must not be seen: not in a log line, not in a dump, not in an error.

use std::fmt;

use zeroize::Zeroize;

use super::password::COSTS;

/// A password or a key. Its `Debug` says nothing about it, and it has no `Display`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes text in.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for whoever has to compare or hash it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A bcrypt hash as it is stored: no password, but enough to guess weak ones, so not to be seen either.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Takes a hash in bcrypt's own form.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The hash, to be stored or compared with.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The cost that it was made with, if that is one of bcrypt's.
    pub fn cost(&self) -> Option<u32> {
        let mut parts = self.0.split('$').skip(1);
        let _version = parts.next()?;
        parts.next()?.parse().ok().filter(|cost| COSTS.contains(cost))
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hash)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_seen() {
        let shown = format!("{:?} {:?}", Secret::new("hunter2"), PasswordHash::new("$2a$10$abc"));
        assert_eq!(shown, "(secret) (hash)");
        assert_eq!(PasswordHash::new("$2a$10$abc").cost(), Some(10));
        assert_eq!(PasswordHash::new("abc").cost(), None);
        assert_eq!(PasswordHash::new("$2a$32$abc").cost(), None, "there is none so high");
    }
}
