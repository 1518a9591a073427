//! `Shard`: a part of the leases with their deadlines, behind one mutex of the lessor.
//!
//! Times are milliseconds since the lessor's origin. Deadlines are rounded up and the present down,
//! so that no lease ends early.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::checkpoint::Candidate;
use super::keys::LeaseKeys;
use crate::types::LeaseId;

/// A deadline that is not set: the lease is new, or this member doesn't lead.
const UNARMED: u64 = u64::MAX;

/// Stale heap entries that are tolerated beyond one for each lease before the heap is rebuilt.
const STALE_MAX: usize = 1024;

/// One lease.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) ttl_secs: i64,
    /// Seconds left at the last checkpoint, 0 if none.
    pub(super) checkpoint_secs: i64,
    pub(super) keys: LeaseKeys,
    deadline_ms: u64,
    /// The time of the one heap entry that counts for this lease; others with its id are stale.
    queued_ms: u64,
    /// Renewals are refused until then, since a revoke was proposed; 0 if none was.
    revoking_until_ms: u64,
    /// Until then a checkpoint of it may be on its way through the log; 0 if none is.
    checkpointing_until_ms: u64,
}

impl Lease {
    pub(super) fn new(ttl_secs: i64, checkpoint_secs: i64) -> Self {
        Self {
            ttl_secs,
            checkpoint_secs,
            keys: LeaseKeys::None,
            deadline_ms: UNARMED,
            queued_ms: UNARMED,
            revoking_until_ms: 0,
            checkpointing_until_ms: 0,
        }
    }

    /// Whether a checkpoint counts or may come to.
    pub(super) fn is_checkpointed(&self, now_ms: u64) -> bool {
        self.checkpoint_secs > 0 || now_ms < self.checkpointing_until_ms
    }

    fn ttl_ms(&self) -> u64 {
        secs_to_ms(self.ttl_secs)
    }

    /// Milliseconds left; the full time for one whose clock hasn't begun.
    pub(super) fn remaining_ms(&self, now_ms: u64) -> u64 {
        if self.deadline_ms == UNARMED { self.ttl_ms() } else { self.deadline_ms.saturating_sub(now_ms) }
    }

    /// Whether it has run out or is being revoked: it can't be saved any more.
    pub(super) fn is_ending(&self, now_ms: u64) -> bool {
        self.deadline_ms <= now_ms || now_ms < self.revoking_until_ms
    }

    /// Refuses renewals until `until_ms`.
    pub(super) fn set_revoking(&mut self, until_ms: u64) {
        self.revoking_until_ms = until_ms;
    }

    pub(super) fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }
}

fn secs_to_ms(secs: i64) -> u64 {
    u64::try_from(secs).unwrap_or(0).saturating_mul(1000)
}

/// The earliest that a deadline `ms` after `now_ms` may be; never the unarmed value.
fn deadline(now_ms: u64, ms: u64) -> u64 {
    now_ms.saturating_add(1).saturating_add(ms).min(UNARMED - 1)
}

/// A part of all leases.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) leases: BTreeMap<LeaseId, Lease>,
    /// When to look at which lease; each armed lease has exactly one entry at its `queued_ms`.
    heap: BinaryHeap<Reverse<(u64, LeaseId)>>,
    /// Granted since the last [`Shard::arm`].
    fresh: Vec<LeaseId>,
}

impl Shard {
    /// Remembers that a lease was granted and waits for its clock to begin.
    pub(super) fn push_fresh(&mut self, id: LeaseId) {
        self.fresh.push(id);
    }

    /// Begins the clocks of the leases granted since the last time.
    pub(super) fn arm(&mut self, now_ms: u64) {
        for id in std::mem::take(&mut self.fresh) {
            self.arm_one(id, now_ms);
        }
    }

    fn arm_one(&mut self, id: LeaseId, now_ms: u64) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        if lease.deadline_ms == UNARMED {
            lease.deadline_ms = deadline(now_ms, lease.ttl_ms());
            Self::queue(&mut self.heap, id, lease, lease.deadline_ms);
        }
    }

    fn queue(heap: &mut BinaryHeap<Reverse<(u64, LeaseId)>>, id: LeaseId, lease: &mut Lease, at_ms: u64) {
        lease.queued_ms = at_ms;
        heap.push(Reverse((at_ms, id)));
    }

    /// A lease whose clock has begun.
    pub(super) fn armed(&mut self, id: LeaseId, now_ms: u64) -> Option<&mut Lease> {
        if self.leases.get(&id)?.deadline_ms == UNARMED {
            self.arm_one(id, now_ms);
        }
        self.leases.get_mut(&id)
    }

    /// Gives a living lease its full time again. Never makes a deadline earlier.
    pub(super) fn renew(lease: &mut Lease, now_ms: u64) {
        lease.deadline_ms = lease.deadline_ms.max(deadline(now_ms, lease.ttl_ms()));
    }

    /// Takes a lease out; its heap entry goes when its turn comes, or when too many such are there.
    pub(super) fn remove(&mut self, id: LeaseId) -> Option<Lease> {
        let lease = self.leases.remove(&id)?;
        if self.heap.len() > 2 * self.leases.len() + STALE_MAX {
            let leases = &self.leases;
            self.heap.retain(|Reverse((at, id))| leases.get(id).is_some_and(|lease| lease.queued_ms == *at));
        }
        Some(lease)
    }

    /// Begins every clock anew from the checkpoint or the full time.
    pub(super) fn promote(&mut self, now_ms: u64, extend_ms: u64) {
        self.fresh.clear();
        let mut entries = Vec::with_capacity(self.leases.len());
        for (id, lease) in &mut self.leases {
            let left = if lease.checkpoint_secs > 0 { secs_to_ms(lease.checkpoint_secs) } else { lease.ttl_ms() };
            lease.deadline_ms = deadline(now_ms, left.saturating_add(extend_ms));
            lease.queued_ms = lease.deadline_ms;
            lease.checkpointing_until_ms = 0;
            entries.push(Reverse((lease.queued_ms, *id)));
        }
        self.heap = BinaryHeap::from(entries);
    }

    /// Stops every clock.
    pub(super) fn demote(&mut self) {
        self.fresh = Vec::new();
        self.heap = BinaryHeap::new();
        for lease in self.leases.values_mut() {
            lease.deadline_ms = UNARMED;
            lease.queued_ms = UNARMED;
            lease.revoking_until_ms = 0;
        }
    }

    /// Appends up to `max` leases that have run out, each to be handed out again at `retry_ms` if it is still there then.
    pub(super) fn expired(&mut self, now_ms: u64, retry_ms: u64, max: usize, out: &mut Vec<(u64, LeaseId)>) {
        let end = out.len().saturating_add(max);
        while out.len() < end {
            let Some(&Reverse((at_ms, id))) = self.heap.peek() else { return };
            if at_ms > now_ms {
                return;
            }
            self.heap.pop();
            let Some(lease) = self.leases.get_mut(&id).filter(|lease| lease.queued_ms == at_ms) else { continue };
            if lease.deadline_ms > now_ms {
                let later = lease.deadline_ms;
                Self::queue(&mut self.heap, id, lease, later);
            } else {
                out.push((lease.deadline_ms, id));
                Self::queue(&mut self.heap, id, lease, retry_ms);
            }
        }
    }

    /// Takes back a hand-out or a revoke that was surely not proposed.
    pub(super) fn release(&mut self, id: LeaseId, now_ms: u64) {
        let Some(lease) = self.leases.get_mut(&id) else { return };
        lease.revoking_until_ms = 0;
        if lease.deadline_ms <= now_ms && lease.queued_ms > now_ms {
            Self::queue(&mut self.heap, id, lease, now_ms);
        }
    }

    /// Notes until when a checkpoint of a lease may be under way.
    pub(super) fn set_checkpointing(&mut self, id: LeaseId, until_ms: u64) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.checkpointing_until_ms = until_ms;
        }
    }

    /// Puts off by `gap_ms` each deadline that lay beyond `since_ms`; the heap finds out at their old time.
    pub(super) fn extend(&mut self, since_ms: u64, gap_ms: u64) {
        for lease in self.leases.values_mut() {
            if lease.deadline_ms != UNARMED && lease.deadline_ms > since_ms {
                lease.deadline_ms = lease.deadline_ms.saturating_add(gap_ms).min(UNARMED - 1);
            }
        }
    }

    /// Each lease with a running clock, as the checkpoint rule sees it.
    pub(super) fn candidates(&self, now_ms: u64) -> impl Iterator<Item = Candidate> {
        self.leases.iter().filter(move |(_, lease)| lease.deadline_ms != UNARMED && !lease.is_ending(now_ms)).map(
            move |(id, lease)| Candidate {
                id: *id,
                ttl_secs: lease.ttl_secs,
                checkpoint_secs: lease.checkpoint_secs,
                remaining_secs: i64::try_from(lease.remaining_ms(now_ms).div_ceil(1000)).unwrap_or(i64::MAX),
            },
        )
    }

    #[cfg(test)]
    pub(super) fn heap_len(&self) -> usize {
        self.heap.len()
    }
}
