//! The rules between flags, as etcd has them; each refusal says what to type instead.

use std::time::Duration;

use super::{ClusterState, Config, ConfigError, EngineKind, Url, tls};

/// etcd's upper bound of `--election-timeout`.
const ELECTION_TIMEOUT_MAX: Duration = Duration::from_secs(50);
/// etcd's lower bound of `--watch-progress-notify-interval`.
const PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Requests of which `--distributed-tracing-sampling-rate` are traced.
const SAMPLING_RATE_MAX: u32 = 1_000_000;
/// Below this an engine can't hold its own pages.
const CACHE_BYTES_MIN: u64 = 16 << 20;
/// What log and snapshots take for sure, with all that goes around a request.
const REQUEST_BYTES_MAX: usize = 32 << 20;

/// Checks all of them.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    timing(config)?;
    listeners(config)?;
    cluster(config)?;
    sizes(config)?;
    tracing(config)?;
    tls::check(config)?;
    config.auto_compaction().map(|_| ())
}

fn tracing(config: &Config) -> Result<(), ConfigError> {
    let rate = config.tracing.sampling_rate;
    if config.tracing.enabled && rate > SAMPLING_RATE_MAX {
        return Err(ConfigError::new(
            format!("--distributed-tracing-sampling-rate={rate}"),
            "tracing sampling rate must be less than 1000000",
            "Type how many of a million requests are traced",
        ));
    }
    Ok(())
}

fn timing(config: &Config) -> Result<(), ConfigError> {
    let (heartbeat, election) = (config.member.heartbeat_interval, config.member.election_timeout);
    let what = |name: &str, value: Duration| format!("--{name}={}", value.as_millis());
    if heartbeat.is_zero() {
        return Err(ConfigError::new(
            what("heartbeat-interval", heartbeat),
            "it must be above 0 ms",
            "Type --heartbeat-interval=100",
        ));
    }
    if election.is_zero() {
        return Err(ConfigError::new(
            what("election-timeout", election),
            "it must be above 0 ms",
            "Type --election-timeout=1000",
        ));
    }
    if election < 5 * heartbeat {
        return Err(ConfigError::new(
            what("election-timeout", election),
            format!("it must be at least 5 times --heartbeat-interval, which is {}", heartbeat.as_millis()),
            format!("Type --election-timeout={}", 10 * heartbeat.as_millis()),
        ));
    }
    if election > ELECTION_TIMEOUT_MAX {
        return Err(ConfigError::new(
            what("election-timeout", election),
            "it must be at most 50000 ms",
            "Type --election-timeout=50000 or less",
        ));
    }
    if config.engine.request_arrival_timeout.is_zero() {
        return Err(ConfigError::new(
            "--request-arrival-timeout=0",
            "it must be above 0",
            "Type --request-arrival-timeout=1m",
        ));
    }
    if config.bounds.client_write_timeout.is_zero() {
        return Err(ConfigError::new(
            "--client-write-timeout=0",
            "it must be above 0",
            "Type --client-write-timeout=1m",
        ));
    }
    let progress = config.features.watch_progress_notify_interval;
    if progress < PROGRESS_INTERVAL_MIN {
        return Err(ConfigError::new(
            what("watch-progress-notify-interval", progress) + "ms",
            "it must be at least 100 ms",
            "Type --watch-progress-notify-interval=100ms or more",
        ));
    }
    Ok(())
}

fn listeners(config: &Config) -> Result<(), ConfigError> {
    let member = &config.member;
    let lists: [(&str, &[Url]); 4] = [
        ("listen-peer-urls", &member.listen_peer_urls),
        ("listen-client-urls", &member.listen_client_urls),
        ("listen-client-http-urls", &member.listen_client_http_urls),
        ("listen-metrics-urls", &config.monitoring.listen_metrics_urls),
    ];
    for (name, urls) in lists {
        if let Some(url) = urls.iter().find(|url| !url.is_bindable()) {
            return Err(ConfigError::new(
                format!("--{name}={url}"),
                format!("expected IP in URL for binding ({url})"),
                format!("Type 0.0.0.0, localhost or an address of this machine in --{name}"),
            ));
        }
    }
    if member.listen_peer_urls.is_empty() || member.listen_client_urls.is_empty() {
        return Err(ConfigError::new(
            "--listen-client-urls and --listen-peer-urls",
            "each needs at least one URL",
            "Type --listen-client-urls=http://localhost:2379",
        ));
    }
    if config.is_given("listen-client-urls") && !config.is_given("advertise-client-urls") {
        let urls: Vec<_> = member.listen_client_urls.iter().map(ToString::to_string).collect();
        return Err(ConfigError::new(
            "--listen-client-urls",
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
            format!("Add --advertise-client-urls={}", urls.join(",")),
        ));
    }
    if config.clustering.advertise_client_urls.is_empty() {
        return Err(ConfigError::new(
            "--advertise-client-urls",
            "it needs at least one URL",
            "Type --advertise-client-urls=http://localhost:2379",
        ));
    }
    Ok(())
}

fn cluster(config: &Config) -> Result<(), ConfigError> {
    if config.member.name.is_empty() {
        return Err(ConfigError::new("--name=", "a member needs a name", "Type --name=default"));
    }
    let ways = [
        ("--initial-cluster", config.is_given("initial-cluster")),
        ("--discovery-endpoints", !config.discovery.endpoints.is_empty()),
        ("--discovery-srv", !config.discovery.srv.is_empty()),
    ];
    let given: Vec<_> = ways.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
    if given.len() > 1 {
        return Err(ConfigError::new(
            given.join(" and "),
            "multiple discovery or bootstrap flags are set. Choose one of \
             \"initial-cluster\", \"discovery\", \"discovery-endpoints\" or \"discovery-srv\"",
            format!("Keep {} only", given[0]),
        ));
    }
    if config.discovery.token.is_empty() != config.discovery.endpoints.is_empty() {
        return Err(ConfigError::new(
            if config.discovery.token.is_empty() { "--discovery-endpoints" } else { "--discovery-token" },
            "both --discovery-token and --discovery-endpoints must be set",
            "Add the other one",
        ));
    }
    if config.discovery.token.contains('/') {
        return Err(ConfigError::new("--discovery-token", "a token has no slashes", "Type the last part of it"));
    }
    Ok(())
}

/// The rules of a first start; a data directory that is made has its own members, whatever the flags say.
pub(super) fn check_first(config: &Config) -> Result<(), ConfigError> {
    let (member, clustering) = (&config.member, &config.clustering);
    if clustering.initial_advertise_peer_urls.is_empty() {
        return Err(ConfigError::new(
            "--initial-advertise-peer-urls",
            "it needs at least one URL",
            "Type --initial-advertise-peer-urls=http://localhost:2380",
        ));
    }
    let mut urls: Vec<_> = clustering.initial_cluster.iter().flat_map(|(_, urls)| urls).collect();
    urls.sort();
    if let Some(twice) = urls.windows(2).find(|two| two[0] == two[1]) {
        return Err(ConfigError::new(
            format!("--initial-cluster={}", clustering.initial_cluster),
            format!("initial cluster {} has duplicate url", clustering.initial_cluster),
            format!("Give {} to one member only", twice[0]),
        ));
    }
    match clustering.initial_cluster.urls_of(&member.name) {
        None => Err(ConfigError::new(
            format!("--initial-cluster={}", clustering.initial_cluster),
            format!("couldn't find local name {:?} in the initial cluster configuration", member.name),
            format!(
                "Add {}={}, or name this member as one of them by --name",
                member.name, clustering.initial_advertise_peer_urls[0]
            ),
        )),
        // A member that joins has announced its URLs already.
        Some(_) if clustering.initial_cluster_state == ClusterState::Existing => Ok(()),
        Some(urls) if urls != clustering.initial_advertise_peer_urls => {
            let advertised: Vec<_> = clustering.initial_advertise_peer_urls.iter().map(ToString::to_string).collect();
            let listed: Vec<_> = urls.iter().map(ToString::to_string).collect();
            Err(ConfigError::new(
                format!("--initial-cluster={}", clustering.initial_cluster),
                format!(
                    "--initial-cluster has {} for {}, but --initial-advertise-peer-urls is {}",
                    listed.join(","),
                    member.name,
                    advertised.join(",")
                ),
                format!("Type --initial-advertise-peer-urls={}", listed.join(",")),
            ))
        }
        Some(_) => Ok(()),
    }
}

fn sizes(config: &Config) -> Result<(), ConfigError> {
    if config.member.max_request_bytes == 0 || config.member.max_txn_ops == 0 {
        return Err(ConfigError::new(
            "--max-request-bytes and --max-txn-ops",
            "neither may be 0",
            "Leave them out for etcd's defaults",
        ));
    }
    if config.member.max_request_bytes > REQUEST_BYTES_MAX {
        return Err(ConfigError::new(
            format!("--max-request-bytes={}", config.member.max_request_bytes),
            format!("at most {REQUEST_BYTES_MAX} (32 MiB): log and snapshots take no larger record"),
            format!("Type --max-request-bytes={REQUEST_BYTES_MAX} or less, and split larger values"),
        ));
    }
    if config.engine.cache_bytes < CACHE_BYTES_MIN {
        return Err(ConfigError::new(
            format!("--backend-cache-mb={}", config.engine.cache_bytes >> 20),
            "the storage engine needs at least 16 MiB",
            format!(
                "Type --backend-cache-mb=16{}",
                if config.engine.kind == EngineKind::Sled { " and --backend=redb" } else { "" }
            ),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::flags;
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        config.member.data_dir = Default::default();
        config.clustering.initial_cluster = Default::default();
        for (name, value) in pairs {
            let flag = flags::find(name).expect("a known flag");
            config.set(flag, value).expect("a well-formed value");
        }
        config.finish()
    }

    #[test]
    fn refusals_name_the_flag_and_the_way_out() {
        let cases: [(&[(&str, &str)], &str); 14] = [
            (&[("discovery-token", "t")], "Add the other one"),
            (&[("discovery-endpoints", "http://h:1")], "Add the other one"),
            (
                &[("discovery-srv", "h"), ("initial-cluster", "default=http://localhost:2380")],
                "Keep --initial-cluster only",
            ),
            (&[("initial-cluster", "default=http://localhost:2380,b=http://localhost:2380")], "to one member only"),
            (&[("max-request-bytes", "33554433")], "--max-request-bytes=33554432"),
            (&[("heartbeat-interval", "0")], "--heartbeat-interval=100"),
            (&[("election-timeout", "0")], "--election-timeout=1000"),
            (&[("heartbeat-interval", "300")], "--election-timeout=3000"),
            (&[("election-timeout", "60000")], "50000"),
            (&[("watch-progress-notify-interval", "10ms")], "100ms"),
            (&[("listen-client-urls", "http://127.0.0.1:1")], "--advertise-client-urls=http://127.0.0.1:1"),
            (&[("listen-peer-urls", "http://example.com:1")], "0.0.0.0, localhost or an address"),
            (&[("initial-cluster", "other=http://localhost:2380")], "Add default="),
            (
                &[
                    ("initial-advertise-peer-urls", "http://localhost:1"),
                    ("initial-cluster", "default=http://localhost:2380"),
                ],
                "--initial-advertise-peer-urls=http://localhost:2380",
            ),
        ];
        for (pairs, instead) in cases {
            let error = with(pairs).and_then(|config| config.check_first()).expect_err("refused");
            assert!(error.instead.contains(instead), "{pairs:?}: {error}");
        }
    }

    #[test]
    fn what_only_a_first_start_needs_is_no_matter_later() {
        for cluster in ["other=http://localhost:2380", "default=http://h:1,b=http://h:1", "default=http://h:1"] {
            let config = with(&[("initial-cluster", cluster)]).expect("as etcd 3.7.1 restarts with it");
            assert!(config.check_first().is_err(), "{cluster}");
        }
    }

    #[test]
    fn accepts_what_the_test_suites_pass() {
        let pairs = [
            ("heartbeat-interval", "101"),
            ("election-timeout", "521"),
            ("listen-client-urls", "http://localhost:20000"),
            ("advertise-client-urls", "http://localhost:20000"),
            ("initial-advertise-peer-urls", "http://localhost:20001"),
            ("initial-cluster", "default=http://localhost:20001"),
            ("auto-compaction-mode", "revision"),
            ("auto-compaction-retention", "1000"),
        ];
        assert!(with(&pairs).is_ok_and(|config| config.check_first().is_ok()));
    }
}
