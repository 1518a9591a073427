//! Errors that the simulation plants and must find: a test of the test.
//!
//! Only a build with `--cfg rusd_sim` can plant one (`cargo xtask simulate` makes it); in every other
//! build [`is_planted`] is the constant `false` and nothing of this is left in the binary.

#[cfg(rusd_sim)]
use std::sync::atomic::{AtomicU8, Ordering};

/// What can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Appended entries count as synced before they are.
    AckBeforeFsync = 1,
    /// A vote is answered before it is synced.
    VoteBeforeFsync = 2,
    /// The commands of some entries are applied twice.
    ApplyTwice = 3,
    /// A member that takes itself for the leader asks no quorum before a linearizable read.
    StaleRead = 4,
    /// Some batches of events never reach the watchers.
    DroppedEvent = 5,
    /// A keep-alive is answered and changes nothing.
    LeaseEarly = 6,
    /// A leader without a quorum sends entries anew all the same, so that the others elect none.
    DeafLeader = 7,
}

#[cfg(rusd_sim)]
static PLANTED: AtomicU8 = AtomicU8::new(0);

/// Plants an error in this process, for good.
#[cfg(rusd_sim)]
pub fn plant(bug: Bug) {
    PLANTED.store(bug as u8, Ordering::Relaxed);
}

/// Whether this error is planted.
#[cfg(rusd_sim)]
pub(crate) fn is_planted(bug: Bug) -> bool {
    PLANTED.load(Ordering::Relaxed) == bug as u8
}

/// Nothing is ever planted where rusd is meant to be used.
#[cfg(not(rusd_sim))]
pub(crate) const fn is_planted(_bug: Bug) -> bool {
    false
}
