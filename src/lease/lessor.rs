//! `Lessor`: what everyone but apply may do with leases.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::shard::Shard;
use super::{LeaseCounts, LeaseWriter, Pass};
use crate::types::LeaseId;
use crate::types::planted::{Bug, is_planted};

/// Shards; a power of two, and at most the bits of the mask of fresh ones.
pub const SHARDS: usize = 64;

/// How long a proposal to end a lease counts as under way: after that an expired one is handed out
/// again, and one that a client wanted revoked can be renewed again. etcd's request timeout.
pub const EXPIRE_RETRY: Duration = Duration::from_secs(7);

/// What became of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It has its full time again.
    Renewed {
        /// Seconds from now.
        ttl_secs: i64,
        /// A checkpoint, applied or under way, would cut it short after a change of leader: propose
        /// `LeaseCheckpoint` with 0 for it, renew again once that is applied, and answer when this is false.
        reset_checkpoint: bool,
    },
    /// It has run out or is being revoked, but is not gone yet: wait on [`Lessor::ended`] and ask again.
    Ending,
    /// There is none: the wire's TTL 0.
    Unknown,
    /// This member doesn't keep the clocks: ask the leader.
    NotLeading,
}

/// What a client can learn of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseStatus {
    /// Seconds granted.
    pub granted_secs: i64,
    /// Seconds left, rounded down; 0 when it has run out but is not revoked yet.
    pub remaining_secs: i64,
}

/// The leases of a member, shared by all rooms. What is replicated changes through the one [`LeaseWriter`] only.
#[derive(Debug)]
pub struct Lessor {
    origin: Instant,
    shards: Box<[Mutex<Shard>]>,
    leading: AtomicBool,
    /// Bit i: shard i holds leases whose clock hasn't begun.
    fresh: AtomicU64,
    /// What the last promotion added to deadlines.
    grace_ms: AtomicU64,
    count: AtomicUsize,
    /// Shard where the next search for expired leases begins, and the one whose checkpoints are next.
    next_expired: AtomicUsize,
    next_checkpoint: AtomicUsize,
    ended: watch::Sender<u64>,
    counts: LeaseCounts,
}

impl Lessor {
    /// No leases, not leading. `origin` is the clock's present; no later time may lie before it.
    pub fn new(origin: Instant) -> (LeaseWriter, Arc<Self>) {
        let lessor = Arc::new(Self {
            origin,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            leading: AtomicBool::new(false),
            fresh: AtomicU64::new(0),
            grace_ms: AtomicU64::new(0),
            count: AtomicUsize::new(0),
            next_expired: AtomicUsize::new(0),
            next_checkpoint: AtomicUsize::new(0),
            ended: watch::Sender::new(0),
            counts: LeaseCounts::default(),
        });
        (LeaseWriter::new(Arc::clone(&lessor)), lessor)
    }

    fn ms(&self, now: Instant) -> u64 {
        millis(now.saturating_duration_since(self.origin))
    }

    fn shard_of(id: LeaseId) -> usize {
        let mixed = (id.get() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> (u64::BITS - SHARDS.trailing_zeros())) as usize
    }

    pub(super) fn shard(&self, id: LeaseId) -> MutexGuard<'_, Shard> {
        self.shards[Self::shard_of(id)].lock()
    }

    /// Called with the shard's lock held.
    pub(super) fn granted(&self, id: LeaseId, shard: &mut Shard) {
        self.count.fetch_add(1, Ordering::Relaxed);
        if self.is_leading() {
            shard.push_fresh(id);
            self.fresh.fetch_or(1 << Self::shard_of(id), Ordering::Release);
        }
    }

    pub(super) fn removed(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn announce(&self) {
        self.ended.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn clear(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            self.count.fetch_sub(shard.leases.len(), Ordering::Relaxed);
            *shard = Shard::default();
        }
    }

    /// How many leases there are.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// What has happened since the start.
    pub fn counts(&self) -> &LeaseCounts {
        &self.counts
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is such a lease; one that has run out counts until it is revoked.
    pub fn contains(&self, id: LeaseId) -> bool {
        self.shard(id).leases.contains_key(&id)
    }

    /// The keys that hang on a lease, sorted; `None` if there is no such lease.
    pub fn keys(&self, id: LeaseId) -> Option<Vec<Bytes>> {
        self.shard(id).leases.get(&id).map(|lease| lease.keys.to_vec())
    }

    /// Whether keys hang on a lease.
    pub fn has_keys(&self, id: LeaseId) -> bool {
        self.shard(id).leases.get(&id).is_some_and(|lease| !lease.keys.is_empty())
    }

    /// Whether all keys of a lease pass, of which there may be none; `pass` is asked for stretches and not for each.
    pub fn all_keys_pass<'a>(&self, id: LeaseId, pass: impl Fn(&[u8]) -> Pass<'a>) -> bool {
        self.shard(id).leases.get(&id).is_none_or(|lease| lease.keys.all_pass(pass))
    }

    /// Changes whenever leases are gone, released, or no longer kept here, for those who wait for
    /// the end of one: ask again then.
    pub fn ended(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }

    /// Whether this member keeps the clocks.
    pub fn is_leading(&self) -> bool {
        self.leading.load(Ordering::Acquire)
    }

    /// Starts all clocks: this member leads now. Each lease gets what was left at its last
    /// checkpoint, or its full time, and `extend` on top (the election timeout: renewals may have
    /// been lost meanwhile).
    pub fn promote(&self, now: Instant, extend: Duration) {
        let (now_ms, extend_ms) = (self.ms(now), millis(extend));
        self.grace_ms.store(extend_ms, Ordering::Relaxed);
        // First the flag: a lease granted from here on arms itself, one granted before is found below.
        self.leading.store(true, Ordering::Release);
        for shard in &self.shards {
            shard.lock().promote(now_ms, extend_ms);
        }
    }

    /// Stops all clocks: another member leads.
    pub fn demote(&self) {
        self.leading.store(false, Ordering::Release);
        for shard in &self.shards {
            shard.lock().demote();
        }
        self.announce();
    }

    /// Starts the clocks of leases granted since the last time; cheap if there are none. Called
    /// after a batch was applied; [`Lessor::expired`] does it too, so that none is forgotten.
    pub fn arm(&self, now: Instant) {
        let mut fresh = self.fresh.swap(0, Ordering::Acquire);
        while fresh != 0 {
            let shard = fresh.trailing_zeros() as usize;
            fresh &= fresh - 1;
            self.shards[shard].lock().arm(self.ms(now));
        }
    }

    /// Gives a lease its full time again, in memory only.
    ///
    /// The caller must be sure that this member still leads at `now`, or a paused leader would
    /// answer for a lease that its successor has ended.
    pub fn renew(&self, id: LeaseId, now: Instant) -> Renewal {
        let mut shard = self.shard(id);
        if !self.is_leading() {
            return Renewal::NotLeading;
        }
        let now_ms = self.ms(now);
        let Some(lease) = shard.armed(id, now_ms) else { return Renewal::Unknown };
        if lease.is_ending(now_ms) {
            return Renewal::Ending;
        }
        if !is_planted(Bug::LeaseEarly) {
            Shard::renew(lease, now_ms);
        }
        self.counts.add_renewed();
        Renewal::Renewed { ttl_secs: lease.ttl_secs, reset_checkpoint: lease.is_checkpointed(now_ms) }
    }

    /// How long a lease was granted for and has left; `None` if there is none. Without leading,
    /// what is left isn't known and given as granted.
    pub fn remaining(&self, id: LeaseId, now: Instant) -> Option<LeaseStatus> {
        let mut shard = self.shard(id);
        let now_ms = self.ms(now);
        let lease = if self.is_leading() { shard.armed(id, now_ms)? } else { shard.leases.get_mut(&id)? };
        // Deadlines are rounded up by up to 2 ms; a client never sees as much as it was granted.
        let remaining_secs = i64::try_from(lease.remaining_ms(now_ms).saturating_sub(2) / 1000).unwrap_or(i64::MAX);
        Some(LeaseStatus { granted_secs: lease.ttl_secs, remaining_secs })
    }

    /// Up to `max` leases that have run out, those first that ran out first, to be proposed as
    /// `LeaseExpire`. They can't be renewed any more, and come again after [`EXPIRE_RETRY`] if they
    /// are still there. Such a proposal must never be forwarded to another leader, which has given
    /// them new deadlines.
    pub fn expired(&self, now: Instant, max: usize) -> Vec<LeaseId> {
        if !self.is_leading() {
            return Vec::new();
        }
        self.arm(now);
        let now_ms = self.ms(now);
        let retry_ms = now_ms.saturating_add(millis(EXPIRE_RETRY));
        let mut found = Vec::new();
        let first = self.next_expired.fetch_add(1, Ordering::Relaxed);
        for step in 0..SHARDS {
            let left = max - found.len();
            if left == 0 {
                break;
            }
            self.shards[(first + step) % SHARDS].lock().expired(now_ms, retry_ms, left, &mut found);
        }
        found.sort_unstable();
        found.into_iter().map(|(_, id)| id).collect()
    }

    /// Refuses renewals of a lease from now on, since its revoke is about to be proposed (etcd issue
    /// 20615: a keep-alive must not succeed after that). Lasts [`EXPIRE_RETRY`] at most, in case the
    /// proposal is lost.
    pub fn begin_revoke(&self, id: LeaseId, now: Instant) {
        let until_ms = self.ms(now).saturating_add(millis(EXPIRE_RETRY));
        if let Some(lease) = self.shard(id).leases.get_mut(&id) {
            lease.set_revoking(until_ms);
        }
    }

    /// Takes back [`Lessor::begin_revoke`] or a hand-out of [`Lessor::expired`] for a proposal that
    /// surely didn't enter the log.
    pub fn release(&self, ids: &[LeaseId], now: Instant) {
        for id in ids {
            self.shard(*id).release(*id, self.ms(now));
        }
        self.announce();
    }

    /// All leases, those first that end first; by id where this member doesn't lead.
    pub fn ids(&self) -> Vec<LeaseId> {
        let mut all = Vec::with_capacity(self.len());
        for shard in &self.shards {
            all.extend(shard.lock().leases.iter().map(|(id, lease)| (lease.deadline_ms(), *id)));
        }
        all.sort_unstable();
        all.into_iter().map(|(_, id)| id).collect()
    }

    /// Up to `max` leases whose remaining seconds should be written down, to be proposed as
    /// `LeaseCheckpoint` at once. Each call looks at one of [`SHARDS`] shards; call it about twice a second, or
    /// once for each before an orderly stop, and [`Lessor::checkpoints_done`] when the outcome is known.
    pub fn checkpoints(&self, now: Instant, max: usize) -> Vec<(LeaseId, i64)> {
        if !self.is_leading() {
            return Vec::new();
        }
        let grace_secs = self.grace_secs();
        let next = self.next_checkpoint.fetch_add(1, Ordering::Relaxed) % SHARDS;
        let mut shard = self.shards[next].lock();
        let now_ms = self.ms(now);
        let due: Vec<_> = shard.candidates(now_ms).filter_map(|lease| lease.checkpoint(grace_secs)).take(max).collect();
        for (id, _) in &due {
            shard.set_checkpointing(*id, now_ms.saturating_add(millis(EXPIRE_RETRY)));
        }
        due
    }

    /// The checkpoints of these leases are applied, or surely will never be.
    pub fn checkpoints_done(&self, ids: impl IntoIterator<Item = LeaseId>) {
        for id in ids {
            self.shard(id).set_checkpointing(id, 0);
        }
    }

    /// Gives every lease that hadn't run out at `since` as much longer as passed from then to `now`:
    /// this process stood still, and the renewals that came meanwhile were not heard.
    pub fn extend(&self, since: Instant, now: Instant) {
        if !self.is_leading() {
            return;
        }
        let (since_ms, gap_ms) = (self.ms(since), millis(now.saturating_duration_since(since)));
        for shard in &self.shards {
            shard.lock().extend(since_ms, gap_ms);
        }
        // Who came first and found a lease run out asks again.
        self.announce();
    }

    /// What a promotion adds to deadlines, rounded up.
    fn grace_secs(&self) -> i64 {
        (self.grace_ms.load(Ordering::Relaxed).div_ceil(1000) + 1) as i64
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
