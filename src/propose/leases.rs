//! The keeper of leases on the leader: what ran out is ended through the log, many in one entry.
//!
//! ```text
//! tick ─► Lessor::expired ─► LeaseExpire ─► log ─► apply (keys deleted, lease gone)
//! tick ─► Lessor::checkpoints ─► LeaseCheckpoint ─► log ─► remaining time survives a restart
//! ```
//!
//! Leadership gained starts the clocks (with the election timeout on top), lost stops them; so does it that this
//! member's state differs from the others', as its leases may. An expiry is proposed only here, on the member whose
//! clocks said so, and never forwarded.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::Proposer;
use crate::apply::Command;
use crate::env::Env;
use crate::lease::{Lessor, SHARDS};
use crate::types::{LeaseId, RequestError, Term};

/// How often expired leases are looked for.
const TICK: Duration = Duration::from_millis(100);
/// Between two beats of the pulse, this much beyond a tick is a pause of the process, in which no
/// renewal could be heard.
const PAUSE: Duration = Duration::from_secs(1);
/// The most leases that one entry ends; their keys go in it too, so it bounds an apply.
const EXPIRE_MAX: usize = 1_000;
/// Entries of expired leases proposed one after the other in a tick, so that writes get between them.
const EXPIRE_ROUNDS_MAX: usize = 8;
/// The most leases of one checkpoint.
const CHECKPOINT_MAX: usize = 10_000;
/// Ticks between two looks for checkpoints (one of 64 shards each).
const CHECKPOINT_TICKS: u32 = 5;

/// Notices that the process stood still (stopped, or without a processor), before any lease is
/// ended for it: keep-alives that came meanwhile wait in the sockets.
struct Pulse {
    lessor: Arc<Lessor>,
    env: Env,
    last: Mutex<Instant>,
}

impl Pulse {
    fn new(lessor: Arc<Lessor>, env: Env) -> Self {
        let last = Mutex::new(env.clock.now());
        Self { lessor, env, last }
    }

    async fn run(&self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.beat();
        }
    }

    /// Gives a pause since the last beat to the leases.
    fn beat(&self) {
        let now = self.env.clock.now();
        let since = std::mem::replace(&mut *self.last.lock(), now);
        let gap = now.saturating_duration_since(since);
        if gap > TICK + PAUSE {
            tracing::warn!(?gap, "the process stood still; leases are given as much longer");
            self.lessor.extend(since, now);
        }
    }
}

/// Ends leases in time while this member leads.
pub struct LeaseKeeper {
    lessor: Arc<Lessor>,
    proposer: Proposer,
    env: Env,
    election_timeout: Duration,
}

impl LeaseKeeper {
    /// A keeper that isn't running yet; `election_timeout` is added to every deadline on promotion.
    pub fn new(lessor: Arc<Lessor>, proposer: Proposer, env: Env, election_timeout: Duration) -> Self {
        Self { lessor, proposer, env, election_timeout }
    }

    /// Runs until the task is aborted.
    pub fn spawn(self) -> JoinHandle<()> {
        tokio::spawn(async move {
            let pulse = Pulse::new(self.lessor.clone(), self.env.clone());
            // Both end with the task.
            tokio::join!(pulse.run(), self.run(&pulse));
        })
    }

    async fn run(&self, pulse: &Pulse) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = 0_u32;
        let status = self.proposer.node().status().clone();
        let mut term = status.term();
        // One that was alone at its start had its clocks before this runs.
        let mut led = self.lessor.is_leading().then_some(term);
        loop {
            tick.tick().await;
            let now = status.term();
            let leads = status.leads_rightly();
            // A new term of our own may have come between two looks: its clocks begin afresh.
            if leads != self.lessor.is_leading() || (leads && now != term) {
                self.follow_leadership(leads, now, &mut led).await;
            }
            term = now;
            if !self.lessor.is_leading() {
                continue;
            }
            self.expire(pulse, term).await;
            ticks = ticks.wrapping_add(1);
            if ticks.is_multiple_of(CHECKPOINT_TICKS) {
                let remaining = self.lessor.checkpoints(self.env.clock.now(), CHECKPOINT_MAX);
                self.checkpoint(remaining, term).await;
            }
        }
    }

    /// Stops the clocks, and starts them if this member leads in `term`. `led` is the term in which they ran last.
    ///
    /// A checkpoint that was taken back before this term may not be applied here yet: a clock that began before it
    /// is would end a lease whose client was promised more. So what came before the term is waited for. A leader that lost
    /// sight of the others and found them again in its own term has in its log what it decided before, to end leases
    /// among it: they must be gone before anybody renews by new clocks, so all of its log is waited for.
    async fn follow_leadership(&self, leads: bool, term: Term, led: &mut Option<Term>) {
        self.lessor.demote();
        if !leads {
            return;
        }
        let caught_up = if *led == Some(term) {
            let nothing = Command::LeaseCheckpoint { remaining: Vec::new() };
            self.proposer.propose_as_leader(nothing, term).await.map(drop)
        } else {
            self.proposer.confirm_lead(term).await
        };
        if caught_up.is_ok() {
            *led = Some(term);
            self.lessor.promote(self.env.clock.now(), self.election_timeout);
        }
    }

    /// Ends what ran out by the clocks of `term`.
    async fn expire(&self, pulse: &Pulse, term: Term) {
        for _ in 0..EXPIRE_ROUNDS_MAX {
            pulse.beat();
            let ids = self.lessor.expired(self.env.clock.now(), EXPIRE_MAX);
            let count = ids.len();
            if count == 0 {
                return;
            }
            let command = Command::LeaseExpire { ids: ids.clone() };
            if let Err(error) = self.proposer.propose_as_leader(command, term).await {
                self.give_back(&ids, &error);
                return;
            }
            self.lessor.counts().add_expired(count);
            if count < EXPIRE_MAX {
                return;
            }
        }
    }

    /// What surely didn't enter the log is tried again at the next tick; the rest after a while.
    fn give_back(&self, ids: &[LeaseId], error: &RequestError) {
        if matches!(error, RequestError::TooManyRequests | RequestError::NoLeader) {
            self.lessor.release(ids, self.env.clock.now());
        }
        tracing::warn!(leases = ids.len(), %error, "failed to revoke expired leases, will retry");
    }

    async fn checkpoint(&self, remaining: Vec<(LeaseId, i64)>, term: Term) {
        if remaining.is_empty() {
            return;
        }
        let ids: Vec<_> = remaining.iter().map(|(id, _)| *id).collect();
        match self.proposer.propose_as_leader(Command::LeaseCheckpoint { remaining }, term).await {
            Ok(_) => self.lessor.checkpoints_done(ids),
            // It may come through yet; the marks end by themselves.
            Err(error) => tracing::debug!(%error, "lease checkpoint not taken"),
        }
    }

    /// Writes down what is left of the leases that lost much; for an orderly stop. What comes of it while clients renew
    /// is that of the usual checkpoints: each is proposed as soon as it is made.
    pub async fn checkpoint_all(lessor: &Lessor, proposer: &Proposer, env: &Env) {
        let term = proposer.node().status().term();
        let mut remaining = Vec::new();
        for shard in 1..=SHARDS {
            remaining.extend(lessor.checkpoints(env.clock.now(), usize::MAX));
            if remaining.is_empty() || (remaining.len() < CHECKPOINT_MAX && shard < SHARDS) {
                continue;
            }
            let remaining = std::mem::take(&mut remaining);
            let ids: Vec<_> = remaining.iter().map(|(id, _)| *id).collect();
            match proposer.propose_as_leader(Command::LeaseCheckpoint { remaining }, term).await {
                Ok(_) => lessor.checkpoints_done(ids),
                Err(error) => {
                    tracing::warn!(%error, "lease checkpoint at stop not taken");
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::Waiters;
    use crate::consensus::tests::start;
    use crate::env::{ManualClock, MemDisk};
    use crate::propose::ProposeLimits;
    use crate::types::RaftIndex;

    /// Cause: a member that was alone at its start has clocks before their keeper runs, and the keeper took its next lead
    /// in that term for the first. Symptom: that of the simulation's seed 600059 in a cluster grown from one member: a lease
    /// ended right after it was renewed. Holds: an entry of its own says that its whole log is applied.
    #[tokio::test]
    async fn a_lead_found_again_waits_for_the_whole_log_also_where_the_clocks_ran_before_their_keeper() {
        let node = start(&MemDisk::new()).await;
        let (env, status) = (Env::real(), node.status().clone());
        let (_writer, lessor) = Lessor::new(env.clock.now());
        lessor.promote(env.clock.now(), Duration::ZERO);
        let (limits, waiters) = (ProposeLimits::default(), Arc::new(Waiters::new(Duration::from_secs(5))));
        let proposer = Proposer::start(node.clone(), limits, env.clone(), waiters);
        let keeper = LeaseKeeper::new(lessor.clone(), proposer, env, Duration::ZERO).spawn();
        let until = async |leads| {
            let begun = tokio::time::Instant::now();
            while lessor.is_leading() != leads {
                assert!(begun.elapsed() < Duration::from_secs(60), "leads: {leads}");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::task::yield_now().await;
        status.set_diverged(RaftIndex(1));
        until(false).await;
        let before = status.applied();
        status.clear_diverged();
        until(true).await;
        assert!(status.applied() > before, "it waited for nothing");
        keeper.abort();
        node.shutdown().await.expect("an orderly end");
    }

    #[test]
    fn only_a_pause_makes_leases_longer() {
        let clock = Arc::new(ManualClock::new());
        let env = Env { clock: clock.clone(), ..Env::real() };
        let (mut writer, lessor) = Lessor::new(env.clock.now());
        lessor.promote(env.clock.now(), Duration::ZERO);
        writer.grant(LeaseId(1), 10);
        lessor.arm(env.clock.now());
        let pulse = Pulse::new(lessor.clone(), env.clone());
        for _ in 0..5 {
            clock.advance(Duration::from_secs(1));
            pulse.beat();
        }
        let left = || lessor.remaining(LeaseId(1), env.clock.now()).map(|status| status.remaining_secs);
        assert_eq!(left(), Some(4), "a second is no pause");
        clock.advance(Duration::from_secs(15));
        pulse.beat();
        pulse.beat();
        assert_eq!(left(), Some(4));
        assert_eq!(lessor.expired(env.clock.now(), 10), []);
    }
}
