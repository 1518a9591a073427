//! `Timings`: durations by operation and success, for `etcd_server_apply_duration_seconds`.
//!
//! A series appears with its first observation, as in etcd; its numbers are there from the start.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::times::{APPLY_BOUNDS, Times, histogram_family};

macro_rules! operations {
    ($($name:ident)*) => {
        /// What is timed; its name is the label's value.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each is etcd's name of a request")]
        pub enum Operation { $($name,)* }

        impl Operation {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }

        const NAMES: &[&str] = &[$(stringify!($name),)*];
    };
}

operations! {
    Put DeleteRange Txn Compaction LeaseGrant LeaseRevoke LeaseCheckpoint Alarm
    AuthEnable AuthDisable Authenticate AuthUserAdd AuthUserDelete AuthUserChangePassword AuthUserGrantRole
    AuthUserRevokeRole AuthRoleAdd AuthRoleDelete AuthRoleGrantPermission AuthRoleRevokePermission
}

const NAME: &str = "etcd_server_apply_duration_seconds";
const HELP: &str = "Time to apply a request, in seconds.";

/// The times of all operations.
#[derive(Clone)]
pub struct Timings {
    /// By operation; those that failed, then those that succeeded.
    series: Arc<[[Times; 2]]>,
}

impl Timings {
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let timings = Self { series: NAMES.iter().map(|_| Default::default()).collect() };
        let labels = ["op", "success", "version"].map(str::to_owned).to_vec();
        let description = Desc::new(NAME.to_owned(), HELP.to_owned(), labels, Default::default())?;
        registry.register(Box::new(Shown { timings: timings.clone(), description }))?;
        Ok(timings)
    }

    /// Notes that `count` of one kind took `took` each.
    pub fn observe(&self, operation: Operation, success: bool, took: Duration, count: u64) {
        self.series[operation as usize][usize::from(success)].observe(took, count);
    }
}

impl fmt::Debug for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timings").field("operations", &self.series.len()).finish_non_exhaustive()
    }
}

/// The times as the registry sees them.
struct Shown {
    timings: Timings,
    description: Desc,
}

impl Collector for Shown {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let all = self.timings.series.iter().zip(NAMES).flat_map(|(series, name)| {
            series.iter().zip(["false", "true"]).map(move |(times, success)| (*name, success, times))
        });
        let used = all.filter(|(.., times)| !times.is_empty()).map(|(op, success, times)| {
            let labels = vec![("op", op), ("success", success), ("version", "v3")];
            (labels, Times::histogram(&[times], &APPLY_BOUNDS))
        });
        vec![histogram_family(NAME, HELP, used)]
    }
}
