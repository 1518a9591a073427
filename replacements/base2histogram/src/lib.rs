//! openraft counts batch sizes with the crate of this name, whose first histogram fills 32 MiB of
//! tables that stay in memory (measured by page faults: 72 % of all that an empty server touched).
//! rusd reads none of these statistics and has its own metrics, so this one keeps nothing.
//!
//! Only what openraft 0.10.0-alpha.37 calls is here; another version of it fails to compile rather
//! than to count.

use std::fmt;
use std::marker::PhantomData;

/// Takes values and forgets them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram<T = ()>(PhantomData<T>);

impl<T> Histogram<T> {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self(PhantomData)
    }

    /// Forgets a value.
    pub fn record(&mut self, _value: u64) {}

    /// Forgets many of one value.
    pub fn record_n(&mut self, _value: u64, _count: u64) {}

    /// Nothing was kept.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats::default()
    }
}

/// What an empty histogram says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as the percentiles they are")]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

/// A chart of nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsciiChart;

impl AsciiChart {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self
    }

    /// Stays empty.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "the name that openraft calls")]
    pub fn add<T>(self, _name: impl AsRef<str>, _histogram: Histogram<T>) -> Self {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not kept")
    }
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not kept")
    }
}
