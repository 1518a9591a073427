//! What has happened to leases since the start, for whoever shows figures.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that only grow.
#[derive(Debug, Default)]
pub struct LeaseCounts {
    granted: AtomicU64,
    revoked: AtomicU64,
    renewed: AtomicU64,
    expired: AtomicU64,
}

impl LeaseCounts {
    /// Leases granted.
    pub fn granted(&self) -> u64 {
        self.granted.load(Ordering::Relaxed)
    }

    /// Leases that are gone, by a client's wish or because they ran out.
    pub fn revoked(&self) -> u64 {
        self.revoked.load(Ordering::Relaxed)
    }

    /// Renewals here.
    pub fn renewed(&self) -> u64 {
        self.renewed.load(Ordering::Relaxed)
    }

    /// Leases that this member ended because they ran out.
    pub fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }

    pub(super) fn add_granted(&self) {
        self.granted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_revoked(&self) {
        self.revoked.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_renewed(&self) {
        self.renewed.fetch_add(1, Ordering::Relaxed);
    }

    /// For whoever proposes the ends of leases, once one is applied.
    pub fn add_expired(&self, leases: usize) {
        self.expired.fetch_add(leases as u64, Ordering::Relaxed);
    }
}
