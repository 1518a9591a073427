//! A leader whose disk is full, or with `--slow-disk-hand-over` far slower than another member's, leaves the lead to that one.
//!
//! ```text
//! log thread: a group's fsync ─► Pace (the last ones, or how long none comes back) ─┬► status ─► others ask for it
//!                                                   Room (is enough left?) ─────────┘
//! leader, every second: full, and another one isn't? ──────────────────────► three times in a row ─► hand over
//!                       own pace 50 ms or more, and five times another's? ─► ten times in a row ───► hand over
//! ```
//! A leader answers a write once its own log holds it, so its disk is on the way of every write, while of the others the
//! better ones are enough. The one that takes over isn't full, or is five times as fast, so it won't hand back for the
//! same reason; and whoever has handed over does so again only after a while, and then less and less often.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::room::Room;
use crate::consensus::{DiskState, Node};
use crate::types::MemberId;
use crate::wal::Wal;

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(1);
/// How long a member may take to answer.
const ANSWER_MAX: Duration = Duration::from_millis(800);
/// Syncs that are looked at.
const SYNCS: usize = 64;
/// A sync that is older says nothing of the disk now.
const FRESH: Duration = Duration::from_secs(20);
/// Fewer say nothing either.
const SYNCS_MIN: usize = 4;
/// A disk that is faster is good enough, however fast the others are.
const SLOW_MIN: Duration = Duration::from_millis(50);
/// How many times as fast another one must be.
const FACTOR: u32 = 5;

/// How soon a reason to hand over is acted upon.
#[derive(Debug)]
struct Haste {
    /// Rounds in a row in which it must be there.
    rounds: u32,
    /// How long a leader keeps the lead at least; each hand-over doubles it.
    keep_min: Duration,
    keep_max: Duration,
}

/// Slowness is measured, and a matter of degree.
const SLOW: Haste = Haste { rounds: 10, keep_min: Duration::from_secs(60), keep_max: Duration::from_secs(3600) };
/// A full disk is a fact, and writes will soon stand still for it.
const FULL: Haste = Haste { rounds: 3, keep_min: Duration::from_secs(3), keep_max: Duration::from_secs(60) };

/// How fast this member's log is synced.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<VecDeque<(Instant, Duration)>>);

impl Pace {
    /// A sync came back.
    pub(super) fn note(&self, took: Duration) {
        let mut syncs = self.0.lock();
        if syncs.len() == SYNCS {
            syncs.pop_front();
        }
        syncs.push_back((Instant::now(), took));
    }

    /// The median of the last ones, or, if something `waits` for one, the time since the last if that is longer; `None` if
    /// too few are fresh.
    pub(super) fn now(&self, waits: bool) -> Option<Duration> {
        let syncs = self.0.lock();
        let silent = syncs.back().filter(|_| waits).map(|(at, _)| at.elapsed());
        let mut fresh: Vec<_> = syncs.iter().filter(|(at, _)| at.elapsed() < FRESH).map(|(_, took)| *took).collect();
        fresh.sort_unstable();
        let median = (fresh.len() >= SYNCS_MIN).then(|| fresh[fresh.len() / 2]);
        // Something that waits for a moment is no sign.
        median.max(silent.filter(|silent| *silent >= EVERY))
    }
}

/// The other members that could lead, and how their disks do.
type Others = [(MemberId, DiskState)];

/// To whom the lead should go from a slow disk: the fastest of those that could take it, if it is fast enough.
fn faster(own: Option<Duration>, others: &Others) -> Option<MemberId> {
    let own = own.filter(|own| *own >= SLOW_MIN)?;
    let paces =
        others.iter().filter(|(_, disk)| !disk.is_full).filter_map(|(member, disk)| Some((*member, disk.pace?)));
    let (member, pace) = paces.min_by_key(|(_, pace)| *pace)?;
    (pace * FACTOR <= own).then_some(member)
}

/// To whom it should go from a full disk: the fastest of those with room.
fn roomier(others: &Others) -> Option<MemberId> {
    let with_room = others.iter().filter(|(_, disk)| !disk.is_full);
    with_room.min_by_key(|(_, disk)| disk.pace.unwrap_or(Duration::MAX)).map(|(member, _)| *member)
}

/// What is remembered of one reason between two rounds.
#[derive(Debug)]
struct Patience {
    haste: Haste,
    /// In how many rounds it was there, in a row.
    rounds: u32,
    leads_since: Option<Instant>,
    keep: Duration,
}

impl Patience {
    fn new(haste: Haste) -> Self {
        Self { rounds: 0, leads_since: None, keep: haste.keep_min, haste }
    }

    /// This member doesn't lead.
    fn follows(&mut self) {
        (self.rounds, self.leads_since) = (0, None);
    }

    /// This member leads, and another one may be better. Whether to hand over to it now.
    fn round(&mut self, better: Option<MemberId>) -> Option<MemberId> {
        let since = *self.leads_since.get_or_insert_with(Instant::now);
        let Some(member) = better else {
            self.rounds = 0;
            return None;
        };
        self.rounds += 1;
        if self.rounds < self.haste.rounds || since.elapsed() < self.keep {
            return None;
        }
        // Whether or not it comes about: not again soon.
        (self.rounds, self.leads_since) = (0, Some(Instant::now()));
        self.keep = (2 * self.keep).min(self.haste.keep_max);
        Some(member)
    }
}

/// Tells how this member's disk does to its status, and acts by it while it leads.
pub(super) struct DiskWatch {
    pub(super) node: Node,
    pub(super) wal: Arc<Wal>,
    pub(super) pace: Arc<Pace>,
    pub(super) room: Room,
    /// `--slow-disk-hand-over`.
    pub(super) leaves_when_slow: bool,
}

impl DiskWatch {
    /// Runs until it is aborted.
    pub(super) fn spawn(self) -> JoinHandle<()> {
        tokio::spawn(async move {
            let (mut full, mut slow) = (Patience::new(FULL), Patience::new(SLOW));
            let mut tick = tokio::time::interval(EVERY);
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tick.tick().await;
                let own = DiskState { pace: self.pace.now(self.wal.queued_bytes() > 0), is_full: self.room.is_short() };
                self.node.status().set_disk(own);
                if !self.node.status().is_leader() {
                    full.follows();
                    slow.follows();
                    continue;
                }
                let is_slow = self.leaves_when_slow && own.pace.is_some_and(|pace| pace >= SLOW_MIN);
                let others = if own.is_full || is_slow { self.others().await } else { Vec::new() };
                let roomier = full.round(roomier(&others).filter(|_| own.is_full));
                let faster = slow.round(faster(own.pace, &others).filter(|_| is_slow));
                if let Some(member) = roomier {
                    self.leave(member, "full").await;
                } else if let Some(member) = faster {
                    self.leave(member, "slow").await;
                }
            }
        })
    }

    async fn leave(&self, member: MemberId, why: &str) {
        tracing::warn!(%member, "this member's disk is {why}: handing the lead over");
        if let Err(error) = self.node.transfer_leader(member).await {
            tracing::warn!(%member, %error, "the lead was not taken over");
        }
    }

    async fn others(&self) -> Vec<(MemberId, DiskState)> {
        let peers = self.node.peers();
        let ask = |member: MemberId| async move { Some((member, peers.disk(member, ANSWER_MAX).await.ok()?)) };
        futures::future::join_all(self.node.could_lead().into_iter().map(ask)).await.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MemberId = MemberId(1);
    const B: MemberId = MemberId(2);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn disk(pace_ms: u64, is_full: bool) -> DiskState {
        DiskState { pace: (pace_ms > 0).then(|| ms(pace_ms)), is_full }
    }

    #[test]
    fn only_a_far_faster_disk_is_better() {
        let faster = |own: u64, others: &[(MemberId, u64)]| {
            let others: Vec<_> = others.iter().map(|(member, pace)| (*member, disk(*pace, false))).collect();
            faster(Some(ms(own)), &others)
        };
        assert_eq!(faster(100, &[(A, 5), (B, 4)]), Some(B), "the fastest");
        assert_eq!(faster(100, &[(A, 20), (B, 90)]), Some(A));
        assert_eq!(faster(100, &[(A, 21)]), None, "not fast enough");
        assert_eq!(faster(49, &[(A, 1)]), None, "good enough");
        assert_eq!(faster(100, &[(A, 0)]), None, "it doesn't know how fast it is");
        assert_eq!(faster(100, &[]), None, "nobody could");
        assert_eq!(super::faster(None, &[(A, disk(1, false))]), None, "nothing was written here");
        assert_eq!(super::faster(Some(ms(100)), &[(A, disk(1, true)), (B, disk(2, false))]), Some(B), "A is full");
    }

    #[test]
    fn only_a_disk_with_room_is_better_than_a_full_one() {
        assert_eq!(roomier(&[(A, disk(1, true)), (B, disk(90, false))]), Some(B));
        assert_eq!(roomier(&[(A, disk(0, false)), (B, disk(90, false))]), Some(B), "who knows how fast the other is?");
        assert_eq!(roomier(&[(A, disk(0, false))]), Some(A));
        assert_eq!(roomier(&[(A, disk(1, true))]), None, "all are full");
        assert_eq!(roomier(&[]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_median_of_the_last_syncs_counts_and_a_sync_that_does_not_come_back() {
        let pace = Pace::default();
        assert_eq!(pace.now(true), None);
        for took in [1, 1, 200, 1] {
            pace.note(ms(took));
        }
        assert_eq!(pace.now(false), Some(ms(1)), "one slow one is none");
        for _ in 0..40 {
            pace.note(ms(80));
        }
        assert_eq!(pace.now(true), Some(ms(80)));
        tokio::time::sleep(ms(7_000)).await;
        assert_eq!(pace.now(false), Some(ms(80)), "nothing waits");
        assert_eq!(pace.now(true), Some(ms(7_000)), "the disk hangs");
        tokio::time::sleep(FRESH).await;
        assert_eq!(pace.now(false), None, "that was long ago");
    }

    /// Rounds until the lead is handed over.
    async fn rounds(patience: &mut Patience, better: Option<MemberId>, max: u32) -> Option<u32> {
        for round in 1..=max {
            tokio::time::sleep(EVERY).await;
            if patience.round(better).is_some() {
                return Some(round);
            }
        }
        None
    }

    #[tokio::test(start_paused = true)]
    async fn the_lead_does_not_go_to_and_fro() {
        let mut patience = Patience::new(SLOW);
        assert_eq!(rounds(&mut patience, Some(A), 59).await, None, "a leader that was just elected");
        assert_eq!(patience.round(None), None);
        assert_eq!(rounds(&mut patience, Some(A), 100).await, Some(SLOW.rounds), "ten times in a row, from then on");
        assert_eq!(rounds(&mut patience, Some(A), 1_000).await, Some(120), "it didn't come about: later");
        patience.follows();
        assert_eq!(rounds(&mut patience, Some(A), 1_000).await, Some(241), "as the leader once more: later still");
        for _ in 0..20 {
            rounds(&mut patience, Some(A), 4_000).await.expect("at some time");
        }
        assert_eq!(patience.keep, SLOW.keep_max);
    }
}
