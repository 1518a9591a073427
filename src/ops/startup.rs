//! What a process asks of the system before it serves, and the line that says what it was started with: etcd's tests
//! and people look settings up in it.

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit};

use super::config::{Config, Url};

fn join(urls: &[Url]) -> String {
    urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Whatever is made from here on is its owner's alone, by whomever it is made: an engine opens its files by itself.
/// For after the log's own files are open, which others may be there to read.
pub fn keep_private() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// Lets the process open as many files as it may allow itself, as programs written in Go do: service managers start
/// with few, for the sake of old ones.
pub fn allow_files() {
    let limits = rustix::process::getrlimit(Resource::Nofile);
    if limits.current.is_some() && limits.current != limits.maximum {
        let wanted = Rlimit { current: limits.maximum, maximum: limits.maximum };
        if let Err(error) = rustix::process::setrlimit(Resource::Nofile, wanted) {
            tracing::debug!(%error, "the limit of open files stays as it is");
        }
    }
}

/// How many files it may open.
pub fn open_files_max() -> u64 {
    rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Logs the settings. Keys are etcd's.
pub fn log(config: &Config, etcd_version: &str, rusd_version: &str) {
    let (member, clustering) = (&config.member, &config.clustering);
    tracing::info!(
        "etcd-version" = etcd_version,
        "rusd-version" = rusd_version,
        name = member.name,
        "data-dir" = %member.data_dir.display(),
        "wal-dir" = %member.wal_dir.as_deref().unwrap_or("".as_ref()).display(),
        backend = config.engine.kind.name(),
        "backend-cache-bytes" = config.engine.cache_bytes,
        "heartbeat-interval-ms" = u64::try_from(member.heartbeat_interval.as_millis()).unwrap_or(u64::MAX),
        "election-timeout-ms" = u64::try_from(member.election_timeout.as_millis()).unwrap_or(u64::MAX),
        "snapshot-count" = member.snapshot_count,
        "snapshot-catchup-entries" = member.snapshot_catchup_entries,
        "listen-peer-urls" = join(&member.listen_peer_urls),
        "listen-client-urls" = join(&member.listen_client_urls),
        "listen-metrics-urls" = join(&config.monitoring.listen_metrics_urls),
        "advertise-client-urls" = join(&clustering.advertise_client_urls),
        "initial-cluster" = %clustering.initial_cluster,
        "initial-cluster-token" = clustering.initial_cluster_token,
        "quota-backend-bytes" = member.quota_backend_bytes,
        "max-request-bytes" = member.max_request_bytes,
        "auto-compaction-retention" = clustering.auto_compaction_retention,
        "v2-deprecation" = "write-only",
        "starting an etcd server"
    );
}
