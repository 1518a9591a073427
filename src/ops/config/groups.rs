//! The groups of the configuration. A field is named as its flag; the unit is in its type.
//!
//! The derived `Default`s are blank, not etcd's: [`super::Config::default`] fills them from the table.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{FeatureGates, InitialCluster, Url};
use crate::tls::Version;

/// This member.
#[derive(Clone, Debug, Default)]
pub struct Member {
    /// `--name`.
    pub name: String,
    /// `--data-dir`; `${name}.etcd` unless given.
    pub data_dir: PathBuf,
    /// `--wal-dir`; inside the data directory unless given.
    pub wal_dir: Option<PathBuf>,
    /// `--import-from`: a snapshot file or a directory of etcd's that a member without data begins with.
    pub import_from: Option<PathBuf>,
    /// `--snapshot-count`: entries between two snapshots of the Raft log.
    pub snapshot_count: u64,
    /// `--snapshot-catchup-entries`: entries kept behind a snapshot; etcd's 5000 are few for our batches.
    pub snapshot_catchup_entries: u64,
    /// `--heartbeat-interval`.
    pub heartbeat_interval: Duration,
    /// `--election-timeout`.
    pub election_timeout: Duration,
    /// `--initial-election-tick-advance`.
    pub initial_election_tick_advance: bool,
    /// `--listen-peer-urls`.
    pub listen_peer_urls: Vec<Url>,
    /// `--listen-client-urls`.
    pub listen_client_urls: Vec<Url>,
    /// `--listen-client-http-urls`: HTTP apart from gRPC, if any.
    pub listen_client_http_urls: Vec<Url>,
    /// `--quota-backend-bytes`: 0 is etcd's default of 2 GiB, a negative one no quota.
    pub quota_backend_bytes: i64,
    /// `--backend-batch-interval`: time between two flushes; zero leaves it to the engine.
    pub backend_batch_interval: Duration,
    /// `--backend-batch-limit`: writes between two flushes; zero leaves it to the engine.
    pub backend_batch_limit: usize,
    /// `--max-txn-ops`.
    pub max_txn_ops: usize,
    /// `--max-request-bytes`.
    pub max_request_bytes: usize,
    /// `--max-concurrent-streams`: HTTP/2 streams of one connection.
    pub max_concurrent_streams: u32,
    /// `--grpc-keepalive-*`.
    pub keep_alive: KeepAlive,
    /// `--socket-reuse-port`.
    pub socket_reuse_port: bool,
    /// `--socket-reuse-address`.
    pub socket_reuse_address: bool,
    /// `--enable-grpc-gateway`.
    pub enable_grpc_gateway: bool,
    /// `--raft-read-timeout`: of a connection between members.
    pub raft_read_timeout: Duration,
    /// `--raft-write-timeout`.
    pub raft_write_timeout: Duration,
    /// `--feature-gates`.
    pub feature_gates: FeatureGates,
}

/// HTTP/2 pings.
#[derive(Clone, Debug, Default)]
pub struct KeepAlive {
    /// `--grpc-keepalive-min-time`. Not enforced: hyper answers pings by itself and doesn't tell of them. One pong
    /// at a time is queued, and nothing more is read until it is written, so a flood of pings holds no memory.
    pub min_time: Duration,
    /// `--grpc-keepalive-interval`: how often the server pings; zero is never.
    pub interval: Duration,
    /// `--grpc-keepalive-timeout`: how long it waits for the answer.
    pub timeout: Duration,
}

/// Whether the cluster is being made or joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClusterState {
    /// `new`.
    #[default]
    New,
    /// `existing`.
    Existing,
}

/// How auto-compaction counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompactionMode {
    /// By time.
    #[default]
    Periodic,
    /// By revisions.
    Revision,
}

/// The cluster.
#[derive(Clone, Debug, Default)]
pub struct Clustering {
    /// `--initial-advertise-peer-urls`.
    pub initial_advertise_peer_urls: Vec<Url>,
    /// `--initial-cluster`; this member alone unless given.
    pub initial_cluster: InitialCluster,
    /// `--initial-cluster-state`.
    pub initial_cluster_state: ClusterState,
    /// `--initial-cluster-token`.
    pub initial_cluster_token: String,
    /// `--advertise-client-urls`.
    pub advertise_client_urls: Vec<Url>,
    /// `--strict-reconfig-check`.
    pub strict_reconfig_check: bool,
    /// `--pre-vote`.
    pub pre_vote: bool,
    /// `--max-learners`.
    pub max_learners: usize,
    /// `--auto-promote-learners`: rusd's own; learners get a vote once they are in step.
    pub auto_promote_learners: bool,
    /// `--lease-reads`: rusd's own; a leader that most members have answered within 0.28 of the election timeout
    /// answers linearizable reads without asking them again. Right as long as no member's monotonic clock runs more
    /// than a fifth slower than another's, nor stands still, as in a virtual machine that is stopped.
    pub lease_reads: bool,
    /// `--slow-disk-hand-over`: rusd's own; a leader whose log takes 50 ms and more to sync, and five times as long as
    /// another member's, leaves the lead to that one.
    pub slow_disk_hand_over: bool,
    /// `--heal-diverged`, on by default: rusd's own; a member whose state differs takes the leader's in its place.
    pub heal_diverged: bool,
    /// `--auto-compaction-mode`.
    pub auto_compaction_mode: CompactionMode,
    /// `--auto-compaction-retention`; see [`super::Config::auto_compaction`].
    pub auto_compaction_retention: String,
}

/// Finding the cluster by another one.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// `--discovery-token`.
    pub token: String,
    /// `--discovery-endpoints`.
    pub endpoints: Vec<String>,
    /// `--discovery-dial-timeout`.
    pub dial_timeout: Duration,
    /// `--discovery-request-timeout`.
    pub request_timeout: Duration,
    /// `--discovery-keepalive-time`.
    pub keepalive_time: Duration,
    /// `--discovery-keepalive-timeout`.
    pub keepalive_timeout: Duration,
    /// `--discovery-insecure-transport`.
    pub insecure_transport: bool,
    /// `--discovery-insecure-skip-tls-verify`.
    pub insecure_skip_tls_verify: bool,
    /// `--discovery-cert`, `-key`, `-cacert`.
    pub tls: Tls,
    /// `--discovery-user`.
    pub user: String,
    /// `--discovery-password`.
    pub password: String,
    /// `--discovery-srv`: the DNS domain.
    pub srv: String,
    /// `--discovery-srv-name`.
    pub srv_name: String,
    /// `--discovery-srv-resolver`: rusd's own; the DNS server to ask, the system's unless given.
    pub srv_resolver: Option<SocketAddr>,
    /// `--discovery`, `--discovery-proxy`: the old service.
    pub legacy: String,
}

/// Certificates of one kind of listener.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// The server's certificate.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
    /// The certificate used when this side dials.
    pub client_cert_file: Option<PathBuf>,
    /// Its key.
    pub client_key_file: Option<PathBuf>,
    /// Whether clients must show a certificate.
    pub client_cert_auth: bool,
    /// The authorities that clients' certificates must come from.
    pub trusted_ca_file: Option<PathBuf>,
    /// Certificates that are revoked.
    pub crl_file: Option<PathBuf>,
    /// Common names that clients may have.
    pub allowed_cn: Vec<String>,
    /// Host names that clients may have.
    pub allowed_hostname: Vec<String>,
    /// Make a certificate at start.
    pub auto: bool,
    /// Don't compare the peer's address with its certificate.
    pub skip_client_san_verification: bool,
}

/// What both kinds of listeners share.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// `--self-signed-cert-validity`, in years.
    pub self_signed_cert_validity_years: u32,
    /// `--cipher-suites`; empty leaves it to the library.
    pub cipher_suites: Vec<String>,
    /// `--tls-min-version`.
    pub tls_min_version: Version,
    /// `--tls-max-version`; `None` is the newest.
    pub tls_max_version: Option<Version>,
    /// `--cors`: origins that browsers may call from.
    pub cors: Vec<String>,
    /// `--host-whitelist`: host names that plain HTTP may be addressed to.
    pub host_whitelist: Vec<String>,
}

/// Users' tokens and passwords.
#[derive(Clone, Debug, Default)]
pub struct Auth {
    /// `--auth-token`: `simple`, or `jwt,…`.
    pub token: String,
    /// `--bcrypt-cost`, 4 to 31.
    pub bcrypt_cost: u32,
    /// `--auth-token-ttl` of simple tokens.
    pub token_ttl: Duration,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetricsDetail {
    /// Counters.
    #[default]
    Basic,
    /// And a histogram of each method's duration.
    Extensive,
}

/// Metrics and profiles.
#[derive(Clone, Debug, Default)]
pub struct Monitoring {
    /// `--metrics`.
    pub metrics: MetricsDetail,
    /// `--listen-metrics-urls`: `/metrics` and `/health` apart.
    pub listen_metrics_urls: Vec<Url>,
    /// `--enable-pprof`.
    pub enable_pprof: bool,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happens.
    #[default]
    Info,
    /// What may go wrong.
    Warn,
    /// What went wrong; etcd's `dpanic`, `panic` and `fatal` are the same here.
    Error,
}

/// What a log line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A JSON object.
    #[default]
    Json,
    /// Text.
    Console,
}

/// Where logs go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// `stderr` and `default`.
    Stderr,
    /// `stdout`.
    Stdout,
    /// A file, appended to.
    File(PathBuf),
}

/// Logs.
#[derive(Clone, Debug, Default)]
pub struct Logging {
    /// `--log-outputs`.
    pub outputs: Vec<LogOutput>,
    /// `--log-level`.
    pub level: LogLevel,
    /// `--log-format`; on a terminal text is used unless it was given.
    pub format: LogFormat,
    /// `--enable-log-rotation`.
    pub rotation: bool,
    /// `--log-rotation-config-json`.
    pub rotation_config_json: String,
    /// `--warning-apply-duration`.
    pub warning_apply_duration: Duration,
    /// `--warning-unary-request-duration`.
    pub warning_unary_request_duration: Duration,
    /// No flag: the variable `GODEBUG` with `http2debug`, as programs in Go have it. The head of each HTTP/2 request
    /// is then told on standard error.
    pub http2_heads: bool,
}

/// OpenTelemetry.
#[derive(Clone, Debug, Default)]
pub struct Tracing {
    /// `--enable-distributed-tracing`.
    pub enabled: bool,
    /// `--distributed-tracing-address`.
    pub address: String,
    /// `--distributed-tracing-service-name`.
    pub service_name: String,
    /// `--distributed-tracing-instance-id`.
    pub instance_id: String,
    /// `--distributed-tracing-sampling-rate`, per million.
    pub sampling_rate: u32,
}

/// Background checks, compaction, thresholds.
#[derive(Clone, Debug, Default)]
pub struct Features {
    /// `--corrupt-check-time`; zero is never.
    pub corrupt_check_time: Duration,
    /// `--compact-hash-check-time`.
    pub compact_hash_check_time: Duration,
    /// `--compaction-batch-limit`: keys looked at in one step.
    pub compaction_batch_limit: usize,
    /// `--compaction-sleep-interval`: the longest pause between two steps.
    pub compaction_sleep_interval: Duration,
    /// `--watch-progress-notify-interval`.
    pub watch_progress_notify_interval: Duration,
    /// `--downgrade-check-time`.
    pub downgrade_check_time: Duration,
    /// `--bootstrap-defrag-threshold-megabytes`; zero is never.
    pub bootstrap_defrag_threshold_megabytes: u64,
    /// `--force-new-cluster`.
    pub force_new_cluster: bool,
    /// `--unsafe-no-fsync`; taken but not obeyed: rusd always waits for the disk.
    pub unsafe_no_fsync: bool,
}

/// Which storage engine a new data directory gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineKind {
    /// sled: 0.54 of the logical size on disk, where redb takes 1.74 (ADR 0010).
    #[default]
    Sled,
    /// redb: a cold read in 11 µs, where sled takes 45; memory bounded by its cache.
    Redb,
}

impl EngineKind {
    /// Its name, as typed and as recorded.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sled => "sled",
            Self::Redb => "redb",
        }
    }
}

/// The storage engine; rusd's own flags.
#[derive(Clone, Copy, Debug, Default)]
pub struct Engine {
    /// `--backend`.
    pub kind: EngineKind,
    /// `--backend-cache-mb`, in bytes: pending, hot values and the engine's cache together.
    pub cache_bytes: u64,
    /// `--snapshot-log-mb`, in bytes: the least that the log grows between two snapshots. A state
    /// that is larger raises it to its own size, so that snapshots never cost more than the log; with 0
    /// only `--snapshot-count` counts.
    pub snapshot_log_bytes: u64,
    /// `--wal-direct-io`, on by default: the log is written past the page cache where its file system can.
    pub wal_direct_io: bool,
    /// `--pending-requests-mb`, in bytes.
    pub pending_requests_bytes: usize,
    /// `--request-arrival-timeout`.
    pub request_arrival_timeout: Duration,
    /// `--pending-answers-mb`, in bytes.
    pub pending_answers_bytes: usize,
}
