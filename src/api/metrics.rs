//! Counters of the client port: one handle for each method and code, made once, so that counting is
//! one atomic addition. Names and labels are those of etcd's exporter.

mod times;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};
use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, exponential_buckets,
};
use tonic::Code;

use self::times::CallTimes;
use super::methods::Method;
use super::slow::{Ended, SlowLog};
use crate::apply::{OpResult, TxnResult};
use crate::env::Clock;
use crate::ops::traces::{TracedCall, Traces};
use crate::types::RequestError;
use crate::types::stages::{self, Stages};

/// How many gRPC codes there are, `Ok` included.
const CODES: usize = 17;

/// grpc-go's names of the codes, in their order.
const CODE_NAMES: [&str; CODES] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// The most versions that `client-api-version` may name in a label; the rest share one.
const CLIENT_VERSIONS_MAX: usize = 16;

static TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");

/// The counters of all methods.
pub struct RpcMetrics {
    methods: Vec<MethodMetrics>,
    /// `etcd_network_client_grpc_received_bytes_total`
    pub(crate) received_bytes: IntCounter,
    /// `etcd_network_client_grpc_sent_bytes_total`
    pub(crate) sent_bytes: IntCounter,
    /// `etcd_server_health_success` and `_failures`.
    health: [IntCounter; 2],
    /// `etcd_server_healthcheck`
    checks: IntGaugeVec,
    /// `etcd_server_healthchecks_total`
    checks_run: IntCounterVec,
    /// `etcd_network_server_stream_failures_total`
    streams_failed: IntCounterVec,
    /// `etcd_server_learner_promote_failures`
    promotions_failed: IntCounterVec,
    /// `etcd_mvcc_hash_rev_duration_seconds`
    pub(crate) hashes: Histogram,
    slow: SlowLog,
    traces: Option<Traces>,
    times: CallTimes,
    clock: Arc<dyn Clock>,
    txns: AtomicU64,
    txn_ranges: AtomicU64,
    client_requests: IntCounterVec,
    client_versions: parking_lot::RwLock<Vec<ClientVersion>>,
    unknown_version: [IntCounter; 2],
}

/// A version that clients name, with its counters of unary and of streaming calls.
type ClientVersion = (Box<[u8]>, [IntCounter; 2]);

/// The counters of one method.
pub(crate) struct MethodMetrics {
    pub(crate) started: IntCounter,
    pub(crate) received: IntCounter,
    pub(crate) sent: IntCounter,
    handled: [IntCounter; CODES],
}

impl MethodMetrics {
    /// The counter of calls that ended with `code`.
    pub(crate) fn handled(&self, code: Code) -> &IntCounter {
        &self.handled[code as usize % CODES]
    }
}

impl RpcMetrics {
    /// Makes the counters, all at 0, and registers them; `extensive` (`--metrics`) shows how long each method takes.
    ///
    /// # Errors
    /// A name that is registered already.
    pub fn register(registry: &Registry, clock: Arc<dyn Clock>, extensive: bool) -> prometheus::Result<Self> {
        let labels = ["grpc_type", "grpc_service", "grpc_method"];
        let by_method = |name: &str, help: &str| add(registry, IntCounterVec::new(Opts::new(name, help), &labels)?);
        let started = by_method("grpc_server_started_total", "Total number of RPCs started on the server.")?;
        let received =
            by_method("grpc_server_msg_received_total", "Total number of RPC stream messages received on the server.")?;
        let sent = by_method("grpc_server_msg_sent_total", "Total number of gRPC stream messages sent by the server.")?;
        let handled = add(
            registry,
            IntCounterVec::new(
                Opts::new(
                    "grpc_server_handled_total",
                    "Total number of RPCs completed on the server, regardless of success or failure.",
                ),
                &["grpc_type", "grpc_service", "grpc_method", "grpc_code"],
            )?,
        )?;
        let methods = Method::ALL
            .iter()
            .map(|method| {
                let (service, name, kind) = method.parts();
                let labels = [kind.label(), service, name];
                MethodMetrics {
                    started: started.with_label_values(&labels),
                    received: received.with_label_values(&labels),
                    sent: sent.with_label_values(&labels),
                    handled: CODE_NAMES.map(|code| handled.with_label_values(&[labels[0], service, name, code])),
                }
            })
            .collect();
        let client_requests = add(
            registry,
            IntCounterVec::new(
                Opts::new(
                    "etcd_server_client_requests_total",
                    "The total number of client requests per client version.",
                ),
                &["type", "client_api_version"],
            )?,
        )?;
        Ok(Self {
            methods,
            received_bytes: add(
                registry,
                IntCounter::new(
                    "etcd_network_client_grpc_received_bytes_total",
                    "The total number of bytes received from grpc clients.",
                )?,
            )?,
            sent_bytes: add(
                registry,
                IntCounter::new(
                    "etcd_network_client_grpc_sent_bytes_total",
                    "The total number of bytes sent to grpc clients.",
                )?,
            )?,
            health: [
                add(registry, IntCounter::new("etcd_server_health_failures", "Health checks that failed.")?)?,
                add(registry, IntCounter::new("etcd_server_health_success", "Health checks that passed.")?)?,
            ],
            checks: add(
                registry,
                IntGaugeVec::new(
                    Opts::new("etcd_server_healthcheck", "1 if a check of health passed when it ran last."),
                    &["type", "name"],
                )?,
            )?,
            checks_run: add(
                registry,
                IntCounterVec::new(
                    Opts::new("etcd_server_healthchecks_total", "Checks of health by how they ended."),
                    &["type", "name", "status"],
                )?,
            )?,
            streams_failed: add(
                registry,
                IntCounterVec::new(
                    Opts::new("etcd_network_server_stream_failures_total", "Streams of clients that failed."),
                    &["Type", "API"],
                )?,
            )?,
            promotions_failed: add(
                registry,
                IntCounterVec::new(
                    Opts::new("etcd_server_learner_promote_failures", "Learners that weren't given a vote, by why."),
                    &["Reason"],
                )?,
            )?,
            hashes: add(
                registry,
                Histogram::with_opts(
                    HistogramOpts::new("etcd_mvcc_hash_rev_duration_seconds", "Time to hash the store at a revision.")
                        .buckets(exponential_buckets(0.01, 2.0, 15)?),
                )?,
            )?,
            slow: SlowLog::silent(),
            traces: None,
            times: CallTimes::register(registry, extensive)?,
            clock,
            txns: AtomicU64::new(0),
            txn_ranges: AtomicU64::new(0),
            unknown_version: version_counters(&client_requests, "unknown"),
            client_requests,
            client_versions: parking_lot::RwLock::new(Vec::new()),
        })
    }

    /// The counters of a method.
    pub(crate) fn of(&self, method: Method) -> &MethodMetrics {
        &self.methods[method.number()]
    }

    /// The time, for [`RpcMetrics::ended`].
    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Counts a call that has ended, and how long it took, which is given back.
    pub(crate) fn ended(&self, method: Method, code: Code, begun: Instant) -> Duration {
        let took = self.clock.now().saturating_duration_since(begun);
        self.of(method).handled(code).inc();
        self.times.observe(method, code == Code::Ok, took);
        self.stream_ended(method, code);
        took
    }

    /// Counts a watch, or renewals, of which a message couldn't be read or was refused. That a client leaves is no failure.
    fn stream_ended(&self, method: Method, code: Code) {
        let api = match method {
            Method::Watch => "watch",
            Method::LeaseKeepAlive => "lease-keepalive",
            _ => return,
        };
        if matches!(code, Code::Internal | Code::ResourceExhausted | Code::DataLoss) {
            self.streams_failed.with_label_values(&["receive", api]).inc();
        }
    }

    /// Has slow calls logged, and calls traced.
    pub fn watched(self, slow: SlowLog, traces: Option<Traces>) -> Self {
        Self { slow, traces, ..self }
    }

    /// Looks at a unary call of `headers` that has ended: was it slow, is it traced? Nearly always it is neither.
    pub(crate) fn after(&self, call: &mut Ended<'_>, headers: &HeaderMap) {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let slow = self.slow.is_slow(call.took);
        let traces = self.traces.as_ref().filter(|traces| traces.wants(text(&TRACE_PARENT)));
        if !slow && traces.is_none() {
            return;
        }
        call.stages = stages::stages();
        let begun = self.clock.wall().checked_sub(call.took).unwrap_or(SystemTime::UNIX_EPOCH);
        if slow {
            self.slow.look(self.clock.now(), begun, call);
        }
        if let Some(traces) = traces {
            let (service, method, _) = call.method.parts();
            let stages = call.stages.iter().flat_map(Stages::each);
            traces.record(TracedCall {
                service,
                method,
                code: call.code as i32,
                parent: text(&TRACE_PARENT),
                state: text(&TRACE_STATE),
                begun,
                took: call.took,
                stages: stages.map(|(stage, from, took)| (stage.name(), from, took)),
            });
        }
    }

    /// Counts a message of `len` bytes from a client.
    pub(crate) fn received(&self, method: Method, len: usize) {
        self.of(method).received.inc();
        self.received_bytes.inc_by(len as u64);
    }

    /// Counts a look at `/health`.
    pub(crate) fn health(&self, healthy: bool) {
        self.health[usize::from(healthy)].inc();
    }

    /// Counts what a transaction did that only read.
    pub(crate) fn txn(&self, result: &TxnResult) {
        let ranges = result.responses.iter().filter(|op| matches!(op, OpResult::Range { .. })).count();
        if ranges > 0 {
            self.txn_ranges.fetch_add(ranges as u64, Ordering::Relaxed);
        }
        if result.responses.len() > 1 {
            self.txns.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// For `etcd_server_learner_promote_successes`: promotions that were answered here.
    pub fn promotions(&self) -> u64 {
        self.of(Method::MemberPromote).handled(Code::Ok).get()
    }

    /// Counts a promotion that failed.
    pub(crate) fn promotion_failed(&self, error: &RequestError) {
        // etcd's label is the text of its inner error.
        let why = match error {
            RequestError::MemberNotFound => "membership: ID not found".to_owned(),
            RequestError::NotLearner => "membership: can only promote a learner member".to_owned(),
            error => error.to_string(),
        };
        self.promotions_failed.with_label_values(&[&why]).inc();
    }

    /// Counts one of the checks behind a page (`livez`, `readyz`), and shows how it ended.
    pub(crate) fn check(&self, page: &str, check: &str, passed: bool) {
        self.checks.with_label_values(&[page, check]).set(passed.into());
        let status = if passed { "success" } else { "error" };
        self.checks_run.with_label_values(&[page, check, status]).inc();
    }

    /// For `etcd_mvcc_txn_total`: transactions of several operations that only read.
    pub fn txns(&self) -> u64 {
        self.txns.load(Ordering::Relaxed)
    }

    /// For `etcd_mvcc_range_total`: ranges that were answered, those in transactions among them.
    pub fn ranges(&self) -> u64 {
        let answered = |method| self.of(method).handled(Code::Ok).get();
        let alone = answered(Method::KvRange) + answered(Method::KvRangeStream);
        alone + self.txn_ranges.load(Ordering::Relaxed)
    }

    /// Counts a request by the version that its client names (`None`: it names none).
    pub(crate) fn client_request(&self, streaming: bool, version: Option<&str>) {
        let slot = usize::from(streaming);
        let Some(version) = version else {
            self.unknown_version[slot].inc();
            return;
        };
        if let Some((_, counters)) = self.client_versions.read().iter().find(|(name, _)| **name == *version.as_bytes())
        {
            counters[slot].inc();
            return;
        }
        let mut versions = self.client_versions.write();
        // A label for each text that someone sends would grow without bound.
        let name = if versions.len() < CLIENT_VERSIONS_MAX && version.len() <= 32 { version } else { "other" };
        let counters = version_counters(&self.client_requests, name);
        counters[slot].inc();
        if name == version && versions.iter().all(|(known, _)| **known != *version.as_bytes()) {
            versions.push((version.as_bytes().into(), counters));
        }
    }
}

fn version_counters(requests: &IntCounterVec, version: &str) -> [IntCounter; 2] {
    ["unary", "stream"].map(|kind| requests.with_label_values(&[kind, version]))
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> prometheus::Result<C> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

impl std::fmt::Debug for RpcMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RpcMetrics").field("methods", &self.methods.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::SystemClock;
    use crate::ops::metrics::{Metrics, MetricsOptions};
    use crate::types::MemberId;

    #[test]
    fn the_families_that_etcd_exports_are_there() {
        let metrics = Metrics::new(&MetricsOptions {
            member: MemberId(1),
            server_version: "3.7.1",
            cluster_version: "3.7",
            rusd_version: "0.1.0",
        })
        .unwrap();
        let calls = RpcMetrics::register(metrics.registry(), Arc::new(SystemClock), true).unwrap();
        // Those that etcd, too, shows from the first use on.
        calls.ended(Method::KvRange, Code::Ok, calls.now());
        calls.client_request(false, None);
        metrics.apply.observe(crate::ops::metrics::Operation::Put, true, std::time::Duration::ZERO, 1);
        calls.check("readyz", "linearizable_read", true);
        let failed = [RequestError::LearnerNotReady, RequestError::MemberNotFound, RequestError::NotLearner];
        failed.iter().for_each(|error| calls.promotion_failed(error));
        calls.ended(Method::LeaseKeepAlive, Code::ResourceExhausted, calls.now());
        metrics.sample_alarms(|| vec![(MemberId(1), "NOSPACE")]);
        metrics.peers.sample_members(Vec::new);
        let peer = metrics.peers.of(MemberId(2));
        peer.send_failed();
        peer.receive_failed();
        peer.connected();
        peer.disconnected();
        for (is_sent, took) in [true, false].into_iter().flat_map(|way| [(way, None), (way, Some(Default::default()))])
        {
            peer.snapshot_begun(is_sent);
            peer.snapshot_ended(is_sent, took);
        }
        let text = metrics.encode().unwrap();
        for why in
            ["etcdserver: can only promote a learner member which is in sync with leader", "membership: ID not found"]
        {
            assert!(text.contains(&format!("etcd_server_learner_promote_failures{{Reason=\"{why}\"}} 1\n")), "{why}");
        }
        for line in include_str!("metrics/etcd_names.txt").lines().filter(|line| !line.starts_with('#')) {
            assert!(text.contains(&format!("# TYPE {line}\n")), "{line}");
        }
        // And all of them, rusd's own too, are as dashboards know them: name, type, labels.
        let shown: Vec<String> = metrics.registry().gather().iter().map(described).collect();
        let known: Vec<&str> = include_str!("metrics/families.txt").lines().collect();
        assert_eq!(shown, known, "\n{}\n", shown.join("\n"));
    }

    fn described(family: &prometheus::proto::MetricFamily) -> String {
        let labels = family.get_metric().iter().flat_map(|metric| metric.get_label().iter().map(|label| label.name()));
        let labels: std::collections::BTreeSet<_> = labels.collect();
        let kind = format!("{:?}", family.get_field_type()).to_lowercase();
        let labels: Vec<_> = labels.into_iter().collect();
        format!("{} {kind} {}", family.name(), labels.join(",")).trim_end().to_owned()
    }

    #[test]
    fn every_method_and_code_is_there_from_the_start() {
        let registry = Registry::new();
        let metrics = RpcMetrics::register(&registry, Arc::new(SystemClock), true).unwrap();
        metrics.of(Method::KvPut).handled(Code::ResourceExhausted).inc();
        let families = registry.gather();
        let handled = families.iter().find(|family| family.name() == "grpc_server_handled_total").unwrap();
        assert_eq!(handled.get_metric().len(), Method::ALL.len() * CODES);
        let put = handled.get_metric().iter().find(|metric| metric.get_counter().get_value() > 0.0).unwrap();
        let labels: Vec<_> = put.get_label().iter().map(|label| label.value()).collect();
        assert_eq!(labels, ["ResourceExhausted", "Put", "etcdserverpb.KV", "unary"]);
    }

    #[test]
    fn client_versions_are_bounded() {
        let registry = Registry::new();
        let metrics = RpcMetrics::register(&registry, Arc::new(SystemClock), true).unwrap();
        for version in 0..1000 {
            metrics.client_request(false, Some(&version.to_string()));
        }
        let families = registry.gather();
        let requests = families.iter().find(|family| family.name() == "etcd_server_client_requests_total").unwrap();
        assert!(requests.get_metric().len() <= 2 * (CLIENT_VERSIONS_MAX + 2));
    }
}
