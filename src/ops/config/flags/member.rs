//! Flags of this member.

use std::time::Duration;

use super::super::{BadValue, FeatureGates, parse_duration, value};
use super::{Flag, Kind};

/// Name, directories, timing, listeners, sizes.
pub(super) const FLAGS: &[Flag] = &[
    Flag {
        name: "name",
        kind: Kind::Text,
        default: "default",
        help: "name of this member",
        set: |config, text| {
            config.member.name = text.to_owned();
            Ok(())
        },
    },
    Flag {
        name: "data-dir",
        kind: Kind::Text,
        default: "",
        help: "data directory; ${name}.etcd unless given",
        set: |config, text| {
            config.member.data_dir = text.into();
            Ok(())
        },
    },
    Flag {
        name: "import-from",
        kind: Kind::Text,
        default: "",
        help: "rusd's own: begin with a snapshot file or data directory of etcd's",
        set: |config, text| {
            config.member.import_from = value::path(text);
            Ok(())
        },
    },
    Flag {
        name: "wal-dir",
        kind: Kind::Text,
        default: "",
        help: "directory of the Raft log; inside the data directory unless given",
        set: |config, text| {
            config.member.wal_dir = value::path(text);
            Ok(())
        },
    },
    Flag {
        name: "snapshot-count",
        kind: Kind::Number,
        default: "10000",
        help: "entries between two snapshots of the Raft log",
        set: |config, text| {
            config.member.snapshot_count = value::integer(text)?;
            Ok(())
        },
    },
    Flag {
        name: "snapshot-catchup-entries",
        kind: Kind::Number,
        default: "10000",
        help: "entries kept for slow members behind a snapshot",
        set: |config, text| {
            config.member.snapshot_catchup_entries = value::integer(text)?;
            Ok(())
        },
    },
    Flag {
        name: "heartbeat-interval",
        kind: Kind::Number,
        default: "100",
        help: "milliseconds between two heartbeats",
        set: |config, text| {
            config.member.heartbeat_interval = millis(text)?;
            Ok(())
        },
    },
    Flag {
        name: "election-timeout",
        kind: Kind::Number,
        default: "1000",
        help: "milliseconds without a heartbeat before an election",
        set: |config, text| {
            config.member.election_timeout = millis(text)?;
            Ok(())
        },
    },
    Flag {
        name: "initial-election-tick-advance",
        kind: Kind::Bool,
        default: "true",
        help: "shorten the first election timeout",
        set: |config, text| {
            config.member.initial_election_tick_advance = value::boolean(text)?;
            Ok(())
        },
    },
    Flag {
        name: "listen-peer-urls",
        kind: Kind::Text,
        default: "http://localhost:2380",
        help: "addresses to listen on for members",
        set: |config, text| {
            config.member.listen_peer_urls = value::urls(text)?;
            Ok(())
        },
    },
    Flag {
        name: "listen-client-urls",
        kind: Kind::Text,
        default: "http://localhost:2379",
        help: "addresses to listen on for clients",
        set: |config, text| {
            config.member.listen_client_urls = value::urls(text)?;
            Ok(())
        },
    },
    Flag {
        name: "listen-client-http-urls",
        kind: Kind::Text,
        default: "",
        help: "addresses for HTTP apart from gRPC",
        set: |config, text| {
            config.member.listen_client_http_urls = value::urls(text)?;
            Ok(())
        },
    },
    Flag {
        name: "max-snapshots",
        kind: Kind::Number,
        default: "5",
        help: "deprecated; has no effect",
        set: |_, text| value::integer::<i64>(text).map(|_| ()),
    },
    Flag {
        name: "max-wals",
        kind: Kind::Number,
        default: "5",
        help: "has no effect: the Raft log is purged by itself",
        set: |_, text| value::integer::<i64>(text).map(|_| ()),
    },
    Flag {
        name: "memory-mlock",
        kind: Kind::Bool,
        default: "false",
        help: "has no effect: there is no mapped file",
        set: |_, text| value::boolean(text).map(|_| ()),
    },
    Flag {
        name: "quota-backend-bytes",
        kind: Kind::Number,
        default: "0",
        help: "size from which writes are refused; 0 is 2 GiB, negative is none",
        set: |config, text| {
            config.member.quota_backend_bytes = value::integer(text)?;
            Ok(())
        },
    },
    Flag {
        name: "backend-bbolt-freelist-type",
        kind: Kind::Text,
        default: "map",
        help: "has no effect: there is no bbolt file",
        set: |_, _| Ok(()),
    },
    Flag {
        name: "backend-batch-interval",
        kind: Kind::Duration,
        default: "0",
        help: "time between two flushes of the store; 0 is the default",
        set: |config, text| {
            config.member.backend_batch_interval = parse_duration(text)?;
            Ok(())
        },
    },
    Flag {
        name: "backend-batch-limit",
        kind: Kind::Number,
        default: "0",
        help: "writes between two flushes of the store; 0 is the default",
        set: |config, text| {
            config.member.backend_batch_limit = value::integer(text)?;
            Ok(())
        },
    },
    Flag {
        name: "max-txn-ops",
        kind: Kind::Number,
        default: "128",
        help: "most operations of one transaction",
        set: |config, text| {
            config.member.max_txn_ops = value::integer(text)?;
            Ok(())
        },
    },
    Flag {
        name: "max-request-bytes",
        kind: Kind::Number,
        default: "1572864",
        help: "largest request",
        set: |config, text| {
            config.member.max_request_bytes = value::integer(text)?;
            Ok(())
        },
    },
    Flag {
        name: "max-concurrent-streams",
        kind: Kind::Number,
        default: "4294967295",
        help: "most streams of one connection",
        set: |config, text| {
            config.member.max_concurrent_streams = value::integer(text)?;
            Ok(())
        },
    },
    Flag {
        name: "grpc-keepalive-min-time",
        kind: Kind::Duration,
        default: "5s",
        help: "taken for etcd's sake; HTTP/2 pings aren't counted, and cost little",
        set: |config, text| {
            config.member.keep_alive.min_time = parse_duration(text)?;
            Ok(())
        },
    },
    Flag {
        name: "grpc-keepalive-interval",
        kind: Kind::Duration,
        default: "2h",
        help: "time between two pings to a client; 0 is never",
        set: |config, text| {
            config.member.keep_alive.interval = parse_duration(text)?;
            Ok(())
        },
    },
    Flag {
        name: "grpc-keepalive-timeout",
        kind: Kind::Duration,
        default: "20s",
        help: "time that a client has to answer a ping",
        set: |config, text| {
            config.member.keep_alive.timeout = parse_duration(text)?;
            Ok(())
        },
    },
    Flag {
        name: "socket-reuse-port",
        kind: Kind::Bool,
        default: "false",
        help: "set SO_REUSEPORT on listeners",
        set: |config, text| {
            config.member.socket_reuse_port = value::boolean(text)?;
            Ok(())
        },
    },
    Flag {
        name: "socket-reuse-address",
        kind: Kind::Bool,
        default: "false",
        help: "set SO_REUSEADDR on listeners",
        set: |config, text| {
            config.member.socket_reuse_address = value::boolean(text)?;
            Ok(())
        },
    },
    Flag {
        name: "enable-grpc-gateway",
        kind: Kind::Bool,
        default: "true",
        help: "serve the JSON gateway",
        set: |config, text| {
            config.member.enable_grpc_gateway = value::boolean(text)?;
            Ok(())
        },
    },
    Flag {
        name: "raft-read-timeout",
        kind: Kind::Duration,
        default: "5s",
        help: "read timeout between members",
        set: |config, text| {
            config.member.raft_read_timeout = parse_duration(text)?;
            Ok(())
        },
    },
    Flag {
        name: "raft-write-timeout",
        kind: Kind::Duration,
        default: "5s",
        help: "write timeout between members",
        set: |config, text| {
            config.member.raft_write_timeout = parse_duration(text)?;
            Ok(())
        },
    },
    Flag {
        name: "feature-gates",
        kind: Kind::Text,
        default: "",
        help: "Name=true,… of the alpha and beta features",
        set: |config, text| {
            config.member.feature_gates = FeatureGates::parse(text)?;
            Ok(())
        },
    },
];

fn millis(text: &str) -> Result<Duration, BadValue> {
    value::integer::<u32>(text).map(|millis| Duration::from_millis(millis.into()))
}
