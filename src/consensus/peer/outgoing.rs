//! Members to which a snapshot is on its way, or that have one and aren't in step yet: what of the log they will need.
//!
//! ```text
//! begin (member, its last entry) ─► on its way ─► taken in ─► in step ─► forgotten
//!                                       └ not taken: forgotten            └ not for a long time: forgotten
//! ```
//! Without this a leader whose log is purged faster than a member takes in a snapshot would send it one after the other, for
//! ever: each is of before the log's beginning by the time it is there.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::types::{MemberId, RaftIndex};

/// How long a member that has taken in its snapshot may be out of step before it counts as gone.
const CATCHES_UP: Duration = Duration::from_secs(60);

/// Those members.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    to: Mutex<BTreeMap<MemberId, Sent>>,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    /// The snapshot's last entry.
    last: RaftIndex,
    /// When it was taken in.
    taken: Option<Instant>,
}

/// A snapshot on its way; dropped, it wasn't taken in.
pub(super) struct UnderWay<'a> {
    all: &'a Outgoing,
    to: MemberId,
    taken: bool,
}

impl Outgoing {
    /// A snapshot of what there is up to `last` goes to a member.
    pub(super) fn begin(&self, to: MemberId, last: RaftIndex) -> UnderWay<'_> {
        self.to.lock().insert(to, Sent { last, taken: None });
        UnderWay { all: self, to, taken: false }
    }

    /// The last entry that none of them needs; `None` if there are no such members. `has` says up to where a member holds
    /// the log, and from `in_step` on it needs no snapshot.
    pub(super) fn not_needed(&self, in_step: RaftIndex, has: impl Fn(MemberId) -> RaftIndex) -> Option<RaftIndex> {
        let mut to = self.to.lock();
        to.retain(|member, sent| sent.taken.is_none_or(|taken| taken.elapsed() < CATCHES_UP && has(*member) < in_step));
        to.iter().map(|(member, sent)| sent.last.max(has(*member))).min()
    }
}

impl UnderWay<'_> {
    /// It was taken in.
    pub(super) fn taken(mut self) {
        self.taken = true;
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut to = self.all.to.lock();
        if self.taken {
            if let Some(sent) = to.get_mut(&self.to) {
                sent.taken = Some(Instant::now());
            }
        } else {
            to.remove(&self.to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_log_is_kept_for_a_snapshot_until_its_taker_is_in_step_or_gone() {
        let outgoing = Outgoing::default();
        let needed = |in_step, has| outgoing.not_needed(RaftIndex(in_step), |_| RaftIndex(has)).map(RaftIndex::get);
        assert_eq!(needed(100, 0), None);
        let under_way = outgoing.begin(MemberId(2), RaftIndex(70));
        assert_eq!(needed(100, 0), Some(70));
        tokio::time::advance(2 * CATCHES_UP).await;
        assert_eq!(needed(100, 0), Some(70), "however long it takes");
        under_way.taken();
        assert_eq!((needed(200, 70), needed(200, 120)), (Some(70), Some(120)));
        assert_eq!((needed(200, 200), needed(300, 200)), (None, None), "it was in step");

        drop(outgoing.begin(MemberId(2), RaftIndex(300)));
        assert_eq!(needed(400, 200), None, "it wasn't taken in");

        outgoing.begin(MemberId(2), RaftIndex(400)).taken();
        assert_eq!(needed(500, 400), Some(400));
        tokio::time::advance(2 * CATCHES_UP).await;
        assert_eq!(needed(500, 400), None, "it is gone");
    }
}
