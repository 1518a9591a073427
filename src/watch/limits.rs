//! `WatchLimits`: the bounds and times of the watch room.

use std::time::Duration;

use crate::types::Limits;

/// Bounds on streams and what they hold.
#[derive(Clone, Debug)]
pub struct WatchLimits {
    /// Bytes that may wait in one stream's mailbox, and again the most that one round of reading history may
    /// hold for it (so a stream never holds more than twice this, and one revision that is larger by itself).
    pub stream_bytes_max: usize,
    /// A response with `fragment` is cut above this many bytes: `--max-request-bytes` and the transport's share.
    pub fragment_bytes: usize,
    /// Watchers on one stream.
    pub stream_watchers_max: usize,
    /// Bytes of keys and range ends of one stream's watchers.
    pub stream_ranges_bytes_max: usize,
    /// Watchers on all streams.
    pub watchers_max: usize,
    /// Bytes of keys and range ends of all streams' watchers.
    pub ranges_bytes_max: usize,
    /// Streams that may read history at the same time; the others wait for their turn.
    pub replays_max: usize,
    /// Bytes of encoded events with previous pairs that the hub keeps for the streams that come after the first.
    pub prev_cache_bytes_max: usize,
    /// `--watch-progress-notify-interval`; at most 10 % are added for each stream.
    pub progress_interval: Duration,
}

impl WatchLimits {
    /// The shortest progress interval that etcd takes.
    pub const PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);
    /// etcd's default progress interval.
    pub const PROGRESS_INTERVAL_DEFAULT: Duration = Duration::from_secs(600);

    /// From the server's limits and the flag's interval, which is raised to the minimum.
    pub fn new(limits: &Limits, progress_interval: Duration) -> Self {
        Self {
            stream_bytes_max: limits.watch_stream_bytes_max,
            fragment_bytes: limits.request_bytes_max + Limits::TRANSPORT_OVERHEAD_BYTES,
            stream_watchers_max: limits.stream_watchers_max,
            stream_ranges_bytes_max: limits.watch_ranges_bytes_max / 4,
            watchers_max: limits.watchers_max,
            ranges_bytes_max: limits.watch_ranges_bytes_max,
            replays_max: 4,
            prev_cache_bytes_max: 2 * 1024 * 1024,
            progress_interval: progress_interval.max(Self::PROGRESS_INTERVAL_MIN),
        }
    }
}

impl Default for WatchLimits {
    fn default() -> Self {
        Self::new(&Limits::default(), Self::PROGRESS_INTERVAL_DEFAULT)
    }
}
