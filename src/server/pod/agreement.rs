//! Whether the pods of a new StatefulSet may make a cluster: only if each has seen all of them without data.
//!
//! ```text
//! somebody is a member ──────────────────────────────────────────────────► Join
//! all were seen waiting ─► Agreed (written down) ─► all have said so, too ─► Begin
//!                                               └─► or Patience is over ──► Begin
//! ```
//! The lowest ordinal says by which nonce the cluster is told from an earlier one of the same names; those who agree have
//! to mean the same one. Pure: what was heard goes in, what to do comes out. Why it is safe is in `docs/adr/0035`.

use std::collections::{BTreeMap, BTreeSet};

/// The ordinal whose nonce counts.
pub(super) const LOWEST: u32 = 0;

/// What was heard of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// No answer, or one that means nothing.
    Nothing,
    /// It has no data, and waits as this one does.
    Waiting {
        /// It has seen all of them.
        agreed: bool,
        /// The lowest ordinal's own, or the one that it has agreed to.
        nonce: Option<u64>,
    },
    /// It is a member of a cluster.
    Member,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Go on asking; of these nothing was heard yet that helps.
    Ask(BTreeSet<u32>),
    /// There is a cluster, of which these are members.
    Join(BTreeSet<u32>),
    /// Make one.
    Begin,
}

/// What this pod knows of the others.
#[derive(Clone, Debug)]
pub(super) struct Agreement {
    own: u32,
    replicas: u32,
    may_begin: bool,
    seen: BTreeSet<u32>,
    done: BTreeSet<u32>,
    agreed: bool,
    nonce: Option<u64>,
    /// What those have agreed to who have.
    agreed_to: BTreeMap<u32, Option<u64>>,
}

impl Agreement {
    /// `nonce` is the lowest ordinal's own; the others take that one's. Without `may_begin` nothing is agreed to.
    pub(super) fn new(own: u32, replicas: u32, nonce: Option<u64>, may_begin: bool) -> Self {
        let (seen, done) = (BTreeSet::new(), BTreeSet::new());
        Self { own, replicas, may_begin, seen, done, agreed: false, nonce, agreed_to: BTreeMap::new() }
    }

    /// By what the cluster's ids differ from those of an earlier one; once this pod has agreed, that doesn't change.
    pub(super) fn nonce(&self) -> Option<u64> {
        self.nonce
    }

    /// Whether all pods were seen without data. To be written down before it is said.
    pub(super) fn is_agreed(&self) -> bool {
        self.agreed
    }

    fn others(&self) -> impl Iterator<Item = u32> {
        (0..self.replicas).filter(|ordinal| *ordinal != self.own)
    }

    /// Takes in one round; `is_patient` until this pod has waited for long since it agreed.
    pub(super) fn take(&mut self, heard: &[(u32, Heard)], is_patient: bool) -> Next {
        let members: BTreeSet<u32> =
            heard.iter().filter(|(_, what)| *what == Heard::Member).map(|(at, _)| *at).collect();
        if !self.agreed && !members.is_empty() {
            return Next::Join(members);
        }
        for (ordinal, what) in heard {
            match what {
                Heard::Waiting { agreed, nonce } => {
                    self.seen.insert(*ordinal);
                    if *agreed {
                        self.done.insert(*ordinal);
                        self.agreed_to.insert(*ordinal, *nonce);
                    } else {
                        self.agreed_to.remove(ordinal);
                    }
                    if *ordinal == LOWEST && !self.agreed {
                        self.nonce = *nonce;
                    }
                }
                // It began because this one had agreed.
                Heard::Member => {
                    self.done.insert(*ordinal);
                }
                Heard::Nothing => {}
            }
        }
        let has_seen_all = self.others().all(|ordinal| self.seen.contains(&ordinal));
        let is_one = self.nonce.is_some() && self.agreed_to.values().all(|nonce| *nonce == self.nonce);
        self.agreed |= self.may_begin && has_seen_all && is_one;
        let missing = |known: &BTreeSet<u32>| self.others().filter(|ordinal| !known.contains(ordinal)).collect();
        match self.agreed {
            false => Next::Ask(missing(&self.seen)),
            true if !is_patient || self.others().all(|ordinal| self.done.contains(&ordinal)) => Next::Begin,
            true => Next::Ask(missing(&self.done)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: u64 = 7;
    const W: Heard = Heard::Waiting { agreed: false, nonce: Some(NONCE) };
    const A: Heard = Heard::Waiting { agreed: true, nonce: Some(NONCE) };

    fn set(ordinals: &[u32]) -> BTreeSet<u32> {
        ordinals.iter().copied().collect()
    }

    #[test]
    fn a_cluster_begins_once_all_have_seen_all() {
        let mut pod = Agreement::new(0, 3, Some(NONCE), true);
        assert_eq!(pod.take(&[(1, W), (2, Heard::Nothing)], true), Next::Ask(set(&[2])));
        // What was seen once counts: they needn't answer at the same time.
        assert_eq!(pod.take(&[(1, Heard::Nothing), (2, W)], true), Next::Ask(set(&[1, 2])));
        assert!(pod.is_agreed());
        // The first that has heard it of all begins, and is a member from then on.
        assert_eq!(pod.take(&[(1, Heard::Member), (2, W)], true), Next::Ask(set(&[2])));
        assert_eq!(pod.take(&[(1, Heard::Nothing), (2, A)], true), Next::Begin);
    }

    #[test]
    fn one_with_data_means_that_there_is_a_cluster() {
        let mut pod = Agreement::new(0, 3, Some(NONCE), true);
        assert_eq!(pod.take(&[(1, W), (2, Heard::Member)], true), Next::Join(set(&[2])));
        // Even if the last one was seen waiting in the same round, and even one that should be gone.
        assert_eq!(pod.take(&[(1, W), (2, W), (4, Heard::Member)], true), Next::Join(set(&[4])));
        assert!(!pod.is_agreed());
    }

    #[test]
    fn nothing_begins_while_one_is_silent() {
        let mut pod = Agreement::new(2, 3, None, true);
        for _ in 0..100 {
            assert_eq!(pod.take(&[(0, A), (1, Heard::Nothing)], false), Next::Ask(set(&[1])));
        }
    }

    #[test]
    fn who_has_agreed_waits_only_for_a_while() {
        let mut pod = Agreement::new(1, 3, None, true);
        assert_eq!(pod.take(&[(0, W), (2, W)], true), Next::Ask(set(&[0, 2])));
        assert_eq!(pod.take(&[(0, Heard::Nothing), (2, Heard::Nothing)], false), Next::Begin);
    }

    #[test]
    fn one_alone_begins_unless_there_is_a_larger_cluster() {
        assert_eq!(Agreement::new(0, 1, Some(NONCE), true).take(&[(1, Heard::Nothing)], true), Next::Begin);
        assert_eq!(
            Agreement::new(0, 1, Some(NONCE), true).take(&[(1, Heard::Nothing), (2, Heard::Member)], true),
            Next::Join(set(&[2]))
        );
    }

    /// Cause: a cluster's ids followed from names alone. Symptom: one that was begun anew on some of a release's claims took
    /// those for its members that had been the old one's, with their log.
    #[test]
    fn all_mean_the_lowest_ordinals_nonce() {
        let says = |agreed, nonce| Heard::Waiting { agreed, nonce };
        let mut pod = Agreement::new(1, 3, None, true);
        pod.take(&[(0, says(false, None)), (2, says(false, None))], true);
        assert!(!pod.is_agreed(), "it has said none yet");
        pod.take(&[(0, says(false, Some(5)))], true);
        assert_eq!((pod.is_agreed(), pod.nonce()), (true, Some(5)));
        pod.take(&[(0, says(false, Some(6)))], true);
        assert_eq!(pod.nonce(), Some(5), "what was agreed to stays");
        // The lowest one lost its volume in between, and another pod has agreed to what it had said before.
        let mut late = Agreement::new(2, 3, None, true);
        late.take(&[(0, says(false, Some(6))), (1, says(true, Some(5)))], true);
        assert!(!late.is_agreed());
        late.take(&[(0, says(true, Some(5)))], true);
        assert!(late.is_agreed());
        assert_eq!(Agreement::new(0, 1, Some(3), true).nonce(), Some(3));
    }

    /// Cause: one alone has nobody to see. Symptom: a set that was scaled down to a pod that had lost its volume was an empty
    /// cluster, while the survivor's claim was that of another ordinal.
    #[test]
    fn a_set_that_was_larger_begins_nothing() {
        let mut pod = Agreement::new(0, 1, Some(NONCE), false);
        assert_eq!(pod.take(&[(1, Heard::Nothing)], false), Next::Ask(set(&[])));
        assert_eq!(pod.take(&[(1, Heard::Member)], false), Next::Join(set(&[1])));
    }
}
