//! `--config-file`: YAML or JSON, keys named as the flags; unknown keys are passed over.
//!
//! etcd reads the file through JSON into Go structures, so a duration is a whole number of
//! nanoseconds there, and a few flags stand in blocks of their own.

use std::path::Path;

use saphyr::{LoadableYamlNode, Scalar, Yaml};

use super::{CliError, Warning};
use crate::env::{RealDisk, read_all};
use crate::ops::Config;
use crate::ops::config::flags::{self, Flag, Kind};

/// A config file is written by hand; this is far beyond any.
const FILE_BYTES_MAX: usize = 1 << 20;

/// The one setting that etcd takes from a file alone.
const CLIENT_ALLOWED_CN: (&str, &str) = ("client-transport-security", "allowed-cn");

/// Blocks of the file, and the flag of each key in them; a dot leads into a block within the block.
const BLOCKS: [(&str, &[(&str, &str)]); 4] = [
    (
        "client-transport-security",
        &[
            ("cert-file", "cert-file"),
            ("key-file", "key-file"),
            ("client-cert-file", "client-cert-file"),
            ("client-key-file", "client-key-file"),
            ("client-cert-auth", "client-cert-auth"),
            ("trusted-ca-file", "trusted-ca-file"),
            ("auto-tls", "auto-tls"),
            ("allowed-hostname", "client-cert-allowed-hostname"),
        ],
    ),
    (
        "peer-transport-security",
        &[
            ("cert-file", "peer-cert-file"),
            ("key-file", "peer-key-file"),
            ("client-cert-file", "peer-client-cert-file"),
            ("client-key-file", "peer-client-key-file"),
            ("client-cert-auth", "peer-client-cert-auth"),
            ("trusted-ca-file", "peer-trusted-ca-file"),
            ("auto-tls", "peer-auto-tls"),
            ("allowed-cn", "peer-cert-allowed-cn"),
            ("allowed-hostname", "peer-cert-allowed-hostname"),
            ("skip-client-san-verification", "peer-skip-client-san-verification"),
        ],
    ),
    (
        "discovery-config",
        &[
            ("token", "discovery-token"),
            ("endpoints", "discovery-endpoints"),
            ("client.endpoints", "discovery-endpoints"),
            ("client.dial-timeout", "discovery-dial-timeout"),
            ("client.request-timeout", "discovery-request-timeout"),
            ("client.keepalive-time", "discovery-keepalive-time"),
            ("client.keepalive-timeout", "discovery-keepalive-timeout"),
            ("client.secure.cert", "discovery-cert"),
            ("client.secure.key", "discovery-key"),
            ("client.secure.cacert", "discovery-cacert"),
            ("client.secure.insecure-transport", "discovery-insecure-transport"),
            ("client.secure.insecure-skip-tls-verify", "discovery-insecure-skip-tls-verify"),
            ("client.auth.username", "discovery-user"),
            ("client.auth.password", "discovery-password"),
        ],
    ),
    ("socket-options", &[("reuse-port", "socket-reuse-port"), ("reuse-address", "socket-reuse-address")]),
];

/// Reads the file into the configuration.
pub(super) fn apply(path: &Path, config: &mut Config, warnings: &mut Vec<Warning>) -> Result<(), CliError> {
    let refuse = |why: String| CliError::File { path: path.to_owned(), why };
    let text = read(path).map_err(|error| refuse(error.to_string()))?;
    apply_text(&text, config, warnings).map_err(refuse)
}

fn read(path: &Path) -> std::io::Result<String> {
    let bytes = read_all(&RealDisk, path, FILE_BYTES_MAX)?;
    String::from_utf8(bytes).map_err(std::io::Error::other)
}

fn apply_text(text: &str, config: &mut Config, warnings: &mut Vec<Warning>) -> Result<(), String> {
    let documents = Yaml::load_from_str(text).map_err(|error| error.to_string())?;
    let mapping = match documents.first() {
        None | Some(Yaml::Value(Scalar::Null)) => return Ok(()),
        Some(Yaml::Mapping(mapping)) => mapping,
        Some(_) => return Err("expected keys and values, one flag each".to_owned()),
    };
    for (key, value) in mapping {
        let Some(key) = key.as_str() else {
            warnings.push(Warning::UnknownKey { key: format!("{key:?}") });
            continue;
        };
        if let Some((_, keys)) = BLOCKS.iter().find(|(block, _)| *block == key) {
            apply_block(key, keys, "", value, config, warnings)?;
        } else if let Some(flag) = flags::find(key) {
            set(flag, key, value, config)?;
        } else {
            warnings.push(Warning::UnknownKey { key: key.to_owned() });
        }
    }
    Ok(())
}

fn apply_block(
    block: &str,
    keys: &[(&str, &str)],
    within: &str,
    value: &Yaml<'_>,
    config: &mut Config,
    warnings: &mut Vec<Warning>,
) -> Result<(), String> {
    let Some(mapping) = value.as_mapping() else {
        return if value.is_null() { Ok(()) } else { Err(format!("{block}: expected keys and values")) };
    };
    for (key, value) in mapping {
        let name = format!("{within}{}", key.as_str().unwrap_or("?"));
        let inner = format!("{name}.");
        let shown = format!("{block}.{name}");
        if (block, name.as_str()) == CLIENT_ALLOWED_CN {
            config.client_tls.allowed_cn = text(&shown, value)?.split(',').map(str::to_owned).collect();
            config.client_tls.allowed_cn.retain(|name| !name.is_empty());
        } else if let Some(flag) = keys.iter().find(|(key, _)| *key == name).and_then(|(_, name)| flags::find(name)) {
            set(flag, &shown, value, config)?;
        } else if keys.iter().any(|(key, _)| key.starts_with(&inner)) {
            apply_block(block, keys, &inner, value, config, warnings)?;
        } else {
            warnings.push(Warning::UnknownKey { key: shown });
        }
    }
    Ok(())
}

/// A single value, or several with commas between them.
fn text(key: &str, value: &Yaml<'_>) -> Result<String, String> {
    let text = match value {
        Yaml::Sequence(items) => {
            let items: Option<Vec<_>> = items.iter().map(scalar).collect();
            items.map(|items| items.join(","))
        }
        other => scalar(other),
    };
    text.ok_or_else(|| format!("{key}: expected a single value"))
}

/// Sets one flag from a YAML value; null and the empty text leave the default.
fn set(flag: &'static Flag, key: &str, value: &Yaml<'_>, config: &mut Config) -> Result<(), String> {
    let text = text(key, value)?;
    if text.is_empty() {
        return Ok(());
    }
    let text = match flag.kind {
        Kind::Duration if text.bytes().all(|byte| byte.is_ascii_digit()) => format!("{text}ns"),
        _ => text,
    };
    config.set(flag, &text).map_err(|bad| format!("{key}: {bad}"))
}

fn scalar(value: &Yaml<'_>) -> Option<String> {
    match value {
        Yaml::Value(Scalar::Null) => Some(String::new()),
        Yaml::Value(Scalar::Boolean(on)) => Some(on.to_string()),
        Yaml::Value(Scalar::Integer(number)) => Some(number.to_string()),
        Yaml::Value(Scalar::FloatingPoint(number)) => Some(number.to_string()),
        Yaml::Value(Scalar::String(text)) => Some(text.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(text: &str) -> Result<(Config, Vec<Warning>), String> {
        let (mut config, mut warnings) = (Config::default(), Vec::new());
        apply_text(text, &mut config, &mut warnings).map(|()| (config, warnings))
    }

    #[test]
    fn reads_what_k3s_writes() {
        let (config, warnings) = read(
            "name: node-1\nheartbeat-interval: 500\nelection-timeout: 5000\n\
             log-outputs:\n- stderr\n- /var/log/a.log\n\
             grpc-keepalive-interval: 7200000000000\n\
             client-transport-security:\n  cert-file: /a.crt\n  client-cert-auth: true\n\
             socket-options:\n  reuse-port: true\n\
             experimental-initial-corrupt-check: true\n",
        )
        .expect("well-formed");
        assert_eq!(config.member.name, "node-1");
        assert_eq!(config.member.election_timeout, Duration::from_secs(5));
        assert_eq!(config.member.keep_alive.interval, Duration::from_secs(7200));
        assert_eq!(config.logging.outputs.len(), 2);
        assert!(config.client_tls.client_cert_auth && config.member.socket_reuse_port);
        let key = "experimental-initial-corrupt-check".to_owned();
        assert_eq!(warnings, [Warning::UnknownKey { key }]);
    }

    #[test]
    fn json_is_read_too() {
        let (config, _) =
            read(r#"{"name":"j","initial-cluster":"j=http://localhost:2380","pre-vote":false}"#).expect("well-formed");
        assert_eq!(config.member.name, "j");
        assert!(!config.clustering.pre_vote);
    }

    #[test]
    fn empty_values_leave_the_default() {
        let (config, _) = read("wal-dir:\ncors: ''\ncipher-suites:\n").expect("well-formed");
        assert_eq!(config.security.cors, ["*"]);
        assert_eq!(config.member.wal_dir, None);
    }

    #[test]
    fn blocks_within_blocks_are_read() {
        let (config, warnings) = read(
            "discovery-config:\n  token: t\n  client:\n    endpoints: ['http://a:1', 'http://b:1']\n    \
             dial-timeout: 3000000000\n    other: 1\n    auth: {username: u, password: p}\n",
        )
        .expect("well-formed");
        assert_eq!(config.discovery.endpoints, ["http://a:1", "http://b:1"]);
        assert_eq!(config.discovery.dial_timeout, Duration::from_secs(3));
        assert_eq!((config.discovery.user.as_str(), config.discovery.password.as_str()), ("u", "p"));
        assert_eq!(warnings, [Warning::UnknownKey { key: "discovery-config.client.other".to_owned() }]);
        assert!(read("discovery-config: {client: 1}").is_err());
    }

    #[test]
    fn names_that_only_a_file_can_allow_are_not_passed_over() {
        let (config, warnings) = read("client-transport-security:\n  allowed-cn: [alice, bob]\n").expect("well-formed");
        assert_eq!(config.client_tls.allowed_cn, ["alice", "bob"]);
        assert_eq!(warnings, []);
        let (config, _) = read("client-transport-security: {allowed-cn: }").expect("well-formed");
        assert!(config.client_tls.allowed_cn.is_empty());
    }

    #[test]
    fn refuses_with_the_key() {
        assert!(read("election-timeout: soon").expect_err("refused").starts_with("election-timeout"));
        assert!(read("name: {a: b}").expect_err("refused").starts_with("name"));
        assert!(read("- a\n- b").is_err());
        assert!(read("a: [").is_err());
        assert!(read("").is_ok());
    }
}
