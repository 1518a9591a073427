//! `WatchMetrics`: counters that the hub keeps and that `ops` shows.

use std::sync::atomic::{AtomicU64, Ordering};

/// Plain counters; read with [`WatchMetrics::snapshot`].
#[derive(Debug, Default)]
pub struct WatchMetrics {
    pub(crate) streams: AtomicU64,
    pub(crate) watchers: AtomicU64,
    pub(crate) slow_watchers: AtomicU64,
    pub(crate) pending_events: AtomicU64,
    pub(crate) events_total: AtomicU64,
    pub(crate) overflows_total: AtomicU64,
    pub(crate) replays_total: AtomicU64,
    pub(crate) range_bytes: AtomicU64,
    pub(crate) refused_total: AtomicU64,
    pub(crate) refused_ranges_total: AtomicU64,
}

/// What the counters were at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchFigures {
    /// Open streams (`etcd_debugging_mvcc_watch_stream_total`).
    pub streams: u64,
    /// Watchers on them (`etcd_debugging_mvcc_watcher_total`).
    pub watchers: u64,
    /// Watchers that read from history (`etcd_debugging_mvcc_slow_watcher_total`).
    pub slow_watchers: u64,
    /// Events that wait in mailboxes (`etcd_debugging_mvcc_pending_events_total`).
    pub pending_events: u64,
    /// Events written to streams since start (`etcd_debugging_mvcc_events_total`).
    pub events_total: u64,
    /// Times that a stream was too slow for its mailbox.
    pub overflows_total: u64,
    /// Rounds of reading history.
    pub replays_total: u64,
    /// Bytes of keys and range ends of all watchers.
    pub range_bytes: u64,
    /// Watchers that were too many.
    pub refused_total: u64,
    /// Watchers for whose keys and range ends there was no room.
    pub refused_ranges_total: u64,
}

impl WatchMetrics {
    /// The figures now.
    pub fn snapshot(&self) -> WatchFigures {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        WatchFigures {
            streams: load(&self.streams),
            watchers: load(&self.watchers),
            slow_watchers: load(&self.slow_watchers),
            pending_events: load(&self.pending_events),
            events_total: load(&self.events_total),
            overflows_total: load(&self.overflows_total),
            replays_total: load(&self.replays_total),
            range_bytes: load(&self.range_bytes),
            refused_total: load(&self.refused_total),
            refused_ranges_total: load(&self.refused_ranges_total),
        }
    }

    pub(crate) fn add(counter: &AtomicU64, by: u64) {
        counter.fetch_add(by, Ordering::Relaxed);
    }

    pub(crate) fn sub(counter: &AtomicU64, by: u64) {
        counter.fetch_sub(by, Ordering::Relaxed);
    }
}
