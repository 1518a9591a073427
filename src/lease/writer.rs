//! `LeaseWriter`: the replicated part's only way in; apply owns the one there is.

use std::sync::Arc;

use bytes::Bytes;

use super::shard::Lease;
use super::{LeaseRecord, Lessor};
use crate::types::LeaseId;

/// Changes leases as the log says. There is one, and it isn't cloneable.
#[derive(Debug)]
pub struct LeaseWriter {
    lessor: Arc<Lessor>,
    /// Whether leases were removed since the last [`LeaseWriter::announce`].
    unannounced: bool,
}

impl LeaseWriter {
    pub(super) fn new(lessor: Arc<Lessor>) -> Self {
        Self { lessor, unannounced: false }
    }

    /// The shared half.
    pub fn lessor(&self) -> &Arc<Lessor> {
        &self.lessor
    }

    /// Adds a lease; false if there is one with this id.
    pub fn grant(&mut self, id: LeaseId, ttl_secs: i64) -> bool {
        let granted = self.insert(id, LeaseRecord { ttl_secs, remaining_secs: 0 });
        if granted {
            self.lessor.counts().add_granted();
        }
        granted
    }

    /// Adds a lease as it was stored; false if there is one with this id.
    pub fn insert(&mut self, id: LeaseId, record: LeaseRecord) -> bool {
        let mut shard = self.lessor.shard(id);
        if shard.leases.contains_key(&id) {
            return false;
        }
        shard.leases.insert(id, Lease::new(record.ttl_secs, record.remaining_secs));
        self.lessor.granted(id, &mut shard);
        true
    }

    /// Takes a lease out; false if it isn't there.
    pub fn remove(&mut self, id: LeaseId) -> bool {
        let removed = self.lessor.shard(id).remove(id).is_some();
        if removed {
            self.lessor.removed();
            self.lessor.counts().add_revoked();
            self.unannounced = true;
        }
        removed
    }

    /// Wakes those who wait for the end of a lease; called once what was removed is published.
    pub fn announce(&mut self) {
        if std::mem::take(&mut self.unannounced) {
            self.lessor.announce();
        }
    }

    /// Takes all out, before another state is installed.
    pub fn clear(&mut self) {
        self.lessor.clear();
        self.unannounced = true;
    }

    /// Hangs a key on a lease (its bytes are copied: a slice would keep the whole entry in memory).
    pub fn attach(&mut self, id: LeaseId, key: &[u8]) {
        if let Some(lease) = self.lessor.shard(id).leases.get_mut(&id) {
            lease.keys.insert(Bytes::copy_from_slice(key));
        }
    }

    /// Takes a key off a lease.
    pub fn detach(&mut self, id: LeaseId, key: &[u8]) {
        if let Some(lease) = self.lessor.shard(id).leases.get_mut(&id) {
            lease.keys.remove(key);
        }
    }

    /// Notes what a lease had left (0: its full time); the record to store, `None` if there is no such lease.
    pub fn checkpoint(&mut self, id: LeaseId, remaining_secs: i64) -> Option<LeaseRecord> {
        let mut shard = self.lessor.shard(id);
        let lease = shard.leases.get_mut(&id)?;
        lease.checkpoint_secs = if (1..lease.ttl_secs).contains(&remaining_secs) { remaining_secs } else { 0 };
        Some(LeaseRecord { ttl_secs: lease.ttl_secs, remaining_secs: lease.checkpoint_secs })
    }
}
