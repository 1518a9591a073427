//! Metrics under etcd's names, so that its alerts and dashboards work unchanged.
//!
//! ```text
//! handles (counters, histograms) ◄─ rooms bump them      ─┐
//! figures (closures over atomics) ◄─ asked at each scrape ─┼─► registry ─► encode ─► GET /metrics
//! process, Go's names, labels set once                    ─┘
//! ```
//!
//! No request looks up a label: a handle is one atomic addition, a figure costs nothing until a
//! scrape. The counters of gRPC methods are the `api` room's and register here as well.

mod figures;
mod handles;
mod labels;
mod limits;
mod listed;
mod peers;
mod process;
mod stages;
mod times;
mod timings;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus::{Registry, TextEncoder};

use crate::types::MemberId;

pub use figures::Figure;
pub use handles::{Counters, Histograms};
pub use limits::{Limit, Number};
pub use peers::{PeerHandles, PeerMetrics};
pub use stages::StageTimes;
pub use times::{APPLY_BOUNDS, HANDLING_BOUNDS, REQUEST_BOUNDS, Times, histogram_family};
pub use timings::{Operation, Timings};

/// What some labels are made of.
#[derive(Clone, Debug)]
pub struct MetricsOptions {
    /// This member, for `etcd_server_id`.
    pub member: MemberId,
    /// For `etcd_server_version`, "3.7.1".
    pub server_version: &'static str,
    /// For `etcd_cluster_version`, "3.7".
    pub cluster_version: &'static str,
    /// rusd's own, for `rusd_build_info`.
    pub rusd_version: &'static str,
}

/// What transactions did that went through the log.
#[derive(Debug, Default)]
pub struct AppliedTxns {
    /// Those of several operations.
    pub txns: AtomicU64,
    /// Ranges in any of them.
    pub ranges: AtomicU64,
}

/// The registry and the handles into it. Made once; shared behind an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Counters to bump.
    pub counters: Counters,
    /// Durations and sizes to observe.
    pub histograms: Histograms,
    /// `etcd_server_apply_duration_seconds` by operation.
    pub apply: Timings,
    /// Calls of `Defragment` under way.
    pub defragmenting: AtomicU64,
    /// Transactions that went through the log.
    pub applied: AppliedTxns,
    /// `rusd_stage_duration_seconds`
    pub stages: StageTimes,
    /// What passes between members.
    pub peers: PeerMetrics,
    figures: Arc<figures::Figures>,
    /// `etcd_debugging_server_alarms`: asked for at a scrape.
    alarms: listed::Items,
}

impl Metrics {
    /// Registers everything that needs no other room.
    ///
    /// # Errors
    /// A name that is registered twice: a mistake in the tables that a test would find.
    pub fn new(options: &MetricsOptions) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let figures = Arc::new(figures::Figures::default());
        registry.register(Box::new(figures::FigureCollector::new(figures.clone())?))?;
        registry.register(Box::new(process::ProcessCollector::new()?))?;
        labels::register(&registry, options)?;
        let alarms = listed::Items::default();
        let raised = ("etcd_debugging_server_alarms", "1 for each alarm that is raised.");
        let raised = listed::Listed::new(raised.0, raised.1, ["server_id", "alarm_type"], alarms.clone())?;
        registry.register(Box::new(raised))?;
        Ok(Self {
            counters: Counters::register(&registry)?,
            histograms: Histograms::register(&registry)?,
            apply: Timings::register(&registry)?,
            defragmenting: AtomicU64::new(0),
            applied: AppliedTxns::default(),
            stages: StageTimes::register(&registry)?,
            peers: PeerMetrics::register(&registry, options.member)?,
            figures,
            alarms,
            registry,
        })
    }

    /// Where other rooms register collectors of their own.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Says where a figure comes from; the first source of a figure stays.
    pub fn sample(&self, figure: Figure, source: impl Fn() -> f64 + Send + Sync + 'static) {
        self.figures.set(figure, Box::new(source));
    }

    /// Says where the alarms are known that are raised, by member and kind, each once; the first source stays.
    pub fn sample_alarms(&self, source: impl Fn() -> Vec<(MemberId, &'static str)> + Send + Sync + 'static) {
        self.alarms
            .sample(move || source().into_iter().map(|(member, kind)| [member.to_string(), kind.into()]).collect());
    }

    /// Shows limits; once.
    ///
    /// # Errors
    /// They are shown already.
    pub fn show_limits(&self, limits: Vec<Limit>) -> prometheus::Result<()> {
        self.registry.register(Box::new(limits::LimitCollector::new(limits)?))
    }

    /// The text of `GET /metrics` (Prometheus text format 0.0.4).
    ///
    /// # Errors
    /// Only when a collector made an inconsistent family.
    pub fn encode(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics() -> Metrics {
        Metrics::new(&MetricsOptions {
            member: MemberId(0x8e9e_05c5_2164_694d),
            server_version: "3.7.1",
            cluster_version: "3.7",
            rusd_version: "0.1.0",
        })
        .expect("no name stands twice")
    }

    #[test]
    fn a_figure_is_asked_at_each_scrape() {
        let metrics = metrics();
        assert!(metrics.encode().expect("text").contains("etcd_server_has_leader 0\n"));
        metrics.sample(Figure::HasLeader, || 1.0);
        metrics.sample(Figure::HasLeader, || 7.0);
        assert!(metrics.encode().expect("text").contains("etcd_server_has_leader 1\n"));
    }

    #[test]
    fn a_limit_shows_with_its_flag() {
        let metrics = metrics();
        let limit = Limit { flag: "max-leases", max: 5, used: Box::new(|| 3), refused: Box::new(|| 2) };
        metrics.show_limits(vec![limit]).expect("once");
        let text = metrics.encode().expect("text");
        for line in [
            "rusd_limit{limit=\"max-leases\"} 5",
            "rusd_limit_used{limit=\"max-leases\"} 3",
            "rusd_limit_refused_total{limit=\"max-leases\"} 2",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line} in\n{text}");
        }
        assert!(metrics.show_limits(Vec::new()).is_err());
    }

    #[test]
    fn handles_show_in_the_text() {
        let metrics = metrics();
        metrics.counters.slow_apply.inc();
        metrics.histograms.wal_fsync.observe(0.003);
        metrics.apply.observe(Operation::Put, true, std::time::Duration::from_millis(1), 2);
        let text = metrics.encode().expect("text");
        for line in [
            "etcd_server_slow_apply_total 1",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.002\"} 0",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.004\"} 1",
            "etcd_server_apply_duration_seconds_count{op=\"Put\",success=\"true\",version=\"v3\"} 2",
            "etcd_server_id{server_id=\"8e9e05c52164694d\"} 1",
            "etcd_server_version{server_version=\"3.7.1\"} 1",
            "etcd_server_feature_enabled{name=\"FastLeaseKeepAlive\",stage=\"BETA\"} 1",
            "etcd_server_feature_enabled{name=\"LeaseCheckpoint\",stage=\"ALPHA\"} 1",
            "etcd_server_feature_enabled{name=\"TxnModeWriteWithSharedBuffer\",stage=\"BETA\"} 0",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line} in\n{text}");
        }
    }
}
