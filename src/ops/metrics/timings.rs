//! Durations by operation and success: etcd's two histograms with labels.
//!
//! A series appears with its first observation, as in etcd, and its handle is kept, so that no
//! label is looked up a second time.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, HistogramVec, Registry, exponential_buckets};

use super::handles::add;

macro_rules! operations {
    ($($name:ident)*) => {
        /// What is timed; its name is the label's value.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each is etcd's name of a request")]
        pub enum Operation { $($name,)* }

        const NAMES: &[&str] = &[$(stringify!($name),)*];
    };
}

operations! {
    Range Put DeleteRange Txn Compaction LeaseGrant LeaseRevoke LeaseCheckpoint Alarm Authenticate
    AuthEnable AuthDisable AuthStatus AuthUserAdd AuthUserDelete AuthUserChangePassword
    AuthUserGrantRole AuthUserRevokeRole AuthUserGet AuthUserList AuthRoleAdd AuthRoleDelete
    AuthRoleGrantPermission AuthRoleRevokePermission AuthRoleGet AuthRoleList ClusterVersionSet
    ClusterMemberAttrSet DowngradeInfoSet
}

/// One of the two histograms.
pub struct Timings {
    family: HistogramVec,
    /// The labels around the operation: before it and after it.
    labels: fn(op: &'static str, success: &'static str) -> Vec<&'static str>,
    series: Vec<[OnceLock<Histogram>; 2]>,
}

impl Timings {
    pub(super) fn apply(registry: &Registry) -> prometheus::Result<Self> {
        let options = HistogramOpts::new("etcd_server_apply_duration_seconds", "Time to apply a request, in seconds.");
        let family =
            HistogramVec::new(options.buckets(exponential_buckets(0.0001, 2.0, 20)?), &["version", "op", "success"])?;
        Self::register(registry, family, |op, success| vec!["v3", op, success])
    }

    pub(super) fn request(registry: &Registry) -> prometheus::Result<Self> {
        let options =
            HistogramOpts::new("etcd_server_request_duration_seconds", "Time to answer a request, in seconds.");
        let family = HistogramVec::new(options.buckets(exponential_buckets(0.001, 2.0, 14)?), &["type", "success"])?;
        Self::register(registry, family, |op, success| vec![op, success])
    }

    fn register(
        registry: &Registry,
        family: HistogramVec,
        labels: fn(&'static str, &'static str) -> Vec<&'static str>,
    ) -> prometheus::Result<Self> {
        let series = NAMES.iter().map(|_| Default::default()).collect();
        Ok(Self { family: add(registry, family)?, labels, series })
    }

    /// Notes how long one took.
    pub fn observe(&self, operation: Operation, success: bool, took: Duration) {
        let at = operation as usize;
        let series = self.series[at][usize::from(success)].get_or_init(|| {
            let success = if success { "true" } else { "false" };
            self.family.with_label_values(&(self.labels)(NAMES[at], success))
        });
        series.observe(took.as_secs_f64());
    }
}

impl fmt::Debug for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timings").field("operations", &self.series.len()).finish_non_exhaustive()
    }
}
