//! Who was removed, remembered for ever: such an id never comes back, and such a member ends.
//!
//! ```text
//! membership entry ─► removed_between(before, after) ─► rows `removed/<id>` of the meta table ─► RemovedMembers
//! restart, snapshot ─► the rows again ─► RemovedMembers
//! ```

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::watch;

use crate::consensus::types::Membership;
use crate::types::MemberId;

/// How the keys of the rows begin; the id follows, big-endian.
const PREFIX: &[u8] = b"removed/";

/// The members of `before` that aren't in `after`.
pub(in crate::consensus) fn removed_between(before: &Membership, after: &Membership) -> Vec<MemberId> {
    before.nodes().filter(|(id, _)| after.get_node(id).is_none()).map(|(id, _)| MemberId(*id)).collect()
}

/// The key of the row that says that `id` was removed; its value says nothing more.
pub(in crate::consensus) fn removed_key(id: MemberId) -> Bytes {
    let mut key = BytesMut::with_capacity(PREFIX.len() + 8);
    key.put_slice(PREFIX);
    key.put_u64(id.get());
    key.freeze()
}

fn removed_of(key: &[u8]) -> Option<MemberId> {
    let id = key.strip_prefix(PREFIX)?.try_into().ok()?;
    Some(MemberId(u64::from_be_bytes(id)))
}

/// The ids that were removed, as far as this member knows.
#[derive(Debug, Default)]
pub struct RemovedMembers {
    ids: watch::Sender<BTreeSet<MemberId>>,
}

impl RemovedMembers {
    /// Whether `id` was removed.
    pub fn contains(&self, id: MemberId) -> bool {
        self.ids.borrow().contains(&id)
    }

    /// Notes removed members: as applied here, or as another member says of this one.
    pub fn note(&self, removed: impl IntoIterator<Item = MemberId>) {
        self.ids.send_if_modified(|ids| {
            let before = ids.len();
            ids.extend(removed);
            ids.len() > before
        });
    }

    /// Takes over what the meta table says.
    pub(in crate::consensus) fn note_rows<'a>(&self, keys: impl IntoIterator<Item = &'a Bytes>) {
        self.note(keys.into_iter().filter_map(|key| removed_of(key)));
    }

    /// Waits until `id` is removed.
    pub async fn until(&self, id: MemberId) {
        // The sender lives as long as this borrow.
        let _ = self.ids.subscribe().wait_for(|ids| ids.contains(&id)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::consensus::types::PeerNode;

    fn membership(voters: &[u64], learners: &[u64]) -> Membership {
        let nodes: BTreeMap<_, _> = voters.iter().chain(learners).map(|id| (*id, PeerNode::default())).collect();
        Membership::new(vec![voters.iter().copied().collect()], nodes).expect("well-formed")
    }

    #[test]
    fn whoever_is_missing_afterwards_was_removed() {
        let before = membership(&[1, 2], &[3]);
        assert_eq!(removed_between(&before, &membership(&[1, 3], &[])), [MemberId(2)]);
        assert_eq!(removed_between(&before, &membership(&[1], &[])), [MemberId(2), MemberId(3)]);
        assert_eq!(removed_between(&before, &membership(&[1, 2, 3], &[4])), []);
        assert_eq!(removed_between(&Membership::default(), &before), []);
    }

    #[tokio::test]
    async fn rows_are_read_as_they_were_written_and_others_are_left_alone() {
        let removed = RemovedMembers::default();
        let keys =
            [removed_key(MemberId(u64::MAX)), Bytes::from_static(b"removed/x"), Bytes::from_static(b"membership")];
        removed.note_rows(&keys);
        assert!(removed.contains(MemberId(u64::MAX)) && !removed.contains(MemberId(7)));
        let waits = removed.until(MemberId(7));
        removed.note([MemberId(7)]);
        waits.await;
    }
}
