//! Who is where: the peer URLs of all members, as the newest membership has them.

use std::collections::BTreeMap;

use parking_lot::RwLock;

use crate::types::MemberId;

/// The address book. Written at each change of the membership, read at each connection that is made.
#[derive(Debug, Default)]
pub struct Book {
    urls: RwLock<BTreeMap<MemberId, Vec<String>>>,
}

impl Book {
    /// Notes where a member is.
    pub fn set(&self, member: MemberId, urls: Vec<String>) {
        self.urls.write().insert(member, urls);
    }

    /// Whether it is a member as far as this one knows.
    pub(super) fn knows(&self, member: MemberId) -> bool {
        self.urls.read().contains_key(&member)
    }

    /// Where a member is; empty if nobody knows.
    pub fn urls(&self, member: MemberId) -> Vec<String> {
        self.urls.read().get(&member).cloned().unwrap_or_default()
    }
}
