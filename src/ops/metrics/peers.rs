//! What passes between this member and each of the others, under etcd's names.
//!
//! The series of a member appear with the first thing that concerns it, as in etcd. Who the members are is asked at
//! each scrape.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    exponential_buckets,
};

use super::handles::add;
use super::listed::{Items, Listed};
use crate::types::MemberId;

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
    /// Those that are received, and those that are sent.
    snapshots: [SnapshotMetrics; 2],
    /// `etcd_network_known_peers`: asked for at a scrape.
    members: Items,
}

/// Snapshots that go one way.
#[derive(Clone)]
struct SnapshotMetrics {
    whole: IntCounterVec,
    failures: IntCounterVec,
    under_way: IntGaugeVec,
    took: HistogramVec,
}

impl SnapshotMetrics {
    fn register(registry: &Registry, way: &str, label: &str) -> prometheus::Result<Self> {
        let opts = |name: &str, help: &str| Opts::new(format!("etcd_network_snapshot_{way}_{name}"), help);
        let took = HistogramOpts::from(opts(
            "total_duration_seconds",
            "Time of a snapshot until it was taken in, in seconds.",
        ));
        let took = took.buckets(exponential_buckets(0.1, 2.0, 10)?);
        let labels = &[label];
        Ok(Self {
            whole: add(registry, IntCounterVec::new(opts("success", "Snapshots that were taken in."), labels)?)?,
            failures: add(registry, IntCounterVec::new(opts("failures", "Snapshots that weren't taken in."), labels)?)?,
            under_way: add(registry, IntGaugeVec::new(opts("inflights_total", "Snapshots under way."), labels)?)?,
            took: add(registry, HistogramVec::new(took, labels)?)?,
        })
    }
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
        let members = Items::default();
        let known = ("etcd_network_known_peers", "1 for each member that is known.");
        registry.register(Box::new(Listed::new(known.0, known.1, ["Local", "Remote"], members.clone())?))?;
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
            snapshots: [
                SnapshotMetrics::register(registry, "receive", "From")?,
                SnapshotMetrics::register(registry, "send", "To")?,
            ],
            members,
        })
    }

    /// Says where the members are known; the first source stays. As long as none is, this one is.
    pub fn sample_members(&self, source: impl Fn() -> Vec<MemberId> + Send + Sync + 'static) {
        let local = self.local.clone();
        self.members.sample(move || match &source()[..] {
            [] => vec![[local.clone(), local.clone()]],
            members => members.iter().map(|member| [local.clone(), member.to_string()]).collect(),
        });
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

    /// Notes that a snapshot is under way, to the member or from it.
    pub fn snapshot_begun(&self, is_sent: bool) {
        self.families.snapshots[usize::from(is_sent)].under_way.with_label_values(&[&self.remote]).inc();
    }

    /// Notes that it has ended: after so long if it was taken in, else `None`.
    pub fn snapshot_ended(&self, is_sent: bool, whole_after: Option<Duration>) {
        let (of, remote) = (&self.families.snapshots[usize::from(is_sent)], &[&self.remote]);
        of.under_way.with_label_values(remote).dec();
        match whole_after {
            Some(took) => {
                of.whole.with_label_values(remote).inc();
                of.took.with_label_values(remote).observe(took.as_secs_f64());
            }
            None => of.failures.with_label_values(remote).inc(),
        }
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
        for (is_sent, way, label) in [(true, "send", "To"), (false, "receive", "From")] {
            let series = |name: &str, value: u64| {
                assert!(
                    shown().contains(&format!("etcd_network_snapshot_{way}_{name}{{{label}=\"2\"}} {value}\n")),
                    "{}",
                    shown()
                );
            };
            peer.snapshot_begun(is_sent);
            series("inflights_total", 1);
            peer.snapshot_ended(is_sent, None);
            series("failures", 1);
            assert!(!shown().contains(&format!("snapshot_{way}_success{{")), "none was taken in");
            peer.snapshot_begun(is_sent);
            peer.snapshot_ended(is_sent, Some(Duration::from_secs(2)));
            for (name, value) in [("success", 1), ("failures", 1), ("inflights_total", 0)] {
                series(name, value);
            }
            series("total_duration_seconds_sum", 2);
        }
        metrics.sample_members(|| vec![MemberId(1), MemberId(2)]);
        assert!(shown().contains("etcd_network_known_peers{Local=\"1\",Remote=\"2\"} 1\n"));
    }
}
