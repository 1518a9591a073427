//! `Times`: how long things took, at the cost of two relaxed additions each.
//!
//! ```text
//! observe ─► counts by fine bounds, sum ─► at a scrape: the histogram of each family that asks
//! ```
//! The fine bounds hold those of all of etcd's families of durations, so that one observation shows in
//! several of them, and exactly. No lock, no label, no floating point on the way of a request.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// Nanoseconds; 0.1 ms doubled up to 52 s: `etcd_server_apply_duration_seconds` and `…_range_duration_seconds`.
pub const APPLY_BOUNDS: [u64; 20] = doubled(100_000);

/// Nanoseconds; 1 ms doubled up to 8 s: `etcd_server_request_duration_seconds`.
pub const REQUEST_BOUNDS: [u64; 14] = doubled(1_000_000);

/// Nanoseconds; Prometheus' usual ones: `grpc_server_handling_seconds`.
pub const HANDLING_BOUNDS: [u64; 11] = [
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Nanoseconds; what [`STAGE_BOUNDS`] has below [`APPLY_BOUNDS`].
const LOW_BOUNDS: [u64; 3] = doubled(12_500);

/// Nanoseconds; 12.5 µs doubled up to 52 s: rusd's own.
pub(super) const STAGE_BOUNDS: [u64; 23] = doubled(12_500);

const FINE: usize = LOW_BOUNDS.len() + APPLY_BOUNDS.len() + REQUEST_BOUNDS.len() + HANDLING_BOUNDS.len();

/// All of the above, ascending.
const FINE_BOUNDS: [u64; FINE] = merged();

const fn doubled<const N: usize>(first: u64) -> [u64; N] {
    let mut bounds = [first; N];
    let mut at = 1;
    while at < N {
        bounds[at] = bounds[at - 1] * 2;
        at += 1;
    }
    bounds
}

const fn merged() -> [u64; FINE] {
    let mut bounds = [0; FINE];
    let mut len = 0;
    let mut source = 0;
    while source < FINE {
        let (low, apply, request) = (LOW_BOUNDS.len(), APPLY_BOUNDS.len(), REQUEST_BOUNDS.len());
        let bound = if source < low {
            LOW_BOUNDS[source]
        } else if source < low + apply {
            APPLY_BOUNDS[source - low]
        } else if source < low + apply + request {
            REQUEST_BOUNDS[source - low - apply]
        } else {
            HANDLING_BOUNDS[source - low - apply - request]
        };
        let mut at = len;
        while at > 0 && bounds[at - 1] > bound {
            bounds[at] = bounds[at - 1];
            at -= 1;
        }
        bounds[at] = bound;
        len += 1;
        source += 1;
    }
    bounds
}

/// Durations of one kind.
#[derive(Debug)]
pub struct Times {
    /// By fine bound, the last one for what is above all.
    counts: [AtomicU64; FINE + 1],
    sum_ns: AtomicU64,
}

impl Default for Times {
    fn default() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; FINE + 1], sum_ns: AtomicU64::new(0) }
    }
}

impl Times {
    /// Notes `count` things that took `took` each.
    pub fn observe(&self, took: Duration, count: u64) {
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let at = FINE_BOUNDS.partition_point(|bound| *bound < took_ns);
        self.counts[at].fetch_add(count, Ordering::Relaxed);
        self.sum_ns.fetch_add(took_ns.wrapping_mul(count), Ordering::Relaxed);
    }

    /// Whether nothing was noted yet.
    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| count.load(Ordering::Relaxed) == 0)
    }

    /// The histogram of `all` together, with one of the lists of bounds above.
    pub fn histogram(all: &[&Self], bounds_ns: &[u64]) -> Histogram {
        // Buckets first and the total from the same loads, so that no bucket is above the total.
        let counts: Vec<u64> =
            (0..=FINE).map(|at| all.iter().map(|times| times.counts[at].load(Ordering::Relaxed)).sum()).collect();
        let up_to = |bound: u64| counts.iter().zip(FINE_BOUNDS).filter(move |(_, fine)| *fine <= bound).map(|(n, _)| n);
        let buckets = bounds_ns.iter().map(|bound| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(seconds(*bound));
            bucket.set_cumulative_count(up_to(*bound).sum());
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(counts.iter().sum());
        histogram.set_sample_sum(seconds(all.iter().map(|times| times.sum_ns.load(Ordering::Relaxed)).sum()));
        histogram
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// A family of histograms with labels (name and value).
pub fn histogram_family<'a>(
    name: &str,
    help: &str,
    series: impl Iterator<Item = (Vec<(&'a str, &'a str)>, Histogram)>,
) -> MetricFamily {
    let metrics = series.map(|(labels, histogram)| {
        let mut labels: Vec<LabelPair> = labels
            .into_iter()
            .map(|(name, value)| {
                let mut label = LabelPair::default();
                label.set_name(name.to_owned());
                label.set_value(value.to_owned());
                label
            })
            .collect();
        labels.sort_by(|a, b| a.name().cmp(b.name()));
        let mut metric = Metric::default();
        metric.set_label(labels);
        metric.set_histogram(histogram);
        metric
    });
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(MetricType::HISTOGRAM);
    family.set_metric(metrics.collect());
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fine_bounds_are_ascending_and_hold_all_others() {
        assert!(FINE_BOUNDS.is_sorted_by(|a, b| a < b));
        for bound in STAGE_BOUNDS.iter().chain(&APPLY_BOUNDS).chain(&REQUEST_BOUNDS).chain(&HANDLING_BOUNDS) {
            assert!(FINE_BOUNDS.contains(bound), "{bound}");
        }
    }

    #[test]
    fn every_family_counts_exactly() {
        let times = Times::default();
        assert!(times.is_empty());
        // At a bound, just above one, and above all.
        for took in [0, 1_000_000, 1_000_001, 7_000_000, 100_000_000_000] {
            times.observe(Duration::from_nanos(took), 1);
        }
        times.observe(Duration::from_millis(300), 10);
        for bounds in [&APPLY_BOUNDS[..], &REQUEST_BOUNDS, &HANDLING_BOUNDS] {
            let histogram = Times::histogram(&[&times], bounds);
            assert_eq!(histogram.get_sample_count(), 15);
            for (bucket, bound) in histogram.get_bucket().iter().zip(bounds) {
                let took = [0, 1_000_000, 1_000_001, 7_000_000, 100_000_000_000];
                let few = took.iter().filter(|took| *took <= bound).count() as u64;
                let many = if 300_000_000 <= *bound { 10 } else { 0 };
                assert_eq!(bucket.cumulative_count(), few + many, "up to {bound} ns");
            }
        }
        let two = Times::histogram(&[&times, &times], &REQUEST_BOUNDS);
        assert_eq!(two.get_sample_count(), 30);
        assert!((two.get_sample_sum() - 2.0 * 103.009_000_001).abs() < 1e-9);
        assert_eq!(two.get_bucket()[3].upper_bound().to_string(), "0.008");
    }
}
