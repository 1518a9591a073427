//! Flags of background work, unsafe ones, and rusd's own.

use super::super::{EngineKind, parse_duration, value};
use super::{BadValue, Flag, Kind};

/// A number of MiB, at least one, in bytes.
fn mebibytes(text: &str) -> Result<usize, BadValue> {
    let bytes = u64::from(value::integer::<u32>(text)?.max(1)) << 20;
    Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// Background work and thresholds.
pub(super) const FLAGS: &[Flag] = &[
    Flag {
        name: "corrupt-check-time",
        kind: Kind::Duration,
        default: "0",
        help: "time between two comparisons of the members; 0 is never",
        set: |config, text| {
            config.features.corrupt_check_time = parse_duration(text)?;
            Ok(())
        },
    },
    Flag {
        name: "compact-hash-check-time",
        kind: Kind::Duration,
        default: "1m",
        help: "time between two comparisons of compaction hashes",
        set: |config, text| {
            config.features.compact_hash_check_time = parse_duration(text)?;
            Ok(())
        },
    },
    Flag {
        name: "compaction-batch-limit",
        kind: Kind::Number,
        default: "1000",
        help: "keys that a compaction looks at in one step",
        set: |config, text| {
            config.features.compaction_batch_limit = value::integer(text)?;
            Ok(())
        },
    },
    Flag {
        name: "compaction-sleep-interval",
        kind: Kind::Duration,
        default: "10ms",
        help: "longest pause between two such steps; they pause as long as they took",
        set: |config, text| {
            config.features.compaction_sleep_interval = parse_duration(text)?;
            Ok(())
        },
    },
    Flag {
        name: "watch-progress-notify-interval",
        kind: Kind::Duration,
        default: "10m",
        help: "time between two progress notifications",
        set: |config, text| {
            config.features.watch_progress_notify_interval = parse_duration(text)?;
            Ok(())
        },
    },
    Flag {
        name: "downgrade-check-time",
        kind: Kind::Duration,
        default: "5s",
        help: "time between two looks at a downgrade",
        set: |config, text| {
            config.features.downgrade_check_time = parse_duration(text)?;
            Ok(())
        },
    },
    Flag {
        name: "bootstrap-defrag-threshold-megabytes",
        kind: Kind::Number,
        default: "0",
        help: "defragment at start from this much to gain; 0 is never",
        set: |config, text| {
            config.features.bootstrap_defrag_threshold_megabytes = value::integer(text)?;
            Ok(())
        },
    },
    Flag {
        name: "force-new-cluster",
        kind: Kind::Bool,
        default: "false",
        help: "start alone from the data of a lost cluster",
        set: |config, text| {
            config.features.force_new_cluster = value::boolean(text)?;
            Ok(())
        },
    },
    Flag {
        name: "unsafe-no-fsync",
        kind: Kind::Bool,
        default: "false",
        help: "has no effect: rusd always waits for the disk",
        set: |config, text| {
            config.features.unsafe_no_fsync = value::boolean(text)?;
            Ok(())
        },
    },
];

/// The storage engine.
pub(super) const OWN: &[Flag] = &[
    Flag {
        name: "backend",
        kind: Kind::Text,
        default: "sled",
        help: "engine of a new data directory: sled or redb",
        set: |config, text| {
            config.engine.kind = value::choice(text, &[("sled", EngineKind::Sled), ("redb", EngineKind::Redb)])?;
            Ok(())
        },
    },
    Flag {
        name: "backend-cache-mb",
        kind: Kind::Number,
        default: "256",
        help: "memory for unflushed, hot and cached values, in MiB",
        set: |config, text| {
            config.engine.cache_bytes = u64::from(value::integer::<u32>(text)?) << 20;
            Ok(())
        },
    },
    Flag {
        name: "pending-requests-mb",
        kind: Kind::Number,
        default: "128",
        help: "requests that are received or wait for the log, in MiB; more are refused",
        set: |config, text| {
            config.engine.pending_requests_bytes = mebibytes(text)?;
            Ok(())
        },
    },
    Flag {
        name: "request-arrival-timeout",
        kind: Kind::Duration,
        default: "1m",
        help: "how long the message of a call may take to come, once the call has begun",
        set: |config, text| {
            config.engine.request_arrival_timeout = parse_duration(text)?;
            Ok(())
        },
    },
    Flag {
        name: "pending-answers-mb",
        kind: Kind::Number,
        default: "512",
        help: "large answers that clients haven't read yet, in MiB; more are refused",
        set: |config, text| {
            config.engine.pending_answers_bytes = mebibytes(text)?;
            Ok(())
        },
    },
    Flag {
        name: "snapshot-log-mb",
        kind: Kind::Number,
        default: "64",
        help: "least log between two snapshots: MiB, or the size of the state; 0 for any",
        set: |config, text| {
            config.engine.snapshot_log_bytes = u64::from(value::integer::<u32>(text)?) << 20;
            Ok(())
        },
    },
    Flag {
        name: "wal-direct-io",
        kind: Kind::Bool,
        default: "true",
        help: "write the log past the page cache (O_DIRECT) where its file system can",
        set: |config, text| {
            config.engine.wal_direct_io = value::boolean(text)?;
            Ok(())
        },
    },
];
