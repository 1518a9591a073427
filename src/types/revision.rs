//! `Revision`: where a change stands in the store's one history.

use std::fmt;

/// A change's place in history: the main revision of the transaction and the order inside it.
///
/// `main` starts at 1 for an empty store and grows by one for each transaction that changes
/// something; `sub` counts 0, 1, 2 … in execution order inside it and is never on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The transaction's revision, as clients see it.
    pub main: i64,
    /// The change's place inside that transaction.
    pub sub: i64,
}

impl Revision {
    /// A revision from its two parts.
    pub const fn new(main: i64, sub: i64) -> Self {
        Self { main, sub }
    }

    /// 16 bytes that sort as the revision does (both parts are never negative in a store).
    pub fn to_bytes(self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.main.to_be_bytes());
        out[8..].copy_from_slice(&self.sub.to_be_bytes());
        out
    }

    /// The inverse of [`Revision::to_bytes`]; `None` if the slice is not 16 bytes long.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 16] = bytes.try_into().ok()?;
        let (main, sub) = bytes.split_at(8);
        Some(Self { main: i64::from_be_bytes(main.try_into().ok()?), sub: i64::from_be_bytes(sub.try_into().ok()?) })
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.main, self.sub)
    }
}
