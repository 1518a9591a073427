//! The lines of the log that say who led when, in the words of etcd that tools look for.
//!
//! ```text
//! what Raft shows ─► see(leader, term) ─► next: elected, changed, lost, or nothing new ─► a line at info
//! ```
//! A leader that is hard to reach may come and go in its term with each heartbeat: its loss is said at once the first time,
//! then once a minute at most, and a loss that was passed over is said once it has lasted as long as that.

use std::time::Duration;

use tokio::time::Instant;

use crate::types::{MemberId, Term};

/// Between two lines about the loss of one leader in one term.
const LOST_EVERY: Duration = Duration::from_secs(60);

/// What was said last.
#[derive(Debug)]
pub(super) struct LeaderLines {
    member: MemberId,
    /// The leader that was named last, and the term that it was elected for.
    named: Option<(MemberId, Term)>,
    /// Whether it was said to be there.
    is_there: bool,
    /// When it was said to be lost, in that term.
    lost: Option<Instant>,
}

/// A line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Elected(MemberId),
    Changed(MemberId, MemberId),
    Lost(MemberId),
}

impl LeaderLines {
    /// Nothing was said yet at this member.
    pub(super) fn new(member: MemberId) -> Self {
        Self { member, named: None, is_there: false, lost: None }
    }

    /// Says what is new. Called again and again, at least once a heartbeat.
    pub(super) fn see(&mut self, leader: Option<MemberId>, term: Term, now: Instant) {
        let member = self.member;
        match self.next(leader, term, now) {
            None => {}
            Some(Line::Elected(leader)) => tracing::info!(
                "local-member-id" = %member, "leader-id" = %leader, term = term.get(),
                "raft.node: {member} elected leader {leader} at term {term}"
            ),
            Some(Line::Changed(old, leader)) => tracing::info!(
                "local-member-id" = %member, "leader-id" = %leader, "old-leader-id" = %old, term = term.get(),
                "raft.node: {member} changed leader from {old} to {leader} at term {term}"
            ),
            Some(Line::Lost(old)) => tracing::info!(
                "local-member-id" = %member, "old-leader-id" = %old, term = term.get(),
                "raft.node: {member} lost leader {old} at term {term}"
            ),
        }
    }

    fn next(&mut self, leader: Option<MemberId>, term: Term, now: Instant) -> Option<Line> {
        let Some(leader) = leader else {
            let (old, _) = self.named.filter(|_| self.is_there)?;
            if self.lost.is_some_and(|said| now.saturating_duration_since(said) < LOST_EVERY) {
                return None;
            }
            (self.is_there, self.lost) = (false, Some(now));
            return Some(Line::Lost(old));
        };
        let old = self.named.replace((leader, term));
        let was_there = std::mem::replace(&mut self.is_there, true);
        if old == Some((leader, term)) {
            return (!was_there).then_some(Line::Elected(leader));
        }
        self.lost = None;
        Some(match old {
            Some((old, _)) if was_there && old != leader => Line::Changed(old, leader),
            _ => Line::Elected(leader),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MemberId = MemberId(1);
    const B: MemberId = MemberId(2);

    #[test]
    fn each_change_is_said_once() {
        let now = Instant::now();
        let mut lines = LeaderLines::new(A);
        let mut next = |leader, term| lines.next(leader, Term(term), now);
        assert_eq!(next(None, 0), None);
        assert_eq!(next(Some(A), 1), Some(Line::Elected(A)));
        assert_eq!(next(Some(A), 1), None);
        assert_eq!(next(Some(B), 2), Some(Line::Changed(A, B)));
        assert_eq!(next(None, 2), Some(Line::Lost(B)));
        assert_eq!(next(None, 3), None);
        assert_eq!(next(Some(A), 4), Some(Line::Elected(A)));
        assert_eq!(next(Some(A), 5), Some(Line::Elected(A)), "elected again");
        assert_eq!(next(None, 5), Some(Line::Lost(A)), "each term has its own");
    }

    /// Cause: a leader that is slow to answer is taken for gone and for there by turns, in one term. Symptom, were each of
    /// them a line: some thousand an hour.
    #[test]
    fn a_leader_that_comes_and_goes_fills_no_log() {
        let begun = Instant::now();
        let mut lines = LeaderLines::new(A);
        let said = |lines: &mut LeaderLines, leader, ms| lines.next(leader, Term(1), begun + Duration::from_millis(ms));
        let mut count = 0;
        for ms in (0..60_000).step_by(100) {
            let leader = (ms % 200 == 0).then_some(B);
            count += u32::from(said(&mut lines, leader, ms).is_some());
        }
        assert_eq!(count, 3, "there, lost, there again");
        assert_eq!(said(&mut lines, None, 60_099), None);
        assert_eq!(said(&mut lines, None, 60_100), Some(Line::Lost(B)), "a loss that lasts is said in the end");
        assert_eq!(said(&mut lines, Some(B), 60_200), Some(Line::Elected(B)));
    }
}
