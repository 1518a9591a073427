//! What the members' digests can be compared by: an entry that several of them know, and who counts.
//!
//! ```text
//! all that answered ─► without those that were found to differ ─► the newest common entry ─► judged (`consensus::judge`)
//! one's own standing: entry by entry, the newest first, until one says right or wrong
//! ```

use std::collections::BTreeSet;

use crate::apply::{AlarmKind, AlarmView};
use crate::consensus::peer::Digests;
use crate::consensus::{Node, Verdict, Witness, judge, stands};
use crate::types::{MemberId, RaftIndex};

/// What this member would answer.
pub(super) fn own_digests(node: &Node) -> Digests {
    let status = node.status();
    // In this order, as whatever is known later of the state's lineage holds for the digests, too.
    let (digests, kept) = (status.landmarks().digests(), status.landmarks().kept());
    Digests { digests, kept, lineage: status.lineage(), differs: status.diverged().is_some() }
}

/// Those who bear witness, in their order, and those who don't, as they were found to differ. The one who asks is the last
/// of `known`, and always among the first.
pub(super) fn witnesses(known: Vec<(MemberId, Digests)>, alarms: &AlarmView) -> [Vec<(MemberId, Digests)>; 2] {
    let raised = alarms.load().list(Some(AlarmKind::Diverged));
    let alarmed: BTreeSet<MemberId> = raised.into_iter().map(|(member, _)| member).collect();
    without(known, &alarmed)
}

fn without(known: Vec<(MemberId, Digests)>, alarmed: &BTreeSet<MemberId>) -> [Vec<(MemberId, Digests)>; 2] {
    let me = known.last().map(|(me, _)| *me);
    let (found, trusted) =
        known.into_iter().partition(|(id, digests)| Some(*id) != me && (digests.differs || alarmed.contains(id)));
    [trusted, found]
}

/// What can be compared.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Common {
    pub(super) index: RaftIndex,
    pub(super) members: Vec<MemberId>,
    /// At the same places.
    pub(super) witnesses: Vec<Witness>,
}

fn at(known: &[(MemberId, Digests)], index: RaftIndex) -> Common {
    let at = |(id, digests): &(MemberId, Digests)| {
        let (_, digest) = digests.digests.iter().find(|(other, _)| *other == index)?;
        // A state that has taken another one's place since then isn't the one that has this digest.
        (digests.lineage.since() <= index).then_some(())?;
        Some((*id, Witness { digest: *digest, lineage: digests.lineage.clone() }))
    };
    let (members, witnesses) = known.iter().filter_map(at).unzip();
    Common { index, members, witnesses }
}

/// The newest entry after which more than half of those that answered, and at least two, have a digest.
pub(super) fn common(known: &[(MemberId, Digests)]) -> Option<Common> {
    let (_, own) = known.last()?;
    own.digests.iter().rev().find_map(|(index, _)| {
        let common = at(known, *index);
        let is_enough = common.members.len() >= 2 && common.members.len() * 2 > known.len();
        is_enough.then_some(common)
    })
}

/// What a member finds of its own state.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is what more than half of all members hold, these among them, and nobody can say otherwise.
    Right(Vec<MemberId>),
    /// It is proven wrong by these.
    Wrong(Vec<MemberId>),
    /// Nobody can say now.
    Unknown,
}

/// How the last of `known` stands, of `members` that there are.
pub(super) fn standing(known: &[(MemberId, Digests)], members: usize) -> Standing {
    let Some((me, own)) = known.last() else { return Standing::Unknown };
    // Of entries that are newer than the one that says something definite.
    let (mut was_same, mut was_other) = (false, false);
    for (index, _) in own.digests.iter().rev() {
        let Common { members: ids, witnesses, .. } = at(known, *index);
        let Some(place) = ids.iter().position(|id| id == me).filter(|_| ids.len() >= 2) else { continue };
        match (stands(&witnesses, place, members), judge(&witnesses, members)) {
            // It differs by now.
            (Some(true), _) if was_other => return Standing::Unknown,
            (Some(true), _) => {
                let alike = (0..ids.len()).filter(|other| witnesses[*other].digest == witnesses[place].digest);
                return Standing::Right(alike.map(|place| ids[place]).collect());
            }
            // What differed was written anew since then.
            (Some(false), _) if was_same => return Standing::Unknown,
            (Some(false), Verdict::Minority(places)) => {
                let right = (0..ids.len()).filter(|place| !places.contains(place));
                return Standing::Wrong(right.map(|place| ids[place]).collect());
            }
            (_, Verdict::Equal) => was_same = true,
            _ => was_other = true,
        }
    }
    Standing::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::Lineage;

    const A: MemberId = MemberId(1);
    const B: MemberId = MemberId(2);
    const C: MemberId = MemberId(3);

    fn born(member: MemberId) -> Lineage {
        Lineage::default().copied(member, member.get(), RaftIndex(0))
    }

    fn holds(member: MemberId, list: &[(u64, u64)], lineage: Lineage) -> (MemberId, Digests) {
        let digests = list.iter().map(|(index, digest)| (RaftIndex(*index), *digest)).collect();
        (member, Digests { digests, lineage, ..Digests::default() })
    }

    #[test]
    fn the_newest_common_landmark_is_compared() {
        let copy = || Lineage::default().copied(MemberId(7), 7, RaftIndex(200));
        let mut known = [
            holds(B, &[(256, 1), (512, 2)], copy()),
            holds(C, &[(256, 1)], copy()),
            holds(A, &[(256, 1), (512, 3), (768, 4)], copy()),
        ];
        let found = common(&known).expect("512 is known to two of three");
        assert_eq!((found.index, found.members), (RaftIndex(512), vec![B, A]));
        assert_eq!(found.witnesses.iter().map(|witness| witness.digest).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(common(&known[2..]), None, "alone there is nothing to compare");
        // Its digests are of a state that it has no more.
        known[0].1.lineage = Lineage::default().copied(B, 2, RaftIndex(513));
        assert_eq!(common(&known).map(|common| common.index), Some(RaftIndex(256)));
    }

    /// Cause: a member that was proven wrong, and isn't healed, still bore witness. Symptom: with a third one down, a new
    /// leader found two that differ and nobody who is right, and the CORRUPT alarm stopped all.
    #[test]
    fn whoever_was_found_to_differ_is_no_witness() {
        let known = || vec![holds(A, &[(256, 9)], born(A)), holds(B, &[(256, 1)], born(B))];
        let ids = |known: &[(MemberId, Digests)]| known.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        let [trusted, found] = without(known(), &BTreeSet::from([A]));
        assert_eq!((ids(&trusted), ids(&found)), (vec![B], vec![A]));
        assert_eq!(common(&trusted), None, "so there is nothing to judge");
        let mut says_so = known();
        says_so[0].1.differs = true;
        assert_eq!(ids(&without(says_so, &BTreeSet::new())[0]), [B], "though the alarm was cleared by hand");
        assert_eq!(ids(&without(known(), &BTreeSet::from([B]))[0]), [A, B], "whoever asks asks for itself");
        assert_eq!(judge(&common(&known()).expect("two").witnesses, 3), Verdict::Undecided, "which it was");
    }

    /// Cause: a member took its leader's word for it. Symptom: a leader of a build that judges by plain majority had a
    /// sound member take a copy of what is rotten.
    #[test]
    fn a_member_judges_for_itself() {
        let rotten = holds(A, &[(512, 9)], born(A));
        let copy = holds(B, &[(512, 9)], born(A).copied(B, 7, RaftIndex(300)));
        let sound = holds(C, &[(512, 1)], born(C));
        assert_eq!(standing(&[rotten.clone(), copy.clone(), sound], 3), Standing::Unknown, "one state and its copy");
        let other = holds(B, &[(512, 1)], born(B));
        let known = [holds(C, &[(512, 1)], born(C)), other, rotten.clone()];
        assert_eq!(standing(&known, 3), Standing::Wrong(vec![C, B]));
        assert_eq!(standing(&[known[0].clone(), rotten], 3), Standing::Unknown, "one against one");
        let healed = holds(A, &[(512, 1)], born(C).copied(A, 7, RaftIndex(400)));
        assert_eq!(standing(&[known[0].clone(), healed.clone()], 3), Standing::Unknown, "and what it was copied from");
        assert_eq!(standing(&[known[1].clone(), healed.clone()], 3), Standing::Right(vec![B, A]));
        assert_eq!(standing(&[known[0].clone(), known[1].clone(), healed], 3), Standing::Right(vec![C, B, A]));
        assert_eq!(standing(&known[2..], 1), Standing::Unknown, "alone there is nobody to ask");
    }

    /// The newest entry that says something counts, unless a newer one speaks against it.
    #[test]
    fn what_is_newer_may_take_back_what_was_known() {
        let others = |list: &[(u64, u64)]| [holds(B, list, born(B)), holds(C, &[(256, 1)], born(C))];
        let of = |list: &[(u64, u64)], own: &[(u64, u64)]| {
            let [b, c] = others(list);
            standing(&[b, c, holds(A, own, born(C).copied(A, 7, RaftIndex(100)))], 3)
        };
        let right = Standing::Right(vec![B, C, A]);
        assert_eq!(of(&[(256, 1)], &[(256, 1), (300, 5)]), right, "nobody else knows of 300");
        assert_eq!(of(&[(256, 1), (300, 6)], &[(256, 1), (300, 5)]), Standing::Unknown, "it differs since");
        assert_eq!(of(&[(256, 1), (300, 6)], &[(256, 2), (300, 5)]), Standing::Wrong(vec![B, C]));
        let of_c = |own: &[(u64, u64)]| {
            let c = holds(C, &[(256, 1), (300, 5)], born(C));
            standing(&[others(&[(256, 1)])[0].clone(), c, holds(A, own, born(C).copied(A, 7, RaftIndex(100)))], 3)
        };
        assert_eq!(of_c(&[(256, 2), (300, 5)]), Standing::Unknown, "what differed was written anew");
    }
}
