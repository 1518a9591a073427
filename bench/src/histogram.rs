//! A histogram of durations: 64 steps for each doubling, so a percentile is within 1.6 %.

/// Steps of one doubling.
const STEPS: u64 = 64;

/// Nanoseconds, counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Histogram {
    /// Counts one.
    pub(crate) fn add(&mut self, nanos: u64) {
        let at = slot(nanos);
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += 1;
        self.total += 1;
        self.max = self.max.max(nanos);
    }

    /// Counts all of another.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// The value that `share` (0 to 1) of all stay at or below, in milliseconds; 0 when empty.
    pub(crate) fn percentile_ms(&self, share: f64) -> f64 {
        let rank = (share * self.total as f64).ceil() as u64;
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank.max(1) {
                return value(at).min(self.max) as f64 / 1e6;
            }
        }
        0.0
    }

    /// The largest, in milliseconds.
    pub(crate) fn max_ms(&self) -> f64 {
        self.max as f64 / 1e6
    }

    /// How many were counted.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}

fn slot(nanos: u64) -> usize {
    let shift = (64 - nanos.leading_zeros()).saturating_sub(STEPS.ilog2() + 1);
    (u64::from(shift) * STEPS + (nanos >> shift)) as usize
}

/// The largest value of a slot.
fn value(slot: usize) -> u64 {
    let slot = slot as u64;
    if slot < 2 * STEPS {
        return slot;
    }
    let shift = slot / STEPS - 1;
    ((slot - shift * STEPS + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_its_slot() {
        for nanos in [0, 1, 63, 64, 127, 128, 129, 1_000, 1_000_000, 123_456_789_012] {
            let top = value(slot(nanos));
            assert!(top >= nanos && top as f64 <= nanos as f64 * 1.016 + 1.0, "{nanos} {top}");
        }
    }

    #[test]
    fn percentiles_are_near() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|ms| histogram.add(ms * 1_000_000));
        assert!((histogram.percentile_ms(0.5) - 500.0).abs() < 10.0);
        assert!((histogram.percentile_ms(0.99) - 990.0).abs() < 20.0);
        assert_eq!(histogram.max_ms(), 1000.0);
    }

    #[test]
    fn parts_add_up() {
        let (mut whole, mut parts) = (Histogram::default(), [Histogram::default(), Histogram::default()]);
        for ms in 1..=1000 {
            whole.add(ms * 1_000_000);
            parts[usize::from(ms > 900)].add(ms * 1_000_000);
        }
        let [mut sum, rest] = parts;
        sum.merge(&rest);
        assert_eq!((sum.counts, sum.total, sum.max), (whole.counts, whole.total, whole.max));
    }
}
