//! Values that say who this is by a label and stand at 1 for ever.

use prometheus::{IntGaugeVec, Opts, Registry};

use super::MetricsOptions;
use super::handles::add;
use crate::ops::config::{GATES, Stage};

/// Registers them.
pub(super) fn register(registry: &Registry, options: &MetricsOptions) -> prometheus::Result<()> {
    let member = options.member.to_string();
    for (name, help, label, value) in [
        ("etcd_server_version", "The version of etcd that is served.", "server_version", options.server_version),
        ("etcd_cluster_version", "The version of the cluster.", "cluster_version", options.cluster_version),
        ("etcd_server_go_version", "Not built with Go.", "server_go_version", "none"),
        ("etcd_server_id", "The id of this member.", "server_id", member.as_str()),
        ("go_info", "Not built with Go.", "version", "none"),
        ("rusd_build_info", "The version of rusd.", "version", options.rusd_version),
    ] {
        let family = add(registry, IntGaugeVec::new(Opts::new(name, help), &[label])?)?;
        family.with_label_values(&[value]).set(1);
    }
    features(registry)?;
    scrapes(registry)
}

/// What is in force here, whatever was asked.
fn features(registry: &Registry) -> prometheus::Result<()> {
    let options_of = Opts::new("etcd_server_feature_enabled", "1 where what a feature gate stands for is done.");
    let family = add(registry, IntGaugeVec::new(options_of, &["name", "stage"])?)?;
    for (name, gate, stage) in GATES {
        let stage = if stage == Stage::Alpha { "ALPHA" } else { "BETA" };
        family.with_label_values(&[name, stage]).set(gate.is_in_force().into());
    }
    for (name, stage) in [("AllAlpha", "ALPHA"), ("AllBeta", "BETA")] {
        family.with_label_values(&[name, stage]).set(0);
    }
    Ok(())
}

/// What Go's exporter says of itself; some tools take its absence for another program.
fn scrapes(registry: &Registry) -> prometheus::Result<()> {
    let family = prometheus::IntCounterVec::new(
        Opts::new("promhttp_metric_handler_requests_total", "Of Go's exporter; always 0."),
        &["code"],
    )?;
    let family = add(registry, family)?;
    for code in ["200", "500", "503"] {
        family.with_label_values(&[code]).reset();
    }
    Ok(())
}
