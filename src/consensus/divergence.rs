//! Do all members hold the same? Their digests at equal entries say so, all the time.
//!
//! ```text
//! apply, every DIGEST_EVERY entries: publish ─► Landmarks (the digest after that entry)
//! leader, every second ─► each member's digests ─► equal at the newest common entry?
//!                           └► no: the majority is right ─► the member is told, and stops serving
//!                                  which keys? ─► the state of the next landmark is kept ─► compared part by part
//! ```
//! A landmark is an entry at which every member publishes, however its entries come in, so that there is always
//! a common one. A majority says who is right only if its states aren't copies of one (`lineage`). Where none does, the
//! CORRUPT alarm stops all, as in etcd (issue 13839).

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;

use super::lineage::{self, Lineage};
use super::status::NodeStatus;
use crate::auth::AuthView;
use crate::storage::{Snapshot, StoreReader};
use crate::types::{KeyRange, RaftIndex, Term};

/// Every member publishes at entries whose index is a multiple of this.
pub(super) const DIGEST_EVERY: u64 = 256;
/// What digests are of, between members: another number for each change of [`whole`]. Builds before this one say none,
/// and their digests are of keys and users alone.
pub(super) const DIGESTS_OF: u32 = 2;
/// Landmarks whose digests are kept; a member that is further behind is compared later.
const KEPT: usize = 64;
/// Parts that a prefix is cut into: the key itself, and a part for each next byte.
pub const PARTS: usize = 257;
/// The longest prefix that is looked into.
const PREFIX_BYTES_MAX: usize = 4_096;

/// The digests after the entries that all members stop at.
#[derive(Debug, Default)]
pub struct Landmarks {
    kept: Mutex<Kept>,
    /// The published state, which counts as one: without writes there is no other, and all members come to it.
    current: OnceLock<(StoreReader, AuthView)>,
}

#[derive(Debug, Default)]
struct Kept {
    digests: VecDeque<(RaftIndex, u64)>,
    /// Whether the state after the next one is to be kept. Only for a search: it holds memory.
    wanted: bool,
    state: Option<(RaftIndex, Arc<Snapshot>)>,
}

impl Landmarks {
    /// From where the published state is known; the first one counts.
    pub(super) fn watch(&self, reader: StoreReader, users: AuthView) {
        let _ = self.current.set((reader, users));
    }

    /// Notes the state after the entry `index`; `users` is the hash of users and roles, 0 if there never were any.
    pub(super) fn note(&self, index: RaftIndex, snapshot: Snapshot, users: u64) {
        let mut kept = self.kept.lock();
        if kept.digests.len() == KEPT {
            kept.digests.pop_front();
        }
        kept.digests.push_back((index, whole(&snapshot) ^ users));
        if std::mem::take(&mut kept.wanted) {
            kept.state = Some((index, Arc::new(snapshot)));
        }
    }

    /// As if the state after the entry had this digest.
    #[cfg(test)]
    pub(crate) fn note_digest(&self, index: RaftIndex, digest: u64) {
        self.kept.lock().digests.push_back((index, digest));
    }

    /// The state was replaced: what was before it is of no use.
    pub(super) fn clear(&self) {
        *self.kept.lock() = Kept::default();
    }

    /// Has the state after the next landmark kept, or lets go of one that was.
    pub fn keep_next(&self, keep: bool) {
        let mut kept = self.kept.lock();
        if !keep {
            (kept.wanted, kept.state) = (false, None);
        } else if kept.state.is_none() {
            kept.wanted = true;
        }
    }

    /// The digests, the oldest first.
    pub fn digests(&self) -> Vec<(RaftIndex, u64)> {
        let mut digests: Vec<_> = self.kept.lock().digests.iter().copied().collect();
        if let Some((index, digest)) = self.current.get().and_then(|(reader, users)| published(reader, users))
            && digests.last().is_none_or(|(last, _)| *last < index)
        {
            digests.push((index, digest));
        }
        digests
    }

    /// After which entry the state is kept.
    pub fn kept(&self) -> Option<RaftIndex> {
        self.kept.lock().state.as_ref().map(|(index, _)| *index)
    }

    /// The digests of the parts of a prefix after the entry `index`: the key itself, then all keys that go on
    /// with byte 0, with byte 1, …; `None` if that state isn't kept, or the prefix is too long.
    pub fn parts(&self, index: RaftIndex, prefix: &[u8]) -> Option<Vec<u64>> {
        if prefix.len() > PREFIX_BYTES_MAX {
            return None;
        }
        let snapshot = self.kept.lock().state.as_ref().filter(|(kept, _)| *kept == index)?.1.clone();
        let mut digests = Vec::with_capacity(PARTS);
        digests.push(snapshot.digest_of(&KeyRange::single(Bytes::copy_from_slice(prefix))));
        digests.extend((0..=u8::MAX).map(|byte| snapshot.digest_of(&KeyRange::prefix(longer(prefix, byte)))));
        Some(digests)
    }
}

/// A prefix and one byte more.
pub fn longer(prefix: &[u8], byte: u8) -> Bytes {
    let mut longer = BytesMut::with_capacity(prefix.len() + 1);
    longer.put_slice(prefix);
    longer.put_u8(byte);
    longer.freeze()
}

/// What one member holds after the entry at which all are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// The state's digest.
    pub digest: u64,
    /// Where the state comes from.
    pub lineage: Lineage,
}

/// What a leader tells a member whose state differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// After which entry it differs.
    pub index: RaftIndex,
    /// What the member holds after it.
    pub digest: u64,
    /// The term in which that was judged.
    pub term: Term,
}

impl Finding {
    /// Whether it is of the state that the member of this status holds, and of no leader before the present one: one that
    /// comes late must not count for a state that has taken the place of the one that was judged.
    pub fn is_of(&self, status: &NodeStatus) -> bool {
        // In this order: what is known later of the lineage holds for the digests, too.
        let digests = status.landmarks().digests();
        let is_of_this_state = status.lineage().since() <= self.index;
        let is_known = self.term >= status.term() && digests.contains(&(self.index, self.digest));
        self.index > RaftIndex(0) && is_of_this_state && is_known
    }
}

/// What the members' digests at one entry say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All the same.
    Equal,
    /// These (places in the list) differ from what the majority holds, and are wrong.
    Minority(Vec<usize>),
    /// The majority's states may be copies of one that rotted before these (places in the list) came to differ.
    Copies(Vec<usize>),
    /// No digest is held by a majority of the members.
    Undecided,
}

/// Judges what was held after one entry; each is one member's, of `members` that there are.
pub fn judge(witnesses: &[Witness], members: usize) -> Verdict {
    let votes = |digest: u64| witnesses.iter().filter(|other| other.digest == digest).count();
    let Some(most) = witnesses.iter().map(|witness| witness.digest).max_by_key(|digest| votes(*digest)) else {
        return Verdict::Equal;
    };
    if votes(most) == witnesses.len() {
        return Verdict::Equal;
    }
    if votes(most) * 2 <= members {
        return Verdict::Undecided;
    }
    let alike: Vec<&Lineage> =
        witnesses.iter().filter(|witness| witness.digest == most).map(|witness| &witness.lineage).collect();
    let differ: Vec<usize> = (0..witnesses.len()).filter(|place| witnesses[*place].digest != most).collect();
    if differ.iter().all(|place| lineage::proves(&alike, &witnesses[*place].lineage)) {
        Verdict::Minority(differ)
    } else {
        Verdict::Copies(differ)
    }
}

/// Whether what the member at a place holds is right, as more than half of the members hold it, and whoever differs is
/// proven wrong; `None` if nobody can say.
pub fn stands(witnesses: &[Witness], place: usize, members: usize) -> Option<bool> {
    match judge(witnesses, members) {
        Verdict::Equal if witnesses.len() == members => Some(true),
        Verdict::Equal if witnesses.len() * 2 > members => {
            let all: Vec<&Lineage> = witnesses.iter().map(|witness| &witness.lineage).collect();
            lineage::stand(&all).then_some(true)
        }
        Verdict::Equal => None,
        Verdict::Minority(places) => Some(!places.contains(&place)),
        Verdict::Copies(_) | Verdict::Undecided => None,
    }
}

/// Whether all members, who hold the same after the entry `index`, should note that (`Node::agree`).
pub fn should_agree(index: RaftIndex, witnesses: &[Witness]) -> bool {
    let all: Vec<&Lineage> = witnesses.iter().map(|witness| &witness.lineage).collect();
    lineage::should_agree(&all, index)
}

/// The published state's entry and digest, if users and keys of the same entry can be had now.
fn published(reader: &StoreReader, users: &AuthView) -> Option<(RaftIndex, u64)> {
    let before = users.load();
    let snapshot = reader.snapshot();
    // Users are shown before the keys of their entry. The same ones before and after, and keys not of before: both
    // are of the snapshot's entry.
    let index = snapshot.position().index;
    let same = Arc::ptr_eq(&before, &users.load()) && before.since() <= index;
    same.then(|| (index, whole(&snapshot) ^ before.digest()))
}

/// All of a state that every member must have alike: keys, leases, and what is compacted.
fn whole(snapshot: &Snapshot) -> u64 {
    snapshot.digest() ^ snapshot.digest_beside_keys()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::AuthState;
    use crate::storage::{AppliedPosition, Store};
    use crate::types::{LeaseId, MemberId, Term};

    fn state(keys: &[(&'static [u8], &'static [u8])], index: u64) -> Snapshot {
        let mut store = Store::in_memory();
        for (key, value) in keys {
            let mut txn = store.begin();
            txn.put(Bytes::from_static(key), Bytes::from_static(value), LeaseId(0));
            txn.commit();
        }
        store.publish(AppliedPosition { index: RaftIndex(index), term: Term(1) }).expect("in memory");
        store.reader().snapshot()
    }

    #[test]
    fn users_and_roles_count() {
        let (one, other) = (Landmarks::default(), Landmarks::default());
        one.note(RaftIndex(256), state(&[(b"a", b"1")], 256), 7);
        other.note(RaftIndex(256), state(&[(b"a", b"1")], 256), 0);
        assert_ne!(one.digests(), other.digests());
    }

    fn born(at: usize) -> Lineage {
        Lineage::at(None, MemberId(at as u64), at as u64, RaftIndex(0))
    }

    /// Members that made their states of the log, and have these digests.
    fn witnesses(digests: &[u64]) -> Vec<Witness> {
        digests.iter().enumerate().map(|(at, digest)| Witness { digest: *digest, lineage: born(at) }).collect()
    }

    /// Cause: the leader's state rots, a follower gets it by a snapshot, and the third, which is sound, differs from
    /// both. Symptom: it was told that it is wrong, and healed. Now nobody is, whoever looks.
    #[test]
    fn a_leader_and_its_copy_are_no_majority() {
        let mut three = witnesses(&[6, 6, 5]);
        three[1].lineage = born(0).copied(MemberId(1), 77, RaftIndex(500));
        assert_eq!(judge(&three, 3), Verdict::Copies(vec![2]));
        assert!((0..3).all(|place| stands(&three, place, 3).is_none()), "nobody is healed by that");
        // They all held the same since then: what differs now rotted later, and alone.
        three.iter_mut().for_each(|witness| witness.lineage.agree(RaftIndex(512), 4));
        assert_eq!(judge(&three, 3), Verdict::Minority(vec![2]));
        assert_eq!(stands(&three, 2, 3), Some(false));
    }

    #[test]
    fn the_majority_is_right_and_a_tie_is_undecided() {
        let judge = |digests: &[u64], members| judge(&witnesses(digests), members);
        assert_eq!(judge(&[5, 5, 5], 3), Verdict::Equal);
        assert_eq!(judge(&[5], 1), Verdict::Equal);
        assert_eq!(judge(&[5, 6, 5], 3), Verdict::Minority(vec![1]));
        assert_eq!(judge(&[6, 5, 5, 5, 7], 5), Verdict::Minority(vec![0, 4]));
        assert_eq!(judge(&[5, 6], 2), Verdict::Undecided);
        assert_eq!(judge(&[5, 6, 7], 3), Verdict::Undecided);
        assert_eq!(judge(&[5, 6, 5], 5), Verdict::Undecided, "two of five are no majority");
    }

    #[test]
    fn a_member_is_right_only_with_most_of_all_members() {
        let stands = |digests: &[u64], place, members| stands(&witnesses(digests), place, members);
        assert_eq!(stands(&[5, 5, 6], 0, 3), Some(true));
        assert_eq!(stands(&[5, 5, 6], 2, 3), Some(false));
        assert_eq!(stands(&[5, 5], 0, 3), Some(true), "one is down");
        assert_eq!(stands(&[5, 5], 0, 4), None, "two are down");
        assert_eq!(stands(&[5, 6, 7], 0, 3), None, "each holds something else");
        assert_eq!(stands(&[5, 6], 1, 2), None);
        assert_eq!(stands(&[], 0, 3), None);
    }

    /// Cause: a healed member and the leader that it is a copy of were more than half of three. Symptom: it served, though
    /// the third, which was away, may hold what is right.
    #[test]
    fn a_copy_needs_another_witness_than_its_source() {
        let mut two = witnesses(&[5, 5]);
        two[1].lineage = born(0).copied(MemberId(1), 77, RaftIndex(500));
        assert_eq!(stands(&two, 1, 3), None);
        let mut three = witnesses(&[5, 5, 5]);
        three[1].lineage = two[1].lineage.clone();
        assert_eq!(stands(&three, 1, 3), Some(true), "nobody holds anything else");
        assert_eq!(stands(&three, 1, 5), Some(true), "two that made it of the log");
    }

    /// Cause: a verdict said neither of which state nor of which term it was. Symptom: one that came late marked a member
    /// anew that had been healed meanwhile.
    #[test]
    fn a_finding_is_of_one_state_and_no_former_leader() {
        let status = NodeStatus::new(MemberId(1));
        status.set_term(Term(4));
        status.set_lineage(born(1));
        let rotten = state(&[(b"a", b"rotten")], 256);
        let digest = whole(&rotten);
        status.landmarks().note(RaftIndex(256), rotten, 0);
        let finding = |index, digest, term| Finding { index: RaftIndex(index), digest, term: Term(term) };
        assert!(finding(256, digest, 4).is_of(&status) && finding(256, digest, 5).is_of(&status));
        assert!(!finding(256, digest, 3).is_of(&status), "of a leader that is none any more");
        assert!(!finding(256, digest ^ 1, 4).is_of(&status), "of another state");
        assert!(!finding(512, digest, 4).is_of(&status), "of an entry that it doesn't know");
        status.set_lineage(born(1).copied(MemberId(1), 9, RaftIndex(257)));
        assert!(!finding(256, digest, 4).is_of(&status), "healed after that");
    }

    /// Cause: only keys and users were compared. Symptom: a member that lacked a lease, or had compacted elsewhere, was
    /// found by nobody.
    #[test]
    fn leases_and_compactions_count() {
        let mut store = Store::in_memory();
        let digest = |store: &mut Store, index| {
            store.publish(AppliedPosition { index: RaftIndex(index), term: Term(1) }).expect("published");
            whole(&store.reader().snapshot())
        };
        let empty = digest(&mut store, 1);
        store.put_meta(crate::storage::Table::Lease, "lease".into(), Some("ttl".into()));
        let leased = digest(&mut store, 2);
        store.put_meta(crate::storage::Table::Meta, "lineage".into(), Some("this member's own".into()));
        assert_eq!(digest(&mut store, 3), leased);
        for key in ["a", "b"] {
            let mut txn = store.begin();
            txn.put(key.into(), "".into(), LeaseId::NONE);
            txn.commit();
        }
        let written = digest(&mut store, 4);
        store.compact(2).expect("there is a revision before");
        let compacted = digest(&mut store, 5);
        assert!(empty != leased && written != compacted && leased != written);
    }

    #[test]
    fn without_writes_the_published_state_is_compared() {
        let mut store = Store::in_memory();
        store.publish(AppliedPosition { index: RaftIndex(700), term: Term(1) }).expect("in memory");
        let landmarks = Landmarks::default();
        let users = AuthView::default();
        landmarks.watch(store.reader(), users.clone());
        assert_eq!(landmarks.digests(), [(RaftIndex(700), whole(&store.reader().snapshot()))]);
        users.store(AuthState::default().published(RaftIndex(701)));
        assert_eq!(landmarks.digests(), [], "users of a later entry aren't those of this one");
        landmarks.note(RaftIndex(768), store.reader().snapshot(), 0);
        assert_eq!(landmarks.digests().len(), 1, "each entry once, in their order");
    }

    #[test]
    fn a_key_that_differs_is_found_by_its_prefixes() {
        let (one, other) = (Landmarks::default(), Landmarks::default());
        one.keep_next(true);
        other.keep_next(true);
        one.note(RaftIndex(1_024), state(&[(b"a", b"1"), (b"key", b"2"), (b"kez", b"3")], 1_024), 0);
        other.note(RaftIndex(1_024), state(&[(b"a", b"1"), (b"key", b"2"), (b"kez", b"X")], 1_024), 0);
        assert_ne!(one.digests(), other.digests());
        let differs = |prefix: &[u8]| {
            let parts = |landmarks: &Landmarks| landmarks.parts(RaftIndex(1_024), prefix).expect("kept");
            let (one, other) = (parts(&one), parts(&other));
            (0..PARTS).filter(|part| one[*part] != other[*part]).collect::<Vec<_>>()
        };
        assert_eq!(differs(b""), [1 + usize::from(b'k')]);
        assert_eq!(differs(b"ke"), [1 + usize::from(b'z')]);
        assert_eq!(differs(b"kez"), [0]);
        assert_eq!((one.parts(RaftIndex(7), b""), one.kept()), (None, Some(RaftIndex(1_024))));
        one.keep_next(false);
        assert_eq!(one.kept(), None);
    }

    #[test]
    fn only_a_few_are_kept() {
        let landmarks = Landmarks::default();
        for index in 1..=KEPT as u64 + 3 {
            landmarks.note(RaftIndex(index), state(&[(b"a", b"1")], index), 0);
        }
        let digests = landmarks.digests();
        assert_eq!((digests.len(), digests[0].0), (KEPT, RaftIndex(4)));
    }
}
