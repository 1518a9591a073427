//! The leader's lease: for how long no other member can have been elected.
//!
//! ```text
//! leader sends ─► a follower takes it in ─► votes for nobody for 0.7 T ─► may vote
//!      └─────────── reads without a round for 0.28 T ────┘
//! ```
//! T is `--election-timeout`. A follower that starts anew has forgotten when it heard the leader, so it votes for
//! nobody for 0.35 T. Both sides measure by their own monotonic clocks; see `docs/adr/0022-lease-reads.md`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::types::Term;

/// How much of what the others keep to is relied on: their clocks may run by the rest faster.
const RELIED_ON_PERCENT: u32 = 80;

/// The lease of this member, while it leads, and what it owes to others' leases.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    /// How old a quorum's answers may be, by when they were asked for; `None` if there are no lease reads.
    age_max: Option<Duration>,
    /// The last term in which this member asked another one to take over.
    void: Arc<AtomicU64>,
    /// Before this, it may have promised not to vote, in the life before this one.
    kept_until: Instant,
}

impl Lease {
    /// A member that starts now, and `was` there before; an election begins after `election_min` of silence at the
    /// earliest.
    pub(super) fn new(reads: bool, election_min: Duration, was: bool) -> Self {
        Self {
            age_max: reads.then(|| election_min * RELIED_ON_PERCENT / 100),
            void: Arc::default(),
            kept_until: Instant::now() + if was { election_min } else { Duration::ZERO },
        }
    }

    /// How old a quorum's answers may be for a read without a round, if there are such reads.
    pub(super) fn age_max(&self) -> Option<Duration> {
        self.age_max
    }

    /// The lead of this term is given away, or may be: such a request may still arrive long after it was given up.
    pub(super) fn void(&self, term: Term) {
        self.void.fetch_max(term.get(), Ordering::SeqCst);
    }

    /// Whether it was.
    pub(super) fn is_void(&self, term: Term) -> bool {
        self.void.load(Ordering::SeqCst) >= term.get()
    }

    /// Waits until what was promised before the start is over.
    pub(super) async fn kept(&self) {
        tokio::time::sleep_until(self.kept_until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lead_that_was_offered_is_void_for_its_term() {
        let lease = Lease::new(true, Duration::from_millis(350), true);
        assert_eq!(lease.age_max(), Some(Duration::from_millis(280)));
        assert!(!lease.is_void(Term(1)));
        lease.void(Term(3));
        lease.void(Term(2));
        assert!(lease.clone().is_void(Term(3)), "the same for all who know it");
        assert!(!lease.is_void(Term(4)), "the next one is its own");
        assert_eq!(Lease::new(false, Duration::from_millis(350), true).age_max(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_promised_before_a_start_is_kept() {
        let begun = Instant::now();
        Lease::new(false, Duration::from_millis(350), false).kept().await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "nothing was");
        Lease::new(false, Duration::from_millis(350), true).kept().await;
        assert!(begun.elapsed() >= Duration::from_millis(350));
    }
}
