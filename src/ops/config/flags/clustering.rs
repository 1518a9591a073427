//! Flags of the cluster and of how it is found.

use super::super::{ClusterState, CompactionMode, InitialCluster, parse_duration, value};
use super::{Flag, Kind};

/// Who is in the cluster.
pub(super) const FLAGS: &[Flag] = &[
    Flag {
        name: "initial-advertise-peer-urls",
        kind: Kind::Text,
        default: "http://localhost:2380",
        help: "peer URLs told to the other members",
        set: |config, text| {
            config.clustering.initial_advertise_peer_urls = value::urls(text)?;
            Ok(())
        },
    },
    Flag {
        name: "initial-cluster",
        kind: Kind::Text,
        default: "",
        help: "name=url,… of every member; this one alone unless given",
        set: |config, text| {
            config.clustering.initial_cluster = InitialCluster::parse(text)?;
            Ok(())
        },
    },
    Flag {
        name: "initial-cluster-state",
        kind: Kind::Text,
        default: "new",
        help: "new, or existing to join",
        set: |config, text| {
            config.clustering.initial_cluster_state =
                value::choice(text, &[("new", ClusterState::New), ("existing", ClusterState::Existing)])?;
            Ok(())
        },
    },
    Flag {
        name: "initial-cluster-token",
        kind: Kind::Text,
        default: "etcd-cluster",
        help: "keeps clusters with equal URLs apart",
        set: |config, text| {
            config.clustering.initial_cluster_token = text.to_owned();
            Ok(())
        },
    },
    Flag {
        name: "advertise-client-urls",
        kind: Kind::Text,
        default: "http://localhost:2379",
        help: "client URLs told to clients",
        set: |config, text| {
            config.clustering.advertise_client_urls = value::urls(text)?;
            Ok(())
        },
    },
    Flag {
        name: "strict-reconfig-check",
        kind: Kind::Bool,
        default: "true",
        help: "refuse membership changes that would lose the quorum",
        set: |config, text| {
            config.clustering.strict_reconfig_check = value::boolean(text)?;
            Ok(())
        },
    },
    Flag {
        name: "pre-vote",
        kind: Kind::Bool,
        default: "true",
        help: "ask before an election",
        set: |config, text| {
            config.clustering.pre_vote = value::boolean(text)?;
            Ok(())
        },
    },
    Flag {
        name: "max-learners",
        kind: Kind::Number,
        default: "1",
        help: "most learners of the cluster",
        set: |config, text| {
            config.clustering.max_learners = value::integer(text)?;
            Ok(())
        },
    },
    Flag {
        name: "auto-promote-learners",
        kind: Kind::Bool,
        default: "false",
        help: "rusd's own: learners become voters once they are in step",
        set: |config, text| {
            config.clustering.auto_promote_learners = value::boolean(text)?;
            Ok(())
        },
    },
    Flag {
        name: "lease-reads",
        kind: Kind::Bool,
        default: "false",
        help: "rusd's own: the leader reads without asking the others, if all clocks run alike",
        set: |config, text| {
            config.clustering.lease_reads = value::boolean(text)?;
            Ok(())
        },
    },
    Flag {
        name: "slow-disk-hand-over",
        kind: Kind::Bool,
        default: "false",
        help: "rusd's own: a leader whose disk is far slower than another's hands over",
        set: |config, text| {
            config.clustering.slow_disk_hand_over = value::boolean(text)?;
            Ok(())
        },
    },
    Flag {
        name: "heal-diverged",
        kind: Kind::Bool,
        default: "true",
        help: "rusd's own: a member whose state differs and is proven wrong takes the leader's",
        set: |config, text| {
            config.clustering.heal_diverged = value::boolean(text)?;
            Ok(())
        },
    },
    Flag {
        name: "auto-compaction-retention",
        kind: Kind::Text,
        default: "0",
        help: "history to keep: 30m, hours, or revisions; 0 is all",
        set: |config, text| {
            config.clustering.auto_compaction_retention = text.to_owned();
            Ok(())
        },
    },
    Flag {
        name: "auto-compaction-mode",
        kind: Kind::Text,
        default: "periodic",
        help: "periodic or revision",
        set: |config, text| {
            config.clustering.auto_compaction_mode =
                value::choice(text, &[("periodic", CompactionMode::Periodic), ("revision", CompactionMode::Revision)])?;
            Ok(())
        },
    },
    Flag {
        name: "v2-deprecation",
        kind: Kind::Text,
        default: "write-only",
        help: "deprecated; has no effect",
        set: |_, _| Ok(()),
    },
];

/// How it is found.
pub(super) const DISCOVERY: &[Flag] = &[
    Flag {
        name: "discovery-token",
        kind: Kind::Text,
        default: "",
        help: "token of the cluster in the discovery service",
        set: |config, text| {
            config.discovery.token = text.to_owned();
            Ok(())
        },
    },
    Flag {
        name: "discovery-endpoints",
        kind: Kind::Text,
        default: "",
        help: "endpoints of the discovery service",
        set: |config, text| {
            config.discovery.endpoints = value::list(text);
            Ok(())
        },
    },
    Flag {
        name: "discovery-dial-timeout",
        kind: Kind::Duration,
        default: "2s",
        help: "dial timeout",
        set: |config, text| {
            config.discovery.dial_timeout = parse_duration(text)?;
            Ok(())
        },
    },
    Flag {
        name: "discovery-request-timeout",
        kind: Kind::Duration,
        default: "5s",
        help: "request timeout",
        set: |config, text| {
            config.discovery.request_timeout = parse_duration(text)?;
            Ok(())
        },
    },
    Flag {
        name: "discovery-keepalive-time",
        kind: Kind::Duration,
        default: "2s",
        help: "time between two pings",
        set: |config, text| {
            config.discovery.keepalive_time = parse_duration(text)?;
            Ok(())
        },
    },
    Flag {
        name: "discovery-keepalive-timeout",
        kind: Kind::Duration,
        default: "6s",
        help: "time to answer a ping",
        set: |config, text| {
            config.discovery.keepalive_timeout = parse_duration(text)?;
            Ok(())
        },
    },
    Flag {
        name: "discovery-insecure-transport",
        kind: Kind::Bool,
        default: "true",
        help: "no TLS",
        set: |config, text| {
            config.discovery.insecure_transport = value::boolean(text)?;
            Ok(())
        },
    },
    Flag {
        name: "discovery-insecure-skip-tls-verify",
        kind: Kind::Bool,
        default: "false",
        help: "do not verify the certificate",
        set: |config, text| {
            config.discovery.insecure_skip_tls_verify = value::boolean(text)?;
            Ok(())
        },
    },
    Flag {
        name: "discovery-cert",
        kind: Kind::Text,
        default: "",
        help: "client certificate",
        set: |config, text| {
            config.discovery.tls.cert_file = value::path(text);
            Ok(())
        },
    },
    Flag {
        name: "discovery-key",
        kind: Kind::Text,
        default: "",
        help: "its key",
        set: |config, text| {
            config.discovery.tls.key_file = value::path(text);
            Ok(())
        },
    },
    Flag {
        name: "discovery-cacert",
        kind: Kind::Text,
        default: "",
        help: "certificate authorities",
        set: |config, text| {
            config.discovery.tls.trusted_ca_file = value::path(text);
            Ok(())
        },
    },
    Flag {
        name: "discovery-user",
        kind: Kind::Text,
        default: "",
        help: "user[:password]",
        set: |config, text| {
            config.discovery.user = text.to_owned();
            Ok(())
        },
    },
    Flag {
        name: "discovery-password",
        kind: Kind::Text,
        default: "",
        help: "password",
        set: |config, text| {
            config.discovery.password = text.to_owned();
            Ok(())
        },
    },
    Flag {
        name: "discovery-srv",
        kind: Kind::Text,
        default: "",
        help: "DNS domain of the cluster",
        set: |config, text| {
            config.discovery.srv = text.to_owned();
            Ok(())
        },
    },
    Flag {
        name: "discovery-srv-name",
        kind: Kind::Text,
        default: "",
        help: "suffix of the DNS service",
        set: |config, text| {
            config.discovery.srv_name = text.to_owned();
            Ok(())
        },
    },
    Flag {
        name: "discovery-srv-resolver",
        kind: Kind::Text,
        default: "",
        help: "rusd's own: DNS server to ask for it, ip:port; the system's unless given",
        set: |config, text| {
            config.discovery.srv_resolver = match text {
                "" => None,
                text => Some(text.parse().map_err(|_| value::BadValue::new(text, "ip:port"))?),
            };
            Ok(())
        },
    },
    Flag {
        name: "discovery",
        kind: Kind::Text,
        default: "",
        help: "URL of the old discovery service",
        set: |config, text| {
            config.discovery.legacy = text.to_owned();
            Ok(())
        },
    },
    Flag {
        name: "discovery-proxy",
        kind: Kind::Text,
        default: "",
        help: "proxy to the old discovery service",
        set: |_, _| Ok(()),
    },
    Flag {
        name: "discovery-fallback",
        kind: Kind::Text,
        default: "exit",
        help: "what to do when the old discovery service fails",
        set: |_, _| Ok(()),
    },
];
