//! Flags of metrics, logs and traces.

use super::super::{LogFormat, LogLevel, LogOutput, MetricsDetail, parse_duration, value};
use super::{Flag, Kind};

/// Metrics, logs, traces.
pub(super) const FLAGS: &[Flag] = &[
    Flag {
        name: "enable-pprof",
        kind: Kind::Bool,
        default: "false",
        help: "serve profiles",
        set: |config, text| {
            config.monitoring.enable_pprof = value::boolean(text)?;
            Ok(())
        },
    },
    Flag {
        name: "metrics",
        kind: Kind::Text,
        default: "basic",
        help: "basic, or extensive with a histogram per method",
        set: |config, text| {
            config.monitoring.metrics =
                value::choice(text, &[("basic", MetricsDetail::Basic), ("extensive", MetricsDetail::Extensive)])?;
            Ok(())
        },
    },
    Flag {
        name: "listen-metrics-urls",
        kind: Kind::Text,
        default: "",
        help: "more addresses for /metrics and /health",
        set: |config, text| {
            config.monitoring.listen_metrics_urls = value::urls(text)?;
            Ok(())
        },
    },
    Flag { name: "logger", kind: Kind::Text, default: "zap", help: "has no effect", set: |_, _| Ok(()) },
    Flag {
        name: "log-outputs",
        kind: Kind::Text,
        default: "default",
        help: "stderr, stdout, or paths",
        set: |config, text| {
            config.logging.outputs = outputs(text);
            Ok(())
        },
    },
    Flag {
        name: "log-level",
        kind: Kind::Text,
        default: "info",
        help: "debug, info, warn or error",
        set: |config, text| {
            config.logging.level = value::choice(text, LEVELS)?;
            Ok(())
        },
    },
    Flag {
        name: "log-format",
        kind: Kind::Text,
        default: "json",
        help: "json or console",
        set: |config, text| {
            config.logging.format = value::choice(text, &[("json", LogFormat::Json), ("console", LogFormat::Console)])?;
            Ok(())
        },
    },
    Flag {
        name: "enable-log-rotation",
        kind: Kind::Bool,
        default: "false",
        help: "rotate log files",
        set: |config, text| {
            config.logging.rotation = value::boolean(text)?;
            Ok(())
        },
    },
    Flag {
        name: "log-rotation-config-json",
        kind: Kind::Text,
        default: "{\"maxsize\": 100}",
        help: "how log files are rotated",
        set: |config, text| {
            config.logging.rotation_config_json = text.to_owned();
            Ok(())
        },
    },
    Flag {
        name: "warning-apply-duration",
        kind: Kind::Duration,
        default: "100ms",
        help: "an apply that takes longer is logged",
        set: |config, text| {
            config.logging.warning_apply_duration = parse_duration(text)?;
            Ok(())
        },
    },
    Flag {
        name: "warning-unary-request-duration",
        kind: Kind::Duration,
        default: "300ms",
        help: "a request that takes longer is logged",
        set: |config, text| {
            config.logging.warning_unary_request_duration = parse_duration(text)?;
            Ok(())
        },
    },
    Flag {
        name: "enable-distributed-tracing",
        kind: Kind::Bool,
        default: "false",
        help: "send traces by OpenTelemetry",
        set: |config, text| {
            config.tracing.enabled = value::boolean(text)?;
            Ok(())
        },
    },
    Flag {
        name: "distributed-tracing-address",
        kind: Kind::Text,
        default: "localhost:4317",
        help: "where traces go",
        set: |config, text| {
            config.tracing.address = text.to_owned();
            Ok(())
        },
    },
    Flag {
        name: "distributed-tracing-service-name",
        kind: Kind::Text,
        default: "etcd",
        help: "name of the service in traces",
        set: |config, text| {
            config.tracing.service_name = text.to_owned();
            Ok(())
        },
    },
    Flag {
        name: "distributed-tracing-instance-id",
        kind: Kind::Text,
        default: "",
        help: "id of this instance in traces",
        set: |config, text| {
            config.tracing.instance_id = text.to_owned();
            Ok(())
        },
    },
    Flag {
        name: "distributed-tracing-sampling-rate",
        kind: Kind::Number,
        default: "0",
        help: "requests traced of a million",
        set: |config, text| {
            config.tracing.sampling_rate = value::integer(text)?;
            Ok(())
        },
    },
];

const LEVELS: &[(&str, LogLevel)] = &[
    ("debug", LogLevel::Debug),
    ("info", LogLevel::Info),
    ("warn", LogLevel::Warn),
    ("error", LogLevel::Error),
    ("dpanic", LogLevel::Error),
    ("panic", LogLevel::Error),
    ("fatal", LogLevel::Error),
];

fn outputs(text: &str) -> Vec<LogOutput> {
    let mut outputs: Vec<LogOutput> = Vec::new();
    for name in value::list(text) {
        let output = match name.as_str() {
            "default" | "stderr" | "systemd/journal" => LogOutput::Stderr,
            "stdout" => LogOutput::Stdout,
            path => LogOutput::File(path.into()),
        };
        if !outputs.contains(&output) {
            outputs.push(output);
        }
    }
    outputs
}
