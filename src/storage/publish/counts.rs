//! What the store has done since it was opened, for whoever shows figures.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of committed changes. The writer adds, once a command; anyone may read.
#[derive(Debug, Default)]
pub struct StoreCounts {
    puts: AtomicU64,
    put_bytes: AtomicU64,
    deletes: AtomicU64,
    reclaimed: AtomicU64,
}

impl StoreCounts {
    /// Pairs put.
    pub fn puts(&self) -> u64 {
        self.puts.load(Ordering::Relaxed)
    }

    /// Bytes of their keys and values.
    pub fn put_bytes(&self) -> u64 {
        self.put_bytes.load(Ordering::Relaxed)
    }

    /// Keys deleted, those of ended leases among them.
    pub fn deletes(&self) -> u64 {
        self.deletes.load(Ordering::Relaxed)
    }

    /// Records that compaction has removed.
    pub fn reclaimed(&self) -> u64 {
        self.reclaimed.load(Ordering::Relaxed)
    }

    pub(in crate::storage) fn add_puts(&self, puts: u64, bytes: u64) {
        self.puts.fetch_add(puts, Ordering::Relaxed);
        self.put_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(in crate::storage) fn add_deletes(&self, deletes: u64) {
        self.deletes.fetch_add(deletes, Ordering::Relaxed);
    }

    pub(in crate::storage) fn add_reclaimed(&self, records: u64) {
        self.reclaimed.fetch_add(records, Ordering::Relaxed);
    }
}
