//! Since when there is this leader, and since when it is in touch: why a request came to nothing.
//!
//! ```text
//! leader A ── none ── leader B            a request from just before B: A is to blame
//! leader A ── not heard of ── leader A    a request from before that: the connection is
//! ```

use parking_lot::Mutex;
use std::time::Duration;
use tokio::time::Instant;

use crate::types::{MemberId, RequestError, Term};

/// What is known of the leader as this member sees it.
#[derive(Debug, Default)]
pub(super) struct Tenure(Mutex<Option<Known>>);

#[derive(Clone, Copy, Debug)]
struct Known {
    leader: MemberId,
    term: Term,
    elected: Instant,
    /// Since when it is heard of without a gap; on itself, reaches a quorum.
    in_touch: Instant,
    /// Whether it was there before: the first one that is seen took nobody's place.
    is_first: bool,
}

impl Tenure {
    /// A leader is there; `still` if it was just before, perhaps in another term.
    pub(super) fn seen(&self, leader: MemberId, term: Term, still: bool) {
        let is_known = || self.0.lock().is_some_and(|known| (known.leader, known.term) == (leader, term));
        if !(still && is_known()) {
            self.begins(leader, term);
        }
    }

    /// A leader is there, after another one or after none was, or is elected again.
    fn begins(&self, leader: MemberId, term: Term) {
        let now = Instant::now();
        let mut known = self.0.lock();
        *known = Some(match *known {
            Some(old) if (old.leader, old.term) == (leader, term) => Known { in_touch: now, ..old },
            old => Known { leader, term, elected: now, in_touch: now, is_first: old.is_none() },
        });
    }

    /// Why what began then wasn't done in time, by etcd's rules.
    pub(super) fn blame(&self, begun: Instant, election_timeout: Duration) -> RequestError {
        let Some(known) = *self.0.lock() else { return RequestError::Timeout };
        if !known.is_first && begun < known.elected && begun + 2 * election_timeout > known.elected {
            return RequestError::TimeoutLeaderFailure;
        }
        if known.in_touch > known.elected && begun < known.in_touch {
            return RequestError::TimeoutConnectionLost;
        }
        RequestError::Timeout
    }
}

#[cfg(test)]
mod tests {
    use super::super::status::NodeStatus;
    use super::*;

    const ELECTION: Duration = Duration::from_secs(1);

    async fn pass(ms: u64) -> Instant {
        let before = Instant::now();
        tokio::time::sleep(Duration::from_millis(ms)).await;
        before
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_to_blame_follows_from_when_a_request_began() {
        let tenure = Tenure::default();
        let early = pass(10).await;
        assert_eq!(tenure.blame(early, ELECTION), RequestError::Timeout, "there never was a leader");
        tenure.begins(MemberId(1), Term(1));
        assert_eq!(tenure.blame(early, ELECTION), RequestError::Timeout, "there was none that could fail");
        let long_before = pass(5_000).await;
        let before = pass(1_500).await;
        tenure.begins(MemberId(2), Term(2));
        let after = pass(100).await;
        assert_eq!(tenure.blame(long_before, ELECTION), RequestError::Timeout, "more than two elections before");
        assert_eq!(tenure.blame(before, ELECTION), RequestError::TimeoutLeaderFailure);
        assert_eq!(tenure.blame(after, ELECTION), RequestError::Timeout, "the new one just didn't do it");

        // It isn't heard of for a while, and is the leader still.
        tenure.begins(MemberId(2), Term(2));
        assert_eq!(tenure.blame(after, ELECTION), RequestError::TimeoutConnectionLost);
        assert_eq!(tenure.blame(before, ELECTION), RequestError::TimeoutLeaderFailure, "as it was");
        assert_eq!(tenure.blame(pass(10).await, ELECTION), RequestError::Timeout, "it began later");
    }

    /// Cause: a leader that is elected again, before anybody sees that there was none, wasn't noticed. Symptom: what it
    /// lost with its old term came to nothing for no reason that a client would ask again for.
    #[tokio::test(start_paused = true)]
    async fn a_leader_that_is_elected_again_has_failed_before() {
        let status = NodeStatus::new(MemberId(2));
        let leads = |term| {
            status.set_term(Term(term));
            status.set_leader(Some(MemberId(1)), Term(term));
        };
        leads(1);
        let before = pass(100).await;
        leads(1);
        assert_eq!(status.blame(before, ELECTION), RequestError::Timeout, "nothing has happened");
        leads(2);
        assert_eq!(status.blame(before, ELECTION), RequestError::TimeoutLeaderFailure);
        assert_eq!(status.blame(pass(100).await, ELECTION), RequestError::Timeout);
    }
}
