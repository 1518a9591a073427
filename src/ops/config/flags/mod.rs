//! The table of flags: one row per flag of etcd 3.7, and rusd's own.
//!
//! Arguments, variables, the config file, the defaults and `--help` all come from here, so that a
//! flag can't be known to one and unknown to another.

mod clustering;
mod features;
mod limits;
mod member;
mod monitoring;
mod security;

use super::Config;
use super::value::BadValue;

/// What a flag's value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`; bare means true.
    Bool,
    /// A whole number.
    Number,
    /// A Go duration; a whole number of nanoseconds in a config file.
    Duration,
    /// Anything else.
    Text,
}

/// One flag.
#[derive(Debug)]
pub struct Flag {
    /// Without dashes.
    pub name: &'static str,
    /// What its value looks like.
    pub kind: Kind,
    /// The default, as one would type it.
    pub default: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
    /// Fills the field from the text.
    pub set: fn(&mut Config, &str) -> Result<(), BadValue>,
}

impl Flag {
    /// The variable that stands for the flag: `ETCD_` and the name in capitals.
    pub fn variable(&self) -> String {
        format!("ETCD_{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }
}

/// A heading of `--help` and its flags.
pub type Group = (&'static str, &'static [Flag]);

/// Every flag, in the order of `--help`.
pub const GROUPS: [Group; 9] = [
    ("Member", member::FLAGS),
    ("Limits", limits::FLAGS),
    ("Clustering", clustering::FLAGS),
    ("Discovery", clustering::DISCOVERY),
    ("Security", security::FLAGS),
    ("Auth", security::AUTH),
    ("Monitoring, logging, tracing", monitoring::FLAGS),
    ("Features", features::FLAGS),
    ("rusd's own", features::OWN),
];

/// Flags of etcd 0.4 and 2 that are taken and ignored, as etcd does.
pub const IGNORED: [&str; 13] = [
    "cluster-active-size",
    "cluster-remove-delay",
    "cluster-sync-interval",
    "config",
    "force",
    "max-result-buffer",
    "max-retry-attempts",
    "peer-heartbeat-interval",
    "peer-election-timeout",
    "retry-interval",
    "snapshot",
    "v",
    "vv",
];

/// Every flag.
pub fn all() -> impl Iterator<Item = &'static Flag> {
    GROUPS.iter().flat_map(|(_, flags)| flags.iter())
}

/// The flag of that name.
pub fn find(name: &str) -> Option<&'static Flag> {
    all().find(|flag| flag.name == name)
}

/// The known name that is most like the given one, if any is like it at all.
pub fn nearest(name: &str) -> Option<&'static str> {
    // Three of four letters in place is what a slip of the hand leaves.
    const LIKENESS_MIN: f64 = 0.75;
    all()
        .map(|flag| flag.name)
        .chain(["version", "help", "config-file"])
        .map(|known| (known, strsim::normalized_damerau_levenshtein(name, known)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .filter(|(_, likeness)| *likeness >= LIKENESS_MIN)
        .map(|(known, _)| known)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_defaults_apply() {
        let mut names = BTreeSet::new();
        let mut config = Config::default();
        for flag in all() {
            assert!(names.insert(flag.name), "{} stands twice", flag.name);
            assert_eq!((flag.set)(&mut config, flag.default), Ok(()), "{}", flag.name);
        }
        assert!(IGNORED.iter().all(|name| !names.contains(name)));
    }

    #[test]
    fn every_flag_of_etcd_is_known() {
        // Facts on etcd 3.7.1: `etcd --help` and its flag set.
        let names = "name data-dir wal-dir snapshot-count heartbeat-interval election-timeout \
            initial-election-tick-advance listen-peer-urls listen-client-urls listen-client-http-urls \
            max-snapshots max-wals memory-mlock quota-backend-bytes backend-bbolt-freelist-type \
            backend-batch-interval backend-batch-limit max-txn-ops max-request-bytes \
            max-concurrent-streams grpc-keepalive-min-time grpc-keepalive-interval \
            grpc-keepalive-timeout socket-reuse-port socket-reuse-address enable-grpc-gateway \
            raft-read-timeout raft-write-timeout feature-gates initial-advertise-peer-urls \
            initial-cluster initial-cluster-state initial-cluster-token advertise-client-urls \
            discovery-token discovery-endpoints discovery-dial-timeout discovery-request-timeout \
            discovery-keepalive-time discovery-keepalive-timeout discovery-insecure-transport \
            discovery-insecure-skip-tls-verify discovery-cert discovery-key discovery-cacert \
            discovery-user discovery-password discovery-srv discovery-srv-name \
            strict-reconfig-check pre-vote auto-compaction-retention auto-compaction-mode \
            v2-deprecation cert-file key-file client-cert-auth trusted-ca-file client-cert-file \
            client-key-file client-crl-file client-cert-allowed-hostname auto-tls peer-cert-file \
            peer-key-file peer-client-cert-auth peer-trusted-ca-file peer-client-cert-file \
            peer-client-key-file peer-cert-allowed-cn peer-cert-allowed-hostname peer-auto-tls \
            peer-crl-file peer-skip-client-san-verification self-signed-cert-validity \
            cipher-suites tls-min-version tls-max-version cors host-whitelist auth-token \
            bcrypt-cost auth-token-ttl enable-pprof metrics listen-metrics-urls logger log-outputs \
            log-level log-format enable-log-rotation log-rotation-config-json \
            warning-unary-request-duration enable-distributed-tracing distributed-tracing-address \
            distributed-tracing-service-name distributed-tracing-instance-id \
            distributed-tracing-sampling-rate corrupt-check-time compact-hash-check-time \
            compaction-batch-limit compaction-sleep-interval watch-progress-notify-interval \
            warning-apply-duration bootstrap-defrag-threshold-megabytes max-learners \
            downgrade-check-time snapshot-catchup-entries force-new-cluster unsafe-no-fsync \
            discovery discovery-proxy discovery-fallback";
        for name in names.split_whitespace() {
            assert!(find(name).is_some(), "{name}");
        }
    }

    #[test]
    fn a_slip_finds_its_flag() {
        assert_eq!(nearest("listen-clients-urls"), Some("listen-client-urls"));
        assert_eq!(nearest("datadir"), Some("data-dir"));
        assert_eq!(nearest("versoin"), Some("version"));
        assert_eq!(nearest("zzzzzz"), None);
    }

    #[test]
    fn variables_are_named_as_etcd_names_them() {
        let flag = find("listen-client-urls").expect("known");
        assert_eq!(flag.variable(), "ETCD_LISTEN_CLIENT_URLS");
    }
}
