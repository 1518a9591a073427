//! Between openraft's indexes, which begin at 0, and ours, which begin at 1 so that 0 can mean none.

use super::types::{LogId, log_id};
use crate::storage::AppliedPosition;
use crate::types::{RaftIndex, Term};

/// Our index of an entry that openraft calls `index`.
pub(super) const fn to_raft(index: u64) -> RaftIndex {
    RaftIndex(index + 1)
}

/// openraft's index of our `index`; ours is never 0 for an entry.
pub(super) const fn from_raft(index: RaftIndex) -> u64 {
    index.0.saturating_sub(1)
}

/// The position after the entry `id`.
pub(super) fn position_of(id: LogId) -> AppliedPosition {
    AppliedPosition { index: to_raft(id.index), term: Term(id.leader_id.term) }
}

/// The entry that a position is after; `None` for the empty state.
pub(super) fn log_id_of(position: AppliedPosition) -> Option<LogId> {
    (position.index.get() > 0).then(|| log_id(position.term.get(), from_raft(position.index)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_is_one_and_nothing_is_zero() {
        assert_eq!(log_id_of(AppliedPosition::default()), None);
        let first = log_id(0, 0);
        assert_eq!(position_of(first).index, RaftIndex(1));
        assert_eq!(log_id_of(position_of(first)), Some(first));
        let later = log_id(7, 41);
        assert_eq!(log_id_of(position_of(later)), Some(later));
    }
}
