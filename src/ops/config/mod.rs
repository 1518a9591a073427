//! The configuration, typed: one value made from flags, environment or file, checked before use.
//!
//! ```text
//! flags (the table) ─► Config::default ─► set(name, value)… ─► finish ─► validate ─► availability
//! ```
//!
//! Each flag of etcd 3.7 stands once, in the table in `flags/`, with its default, its help and the
//! setter that fills a field here; `cli` walks the same table for arguments, variables and files.

mod availability;
mod bounds;
mod compaction;
mod duration;
mod feature_gates;
pub mod flags;
mod groups;
mod initial_cluster;
mod tls;
mod url;
mod validate;
mod value;
mod without_effect;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::tls::{Suites, SuitesError};
use crate::types::Limits;

pub use bounds::Bounds;
pub use compaction::AutoCompaction;
pub use duration::{format_duration, parse_duration};
pub use feature_gates::{FeatureGates, GATES, Gate, Stage};
pub use groups::{
    Auth, ClusterState, Clustering, CompactionMode, Discovery, Engine, EngineKind, Features, KeepAlive, LogFormat,
    LogLevel, LogOutput, Logging, Member, MetricsDetail, Monitoring, Security, Tls, Tracing,
};
pub use initial_cluster::InitialCluster;
pub use url::{Scheme, Url, UrlError};
pub use value::BadValue;

/// Everything that can be configured, grouped as etcd's help groups it.
#[derive(Clone, Debug)]
pub struct Config {
    /// This member: name, directories, timing, listeners, sizes.
    pub member: Member,
    /// How much clients may ask for at a time.
    pub bounds: Bounds,
    /// The cluster: who is in it and how it is found.
    pub clustering: Clustering,
    /// Finding the cluster by another one.
    pub discovery: Discovery,
    /// Certificates for clients.
    pub client_tls: Tls,
    /// Certificates between members.
    pub peer_tls: Tls,
    /// What both kinds of listeners share.
    pub security: Security,
    /// Users' tokens and passwords.
    pub auth: Auth,
    /// Metrics and profiles.
    pub monitoring: Monitoring,
    /// Logs.
    pub logging: Logging,
    /// OpenTelemetry.
    pub tracing: Tracing,
    /// Background checks, compaction, thresholds.
    pub features: Features,
    /// The storage engine; rusd's own.
    pub engine: Engine,
    /// Names of the flags that were given, by whatever source.
    pub given: BTreeSet<&'static str>,
}

/// A configuration that can't be used: what, why, and what to type instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {why}. {instead}")]
pub struct ConfigError {
    /// The flag or the combination, as typed.
    pub what: String,
    /// The rule that it breaks.
    pub why: String,
    /// A sentence that says what to type instead.
    pub instead: String,
}

impl ConfigError {
    pub(crate) fn new(what: impl Into<String>, why: impl Into<String>, instead: impl Into<String>) -> Self {
        Self { what: what.into(), why: why.into(), instead: instead.into() }
    }
}

impl Default for Config {
    /// The defaults of the flag table; the fields that follow from others are already filled.
    fn default() -> Self {
        let mut config = Self {
            member: Member::default(),
            bounds: Bounds::default(),
            clustering: Clustering::default(),
            discovery: Discovery::default(),
            client_tls: Tls::default(),
            peer_tls: Tls::default(),
            security: Security::default(),
            auth: Auth::default(),
            monitoring: Monitoring::default(),
            logging: Logging::default(),
            tracing: Tracing::default(),
            features: Features::default(),
            engine: Engine::default(),
            given: BTreeSet::new(),
        };
        for flag in flags::all() {
            (flag.set)(&mut config, flag.default)
                .expect("the table's defaults are well-formed: a test applies each of them");
        }
        config.derive();
        config
    }
}

impl Config {
    /// Sets one flag from its text and notes that it was given.
    ///
    /// # Errors
    /// When the text isn't a value of the flag's type.
    pub fn set(&mut self, flag: &'static flags::Flag, value: &str) -> Result<(), BadValue> {
        (flag.set)(self, value)?;
        self.given.insert(flag.name);
        Ok(())
    }

    /// Whether the flag was given rather than left at its default.
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains(name)
    }

    /// Fills what follows from other flags, then checks the rules and what is built so far.
    ///
    /// # Errors
    /// The first rule broken, with what to type instead.
    pub fn finish(mut self) -> Result<Self, ConfigError> {
        self.derive();
        validate::check(&self)?;
        availability::check(&self)?;
        Ok(self)
    }

    /// Checks what only a first start goes by: the initial cluster.
    ///
    /// # Errors
    /// As above.
    pub fn check_first(&self) -> Result<(), ConfigError> {
        validate::check_first(self)
    }

    /// `${name}.etcd` and `name=advertised` where nothing else was said, as etcd has it.
    fn derive(&mut self) {
        if self.member.data_dir.as_os_str().is_empty() {
            self.member.data_dir = format!("{}.etcd", self.member.name).into();
        }
        if self.clustering.initial_cluster.is_empty() {
            self.clustering.initial_cluster =
                InitialCluster::of_one(&self.member.name, &self.clustering.initial_advertise_peer_urls);
        }
    }

    /// The limits that requests are held to.
    pub fn limits(&self) -> Limits {
        let quota_bytes = match self.member.quota_backend_bytes {
            0 => Some(Limits::QUOTA_BYTES_DEFAULT),
            bytes => u64::try_from(bytes).ok(),
        };
        let bounds = &self.bounds;
        Limits {
            request_bytes_max: self.member.max_request_bytes,
            txn_ops_max: self.member.max_txn_ops,
            quota_bytes,
            request_timeout: Duration::from_secs(5) + 2 * self.member.election_timeout,
            lease_ttl_secs_min: self.lease_ttl_secs_min(),
            requests_pending_bytes_max: self.engine.pending_requests_bytes,
            request_arrival_max: self.engine.request_arrival_timeout,
            answers_pending_bytes_max: self.engine.pending_answers_bytes,
            proposals_pending_max: bounds.max_pending_proposals,
            requests_open_max: bounds.max_open_requests,
            leases_max: bounds.max_leases,
            users_max: bounds.max_users,
            roles_max: bounds.max_roles,
            auth_bytes_max: bounds.users_and_roles_bytes,
            lock_waiters_max: bounds.max_lock_waiters,
            logins_pending_max: bounds.max_pending_logins,
            logins_per_connection_max: bounds.max_pending_logins_per_connection,
            watchers_max: bounds.max_watchers,
            stream_watchers_max: bounds.max_watchers_per_stream,
            watch_ranges_bytes_max: bounds.watch_keys_bytes,
            ..Limits::default()
        }
    }

    /// One and a half election timeouts in whole seconds, counted in heartbeats and rounded as etcd does.
    fn lease_ttl_secs_min(&self) -> i64 {
        let heartbeat_ms = self.member.heartbeat_interval.as_millis().max(1);
        let ticks = self.member.election_timeout.as_millis() / heartbeat_ms;
        i64::try_from((3 * ticks / 2 * heartbeat_ms).div_ceil(1000)).unwrap_or(i64::MAX)
    }

    /// The cipher suites of `--cipher-suites`.
    ///
    /// # Errors
    /// A name that nobody knows, or none that is spoken here.
    pub fn cipher_suites(&self) -> Result<Suites, ConfigError> {
        Suites::parse(&self.security.cipher_suites).map_err(|error| {
            let instead = match error {
                SuitesError::Unknown(_) => "Type names as Go has them, such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
                SuitesError::NoneLeft(_) => "Add one with ECDHE and GCM or CHACHA20, or leave the flag out",
            };
            let given = format!("--cipher-suites={}", self.security.cipher_suites.join(","));
            ConfigError::new(given, error.to_string(), instead)
        })
    }

    /// What the server compacts by itself.
    ///
    /// # Errors
    /// When the retention isn't a value for the mode.
    pub fn auto_compaction(&self) -> Result<AutoCompaction, ConfigError> {
        AutoCompaction::resolve(self.clustering.auto_compaction_mode, &self.clustering.auto_compaction_retention)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_etcds() {
        let config = Config::default().finish().expect("defaults are valid");
        assert_eq!(config.member.name, "default");
        assert_eq!(config.member.data_dir.to_str(), Some("default.etcd"));
        assert_eq!(config.clustering.initial_cluster.to_string(), "default=http://localhost:2380");
        assert_eq!(config.limits().quota_bytes, Some(2 << 30));
        assert_eq!(config.limits().request_timeout, Duration::from_secs(7));
        assert!(config.given.is_empty());
    }

    #[test]
    fn directory_and_cluster_follow_the_name() {
        let mut config = Config::default();
        config.member.data_dir = Default::default();
        config.clustering.initial_cluster = Default::default();
        config.member.name = "m1".into();
        let config = config.finish().expect("valid");
        assert_eq!(config.member.data_dir.to_str(), Some("m1.etcd"));
        assert_eq!(config.clustering.initial_cluster.to_string(), "m1=http://localhost:2380");
    }

    #[test]
    fn the_shortest_lease_follows_the_election_timeout() {
        // What etcd 3.7.1 grants with these when asked for one second.
        for (election_ms, heartbeat_ms, secs) in [(1000, 100, 2), (521, 101, 1), (5000, 100, 8), (2100, 400, 3)] {
            let mut config = Config::default();
            config.member.election_timeout = Duration::from_millis(election_ms);
            config.member.heartbeat_interval = Duration::from_millis(heartbeat_ms);
            assert_eq!(config.limits().lease_ttl_secs_min, secs, "{election_ms} {heartbeat_ms}");
        }
    }

    #[test]
    fn a_negative_quota_is_no_quota() {
        let mut config = Config::default();
        config.member.quota_backend_bytes = -1;
        assert_eq!(config.limits().quota_bytes, None);
    }
}
