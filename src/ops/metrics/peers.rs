//! What passes between this member and each of the others, under etcd's names.
//!
//! The series of a member appear with the first thing that concerns it, as in etcd. Who the members are is asked at
//! each scrape.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    exponential_buckets,
};

use super::handles::add;
use crate::types::MemberId;

/// Where the members come from.
type Source = Box<dyn Fn() -> Vec<MemberId> + Send + Sync>;

/// The families.
#[derive(Clone)]
pub struct PeerMetrics {
    local: String,
    sent: IntCounterVec,
    received: IntCounterVec,
    sent_failures: IntCounterVec,
    received_failures: IntCounterVec,
    round_trip: HistogramVec,
    active: IntGaugeVec,
    disconnected: IntCounterVec,
    members: Arc<OnceLock<Source>>,
}

/// Those of one other member.
#[derive(Debug)]
pub struct PeerHandles {
    /// `etcd_network_peer_sent_bytes_total`
    pub sent: IntCounter,
    /// `etcd_network_peer_received_bytes_total`
    pub received: IntCounter,
    /// `etcd_network_peer_round_trip_time_seconds`
    round_trip: Histogram,
    active: IntGauge,
    connections: AtomicI64,
    /// These appear with the first failure.
    families: PeerMetrics,
    remote: String,
}

impl PeerMetrics {
    pub(super) fn register(registry: &Registry, local: MemberId) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            add(registry, IntCounterVec::new(Opts::new(format!("etcd_network_{name}"), help), labels)?)
        };
        let round_trip = HistogramOpts::new(
            "etcd_network_peer_round_trip_time_seconds",
            "Time from a heartbeat to its answer, in seconds.",
        );
        let round_trip = round_trip.buckets(exponential_buckets(0.0001, 2.0, 16)?);
        let active = Opts::new("etcd_network_active_peers", "1 while there is a connection to the member.");
        let members = Arc::new(OnceLock::new());
        let known = Known::new(local.to_string(), members.clone())?;
        registry.register(Box::new(known))?;
        Ok(Self {
            local: local.to_string(),
            sent: counter("peer_sent_bytes_total", "Bytes sent to the member.", &["To"])?,
            received: counter("peer_received_bytes_total", "Bytes received from the member.", &["From"])?,
            sent_failures: counter("peer_sent_failures_total", "Calls of the member that failed.", &["To"])?,
            received_failures: counter(
                "peer_received_failures_total",
                "Messages of the member that could not be read.",
                &["From"],
            )?,
            round_trip: add(registry, HistogramVec::new(round_trip, &["To"])?)?,
            active: add(registry, IntGaugeVec::new(active, &["Local", "Remote"])?)?,
            disconnected: counter(
                "disconnected_peers_total",
                "Times that the last connection to the member ended.",
                &["Local", "Remote"],
            )?,
            members,
        })
    }

    /// Says where the members are known; the first source stays.
    pub fn sample_members(&self, source: impl Fn() -> Vec<MemberId> + Send + Sync + 'static) {
        // A second source is a mistake of the wiring and harmless.
        let _ = self.members.set(Box::new(source));
    }

    /// The handles of another member.
    pub fn of(&self, remote: MemberId) -> PeerHandles {
        let remote = remote.to_string();
        PeerHandles {
            sent: self.sent.with_label_values(&[&remote]),
            received: self.received.with_label_values(&[&remote]),
            round_trip: self.round_trip.with_label_values(&[&remote]),
            active: self.active.with_label_values(&[&self.local, &remote]),
            connections: AtomicI64::new(0),
            families: self.clone(),
            remote,
        }
    }
}

impl fmt::Debug for PeerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerMetrics").field("local", &self.local).finish_non_exhaustive()
    }
}

impl PeerHandles {
    /// Notes a call of the member that failed.
    pub fn send_failed(&self) {
        self.families.sent_failures.with_label_values(&[&self.remote]).inc();
    }

    /// Notes a message of the member that could not be read.
    pub fn receive_failed(&self) {
        self.families.received_failures.with_label_values(&[&self.remote]).inc();
    }

    /// Notes that a heartbeat was answered.
    pub fn round_trip(&self, took: Duration) {
        self.round_trip.observe(took.as_secs_f64());
    }

    /// Notes a connection to the member.
    pub fn connected(&self) {
        self.connections.fetch_add(1, Ordering::AcqRel);
        self.active.set(1);
    }

    /// Notes the end of one.
    pub fn disconnected(&self) {
        if self.connections.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.active.set(0);
            self.families.disconnected.with_label_values(&[&self.families.local, &self.remote]).inc();
        }
    }
}

/// `etcd_network_known_peers`: asked for at a scrape.
struct Known {
    local: String,
    members: Arc<OnceLock<Source>>,
    description: Desc,
}

const KNOWN: (&str, &str) = ("etcd_network_known_peers", "1 for each member that is known.");

impl Known {
    fn new(local: String, members: Arc<OnceLock<Source>>) -> prometheus::Result<Self> {
        let labels = ["Local", "Remote"].map(str::to_owned).to_vec();
        let description = Desc::new(KNOWN.0.to_owned(), KNOWN.1.to_owned(), labels, Default::default())?;
        Ok(Self { local, members, description })
    }
}

impl Collector for Known {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let known = self.members.get().map(|members| members()).unwrap_or_default();
        let remotes: Vec<String> = match known.is_empty() {
            true => vec![self.local.clone()],
            false => known.iter().map(ToString::to_string).collect(),
        };
        let metrics = remotes.into_iter().map(|remote| {
            let labels = [("Local", self.local.clone()), ("Remote", remote)].map(|(name, value)| {
                let mut label = LabelPair::default();
                label.set_name(name.to_owned());
                label.set_value(value);
                label
            });
            let (mut metric, mut gauge) = (Metric::default(), Gauge::default());
            gauge.set_value(1.0);
            metric.set_label(labels.to_vec());
            metric.set_gauge(gauge);
            metric
        });
        let mut family = MetricFamily::default();
        family.set_name(KNOWN.0.to_owned());
        family.set_help(KNOWN.1.to_owned());
        family.set_field_type(MetricType::GAUGE);
        family.set_metric(metrics.collect());
        vec![family]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_active_while_any_connection_to_it_lives() {
        let registry = Registry::new();
        let metrics = PeerMetrics::register(&registry, MemberId(1)).expect("each name stands once");
        let peer = metrics.of(MemberId(2));
        let shown = || prometheus::TextEncoder::new().encode_to_string(&registry.gather()).expect("text");
        let active = |value| format!("etcd_network_active_peers{{Local=\"1\",Remote=\"2\"}} {value}\n");
        peer.connected();
        peer.connected();
        peer.disconnected();
        assert!(shown().contains(&active(1)) && !shown().contains("disconnected_peers_total{"), "{}", shown());
        peer.disconnected();
        assert!(shown().contains(&active(0)));
        assert!(shown().contains("etcd_network_disconnected_peers_total{Local=\"1\",Remote=\"2\"} 1\n"));
        metrics.sample_members(|| vec![MemberId(1), MemberId(2)]);
        assert!(shown().contains("etcd_network_known_peers{Local=\"1\",Remote=\"2\"} 1\n"));
    }
}
