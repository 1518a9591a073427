//! How long calls took: noted once for each, shown in the three families that etcd has for it.
//!
//! ```text
//! CallGuard's end ─► CallTimes of the method (failed, succeeded) ─┬► etcd_server_request_duration_seconds
//!                                                                 ├► etcd_server_range_duration_seconds
//!                                                                 └► grpc_server_handling_seconds (--metrics=extensive)
//! ```

use std::sync::Arc;
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Registry, Result};

use crate::api::methods::Method;
use crate::ops::metrics::{APPLY_BOUNDS, HANDLING_BOUNDS, REQUEST_BOUNDS, Times, histogram_family};

const REQUEST: (&str, &str) = ("etcd_server_request_duration_seconds", "Time to answer a request, in seconds.");
const RANGE: (&str, &str) = ("etcd_server_range_duration_seconds", "Time to answer a range, in seconds.");
const HANDLING: (&str, &str) = (
    "grpc_server_handling_seconds",
    "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server.",
);

/// The times of all methods.
#[derive(Clone)]
pub(super) struct CallTimes {
    /// By method; those that failed, then those that succeeded.
    methods: Arc<[[Times; 2]]>,
}

impl CallTimes {
    /// Nothing yet; `extensive` shows every method.
    pub(super) fn register(registry: &Registry, extensive: bool) -> Result<Self> {
        let times = Self { methods: Method::ALL.iter().map(|_| Default::default()).collect() };
        let shown = Shown { times: times.clone(), extensive, descriptions: descriptions(extensive)? };
        registry.register(Box::new(shown))?;
        Ok(times)
    }

    /// Notes a call that has ended.
    pub(super) fn observe(&self, method: Method, success: bool, took: Duration) {
        self.methods[method.number()][usize::from(success)].observe(took, 1);
    }
}

/// What etcd calls a request of this method in `etcd_server_request_duration_seconds`; `None` if it isn't timed there.
fn request_type(method: Method) -> Option<&'static str> {
    Some(match method {
        Method::KvRange => "Range",
        Method::KvPut => "Put",
        Method::KvTxn => "Txn",
        Method::KvDeleteRange => "DeleteRange",
        Method::KvCompact => "Compaction",
        Method::LeaseGrant => "LeaseGrant",
        Method::LeaseRevoke => "LeaseRevoke",
        Method::Alarm => "Alarm",
        _ => return None,
    })
}

fn descriptions(extensive: bool) -> Result<Vec<Desc>> {
    let labels: [(_, &[&str]); 3] = [
        (REQUEST, &["success", "type"]),
        (RANGE, &["success"]),
        (HANDLING, &["grpc_method", "grpc_service", "grpc_type"]),
    ];
    let shown = labels.into_iter().take(if extensive { 3 } else { 2 });
    shown
        .map(|((name, help), labels)| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(name.to_owned(), help.to_owned(), labels, Default::default())
        })
        .collect()
}

/// The times as the registry sees them.
struct Shown {
    times: CallTimes,
    extensive: bool,
    descriptions: Vec<Desc>,
}

impl Collector for Shown {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let methods = || Method::ALL.iter().zip(self.times.methods.iter());
        let outcomes =
            |times| std::iter::zip(times, ["false", "true"]).filter(|(times, _): &(&Times, _)| !times.is_empty());
        let request =
            methods().filter_map(|(method, times)| Some((request_type(*method)?, times))).flat_map(|(kind, times)| {
                outcomes(times).map(move |(times, success)| {
                    (vec![("success", success), ("type", kind)], Times::histogram(&[times], &REQUEST_BOUNDS))
                })
            });
        let range = outcomes(&self.times.methods[Method::KvRange.number()])
            .map(|(times, success)| (vec![("success", success)], Times::histogram(&[times], &APPLY_BOUNDS)));
        let mut families =
            vec![histogram_family(REQUEST.0, REQUEST.1, request), histogram_family(RANGE.0, RANGE.1, range)];
        if self.extensive {
            let handling = methods().map(|(method, [failed, succeeded])| {
                let (service, name, kind) = method.parts();
                let labels = vec![("grpc_method", name), ("grpc_service", service), ("grpc_type", kind.label())];
                (labels, Times::histogram(&[failed, succeeded], &HANDLING_BOUNDS))
            });
            families.push(histogram_family(HANDLING.0, HANDLING.1, handling));
        }
        families
    }
}
