//! Where a member's state comes from, so that a copy isn't taken for a witness.
//!
//! ```text
//! A: made from the log ──────────────●───────────────●────────►   (A)
//! B: log …  a snapshot of A's after s1 ┴── the log ──┼────────►   (A until s1, B)
//! C: log …  a snapshot of A's after s2 ──────────────┴────────►   (A until s2, C)
//! ```
//! One state that rots takes with it what was copied from it afterwards, and nothing else: A and C alike say nothing
//! of what was before s2, but B and C alike say that the state was right from s1 on. What members were all found to
//! hold after an entry can't have rotted before it, so they note that, and are witnesses for each other from there on.
//!
//! It lies in the meta table, each change in the batch after the state that it is of; a snapshot has its sender's. Whoever
//! reads one in adds a stretch, also of an own one: what was between it and now is of another run. So that no crash
//! hides that, a row that is written in one step with the state says that it was read in ([`COPIED_KEY`]).

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::types::{MemberId, RaftIndex};

/// Where the lineage lies in the meta table. A member's own: no entry of the log writes it.
pub(super) const LINEAGE_KEY: &[u8] = b"lineage";

/// A row of the meta table that a state has from when it is read in from a snapshot until its lineage says so.
pub const COPIED_KEY: &[u8] = b"lineage-copied";

/// Stretches that are remembered: what was before them counts as shared by all.
const STRETCHES_MAX: usize = 16;
/// Agreements that are remembered.
const AGREED_MAX: usize = 4;
/// The encoding's version.
const VERSION: u8 = 1;

/// The stretches of one state's way, and what it was found to agree in with all others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// The oldest first, with rising beginnings; none if nothing is known. Before the first one nothing is known.
    stretches: Vec<Stretch>,
    /// After which entries all members held the same, and its digest; the newest last.
    agreed: Vec<(RaftIndex, u64)>,
}

/// A part of the log that was applied to the state at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    /// By whom.
    member: MemberId,
    /// Different for each state that this member began with.
    id: u64,
    /// After which entry it begins.
    from: RaftIndex,
}

impl Lineage {
    /// What becomes of it at `member`, who holds the state after the entry `from`: the same if it is its own, or one
    /// that it has copied and calls `id`. Without a lineage a state was made here of the log alone, if it is empty; else
    /// nothing is known of what was before.
    pub(super) fn at(found: Option<Self>, member: MemberId, id: u64, from: RaftIndex) -> Self {
        let lineage = found.unwrap_or_default();
        let is_own = lineage.stretches.last().is_some_and(|last| last.member == member);
        if is_own { lineage } else { lineage.copied(member, id, from) }
    }

    /// The lineage of a copy of the state after the entry `from`, whosever it was.
    pub fn copied(self, member: MemberId, id: u64, from: RaftIndex) -> Self {
        let mut lineage = self;
        lineage.stretches.push(Stretch { member, id, from });
        let surplus = lineage.stretches.len().saturating_sub(STRETCHES_MAX);
        lineage.stretches.drain(..surplus);
        lineage
    }

    /// Notes that all members had this digest after the entry.
    pub(super) fn agree(&mut self, index: RaftIndex, digest: u64) {
        self.agreed.push((index, digest));
        let surplus = self.agreed.len().saturating_sub(AGREED_MAX);
        self.agreed.drain(..surplus);
    }

    /// Since which entry the state is this member's own.
    pub fn since(&self) -> RaftIndex {
        self.stretches.last().map_or(RaftIndex(u64::MAX), |last| last.from)
    }

    /// The member whose state this is a copy of, if it is one.
    pub fn copied_from(&self) -> Option<MemberId> {
        self.stretches.iter().rev().nth(1).map(|stretch| stretch.member)
    }

    /// Up to which entry two states may be one: where one rotted before that, so did the other.
    fn shared_at_most(&self, other: &Self) -> RaftIndex {
        let nothing_known = RaftIndex(u64::MAX);
        let begin = |lineage: &Self| lineage.stretches.first().map_or(nothing_known, |first| first.from);
        self.shared(other).unwrap_or_else(|| begin(self).max(begin(other)))
    }

    /// Up to which entry two states surely are the same.
    fn same_at_least(&self, other: &Self) -> RaftIndex {
        let agreed = self.agreed.iter().filter(|agreed| other.agreed.contains(agreed)).map(|(index, _)| *index).max();
        self.shared(other).unwrap_or_default().max(agreed.unwrap_or_default())
    }

    /// Where the last stretch that both have ends for one of them.
    fn shared(&self, other: &Self) -> Option<RaftIndex> {
        let end =
            |lineage: &Self, at: usize| lineage.stretches.get(at + 1).map_or(RaftIndex(u64::MAX), |next| next.from);
        let at = self.stretches.iter().rposition(|stretch| other.stretches.contains(stretch))?;
        let there = other.stretches.iter().position(|stretch| *stretch == self.stretches[at])?;
        Some(end(self, at).min(end(other, there)))
    }

    /// As a row, and between members.
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        out.put_u8(self.stretches.len() as u8);
        for Stretch { member, id, from } in &self.stretches {
            out.put_u64(member.get());
            out.put_u64(*id);
            out.put_u64(from.get());
        }
        out.put_u8(self.agreed.len() as u8);
        for (index, digest) in &self.agreed {
            out.put_u64(index.get());
            out.put_u64(*digest);
        }
        out.freeze()
    }

    /// `None` if that is no lineage; nothing is known then.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = bytes;
        if input.try_get_u8().ok()? != VERSION {
            return None;
        }
        let stretches = usize::from(input.try_get_u8().ok()?);
        if stretches == 0 || stretches > STRETCHES_MAX {
            return None;
        }
        let mut lineage = Self::default();
        for _ in 0..stretches {
            let (member, id) = (MemberId(input.try_get_u64().ok()?), input.try_get_u64().ok()?);
            lineage.stretches.push(Stretch { member, id, from: RaftIndex(input.try_get_u64().ok()?) });
        }
        let agreed = usize::from(input.try_get_u8().ok()?);
        if agreed > AGREED_MAX || !lineage.stretches.is_sorted_by_key(|stretch| stretch.from) {
            return None;
        }
        for _ in 0..agreed {
            lineage.agreed.push((RaftIndex(input.try_get_u64().ok()?), input.try_get_u64().ok()?));
        }
        input.is_empty().then_some(lineage)
    }
}

/// Whether those who hold the same must be right and `other`, who doesn't, wrong, if one state has rotted: only then
/// nothing that all of `alike` come from, and `other` doesn't, could have.
pub(super) fn proves(alike: &[&Lineage], other: &Lineage) -> bool {
    let pairs = alike.iter().enumerate().flat_map(|(at, one)| alike[at + 1..].iter().map(move |two| (one, two)));
    let Some(common) = pairs.map(|(one, two)| one.shared_at_most(two)).min() else { return false };
    alike.iter().any(|one| one.same_at_least(other) >= common)
}

/// Whether those who hold the same must be right, whatever the members hold that weren't asked, if one state has rotted:
/// since the last entry that all of `alike` may be one state up to, *all* members were found to hold the same.
pub(super) fn stand(alike: &[&Lineage]) -> bool {
    let pairs = alike.iter().enumerate().flat_map(|(at, one)| alike[at + 1..].iter().map(move |two| (one, two)));
    let Some(common) = pairs.map(|(one, two)| one.shared_at_most(two)).min() else { return false };
    let agreed = alike.iter().flat_map(|lineage| &lineage.agreed).map(|(index, _)| *index).max();
    agreed.unwrap_or_default() >= common
}

/// Whether those who all hold the same after the entry `index` should note that, for without it some of them couldn't
/// bear witness for each other later on.
pub(super) fn should_agree(all: &[&Lineage], index: RaftIndex) -> bool {
    let pairs = || all.iter().enumerate().flat_map(|(at, one)| all[at + 1..].iter().map(move |two| (one, two)));
    let Some(most) = pairs().map(|(one, two)| one.shared_at_most(two)).max() else { return false };
    most <= index && pairs().any(|(one, two)| one.same_at_least(two) < most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MemberId = MemberId(1);
    const B: MemberId = MemberId(2);
    const C: MemberId = MemberId(3);

    fn born(member: MemberId) -> Lineage {
        Lineage::at(None, member, 100 + member.get(), RaftIndex(0))
    }

    fn copy(of: &Lineage, member: MemberId, from: u64) -> Lineage {
        of.clone().copied(member, 1_000 * member.get() + from, RaftIndex(from))
    }

    fn agree(all: &mut [Lineage], index: u64) {
        all.iter_mut().for_each(|lineage| lineage.agree(RaftIndex(index), index * 7));
    }

    #[test]
    fn two_that_made_their_state_of_the_log_prove_a_third_wrong() {
        let (a, b, c) = (born(A), born(B), born(C));
        assert!(proves(&[&a, &b], &c) && proves(&[&c, &b], &a));
        assert!(!should_agree(&[&a, &b, &c], RaftIndex(1_000)), "nothing is to be noted");
        assert!(!proves(&[&a], &b), "one alone");
    }

    #[test]
    fn a_state_and_its_copy_are_one_witness() {
        let (a, c) = (born(A), born(C));
        let b = copy(&a, B, 500);
        assert!(!proves(&[&a, &b], &c), "A may have rotted before it was copied");
        assert!(proves(&[&a, &c], &b) && proves(&[&b, &c], &a));
        let again = copy(&b, A, 700);
        assert!(!proves(&[&again, &b], &c), "nor is the copy of a copy");
    }

    #[test]
    fn copies_of_one_state_are_witnesses_from_the_first_of_them_on() {
        let a = born(A);
        let (b, c) = (copy(&a, B, 500), copy(&a, C, 800));
        assert!(proves(&[&b, &c], &a), "what both have, A had, too");
        assert!(proves(&[&a, &b], &c), "a rot before entry 500 would be C's, too");
        assert!(!proves(&[&a, &c], &b), "A may have rotted between 500 and 800");
    }

    #[test]
    fn what_all_agreed_in_did_not_rot_before_that() {
        let a = born(A);
        let (b, c) = (copy(&a, B, 500), copy(&a, C, 800));
        let mut all = [a, b, c];
        assert!(!should_agree(&[&all[0], &all[1], &all[2]], RaftIndex(799)), "not before C had its copy");
        assert!(should_agree(&[&all[0], &all[1], &all[2]], RaftIndex(800)));
        agree(&mut all, 900);
        let [a, b, c] = &all;
        assert!(!should_agree(&[a, b, c], RaftIndex(1_000)), "once is enough");
        assert!(proves(&[a, c], b) && proves(&[a, b], c) && proves(&[b, c], a));
        // A is copied again after that.
        let later = copy(a, B, 1_200);
        assert!(!proves(&[a, &later], c) && should_agree(&[a, &later, c], RaftIndex(1_300)));
        // What they agreed in was another state.
        let mut other = born(C);
        other.agree(RaftIndex(900), 1);
        assert!(!proves(&[a, &copy(&born(A), B, 500)], &other));
    }

    #[test]
    fn of_what_is_not_known_nothing_follows() {
        let old = Lineage::at(None, A, 1, RaftIndex(400));
        let (b, c) = (born(B), Lineage::at(None, C, 3, RaftIndex(300)));
        assert!(!proves(&[&old, &c], &b), "both may have copied one state before they were asked");
        assert!(!proves(&[&old, &Lineage::default()], &b) && !proves(&[&b, &old], &Lineage::default()));
        assert!(!should_agree(&[&old, &b, &Lineage::default()], RaftIndex(u64::MAX - 1)), "it couldn't note it");
        let mut all = [old, b, c];
        assert!(should_agree(&[&all[0], &all[1], &all[2]], RaftIndex(500)));
        agree(&mut all, 500);
        assert!(proves(&[&all[0], &all[2]], &all[1]));
        // More copies of copies than are remembered: what is forgotten counts as shared.
        let mut chain = born(A);
        for at in 1..=40 {
            chain = copy(&chain, if at % 2 == 0 { A } else { B }, 10 * at);
        }
        assert_eq!(chain.stretches.len(), STRETCHES_MAX);
        assert!(!proves(&[&chain, &born(B)], &born(C)));
    }

    #[test]
    fn a_copy_is_ones_own_from_then_on() {
        let a = born(A);
        let b = copy(&a, B, 500);
        assert_eq!((b.since(), b.copied_from(), a.copied_from()), (RaftIndex(500), Some(A), None));
        assert_eq!(Lineage::at(Some(b.clone()), B, 9, RaftIndex(900)), b, "a start of its own state changes nothing");
    }

    /// Cause: a member that was rebuilt from an own snapshot went on with the stretch that it had. Symptom: it counted as
    /// surely the same, up to where it was copied, as a copy that was made of what it held after that snapshot.
    #[test]
    fn a_state_that_was_read_in_is_another_one_from_there() {
        let (a, c) = (born(A), born(C));
        let b = copy(&a, B, 500);
        assert_eq!(b.same_at_least(&a), RaftIndex(500));
        let rebuilt = copy(&a, A, 300);
        assert_eq!(rebuilt.since(), RaftIndex(300));
        assert_eq!((b.same_at_least(&rebuilt), rebuilt.same_at_least(&b)), (RaftIndex(300), RaftIndex(300)));
        // Two copies alike, and what A holds since 300 differs: it is A's first run that may have rotted.
        let d = copy(&a, C, 400);
        assert!(proves(&[&b, &d], &a) && !proves(&[&b, &d], &rebuilt));
        assert!(proves(&[&rebuilt, &c], &b), "of others it is no copy for that");
    }

    /// Cause: all that answered held the same, and more than half had answered. Symptom: a healed member counted itself
    /// and the leader that it was copied from, and served, though the third, which was away, may be the only sound one.
    #[test]
    fn a_state_and_its_copy_do_not_stand_alone() {
        let (a, b) = (born(A), born(B));
        assert!(stand(&[&a, &b]) && !stand(&[&a]) && !stand(&[]));
        let healed = copy(&a, C, 700);
        assert!(!stand(&[&a, &healed]), "A may have rotted before it was copied");
        assert!(stand(&[&b, &healed]) && stand(&[&a, &b, &healed]));
        let mut all = [a, healed];
        agree(&mut all, 600);
        assert!(!stand(&[&all[0], &all[1]]), "or after that");
        agree(&mut all, 700);
        assert!(stand(&[&all[0], &all[1]]));
        assert!(!stand(&[&all[0], &Lineage::default()]), "of what isn't known nothing follows");
    }

    #[test]
    fn it_comes_back_as_it_went_and_nothing_else_is_read() {
        let mut lineage = copy(&born(A), B, 500);
        (600..610).for_each(|index| lineage.agree(RaftIndex(index), index));
        assert_eq!(lineage.agreed.len(), AGREED_MAX);
        let bytes = lineage.encode();
        assert_eq!(Lineage::decode(&bytes), Some(lineage));
        for len in 0..bytes.len() {
            assert_eq!(Lineage::decode(&bytes[..len]), None);
        }
        assert_eq!(Lineage::decode(&[&bytes[..], b"x"].concat()), None);
        assert_eq!(Lineage::decode(&[VERSION, 0, 0]), None);
        assert_eq!(Lineage::decode(&[VERSION, 255]), None);
    }
}
