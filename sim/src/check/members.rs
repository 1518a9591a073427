//! What members must agree on: one leader a term, one state at each applied index and revision, and none goes back.

use std::collections::BTreeMap;

/// What a member publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// The applied index.
    pub index: u64,
    /// The store's revision.
    pub revision: i64,
    /// The digest of all living keys.
    pub digest: u64,
    /// The digest of what lies beside them: leases, users, the compaction. It changes without a revision.
    pub beside: u64,
}

/// Everything that members have said so far.
#[derive(Debug, Default)]
pub struct Members {
    leaders: BTreeMap<u64, usize>,
    by_index: BTreeMap<u64, Published>,
    by_revision: BTreeMap<i64, u64>,
    last: BTreeMap<(usize, u64), Published>,
}

impl Members {
    /// A member published, in this of its lives.
    ///
    /// # Errors
    /// What contradicts itself or another member.
    pub fn published(&mut self, member: usize, boot: u64, now: Published) -> Result<(), String> {
        let last = self.last.entry((member, boot)).or_insert(now);
        if now.index < last.index || now.revision < last.revision {
            return Err(format!("member {member} went back from {last:?} to {now:?}"));
        }
        *last = now;
        let other = *self.by_index.entry(now.index).or_insert(now);
        if other != now {
            return Err(format!("members differ at entry {}: {other:?} and, member {member}, {now:?}", now.index));
        }
        let digest = *self.by_revision.entry(now.revision).or_insert(now.digest);
        if digest != now.digest {
            return Err(format!("members differ at revision {}: {digest:x} and {:x}", now.revision, now.digest));
        }
        Ok(())
    }

    /// A member leads in a term.
    ///
    /// # Errors
    /// Another led in it.
    pub fn leads(&mut self, member: usize, term: u64) -> Result<(), String> {
        let leader = *self.leaders.entry(term).or_insert(member);
        if leader == member { Ok(()) } else { Err(format!("members {leader} and {member} both lead in term {term}")) }
    }

    /// What a member published last in this of its lives.
    pub fn last(&self, member: usize, boot: u64) -> Option<Published> {
        self.last.get(&(member, boot)).copied()
    }

    /// Who led in the highest term.
    pub fn leader(&self) -> Option<usize> {
        self.leaders.last_key_value().map(|(_, leader)| *leader)
    }

    /// Terms that had a leader.
    pub fn terms(&self) -> usize {
        self.leaders.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Published = Published { index: 5, revision: 3, digest: 9, beside: 1 };

    #[test]
    fn members_that_agree_pass() {
        let mut members = Members::default();
        members.published(0, 1, FIRST).unwrap();
        members.published(1, 1, FIRST).unwrap();
        members.published(0, 1, Published { index: 6, ..FIRST }).unwrap();
        members.published(0, 2, FIRST).unwrap();
        members.leads(0, 4).unwrap();
        members.leads(0, 4).unwrap();
        members.leads(1, 5).unwrap();
        assert_eq!((members.terms(), members.leader()), (2, Some(1)));
    }

    #[test]
    fn a_member_that_goes_back_in_one_life_is_found() {
        let mut members = Members::default();
        members.published(0, 1, FIRST).unwrap();
        assert!(members.published(0, 1, Published { index: 6, revision: 2, digest: 1, ..FIRST }).is_err());
    }

    #[test]
    fn members_that_differ_are_found() {
        let mut members = Members::default();
        members.published(0, 1, FIRST).unwrap();
        assert!(members.published(1, 1, Published { digest: 8, ..FIRST }).is_err());
        assert!(members.published(1, 1, Published { beside: 2, ..FIRST }).is_err());
        assert!(members.published(1, 1, Published { index: 6, beside: 2, ..FIRST }).is_ok(), "a lease more");
        assert!(members.published(1, 1, Published { index: 7, digest: 8, ..FIRST }).is_err());
    }

    #[test]
    fn two_leaders_in_a_term_are_found() {
        let mut members = Members::default();
        members.leads(0, 4).unwrap();
        assert!(members.leads(2, 4).is_err());
    }
}
