//! What this version can't do yet and must not pretend to: refused by name, never ignored.

use super::{Config, ConfigError};

/// A reason to refuse, and the test for it.
struct Missing {
    /// What it is called where no single flag asks for it.
    what: &'static str,
    /// How the names of the flags start that ask for it.
    flags: &'static [&'static str],
    /// What is not there.
    why: &'static str,
    /// What to do.
    instead: &'static str,
    asked: fn(&Config) -> bool,
}

const PLAIN: &str = "Leave it out, use http:// URLs on loopback, and put a TLS proxy in front";

const MISSING: [Missing; 6] = [
    Missing {
        what: "TLS for clients",
        flags: &["cert-file", "key-file", "client-", "trusted-ca-file", "auto-tls"],
        why: "TLS for clients is not available yet",
        instead: PLAIN,
        asked: |config| asks_tls(&config.client_tls),
    },
    Missing {
        what: "TLS between members",
        flags: &["peer-"],
        why: "TLS between members is not available yet",
        instead: PLAIN,
        asked: |config| asks_tls(&config.peer_tls),
    },
    Missing {
        what: "an https:// or unixs:// listen URL",
        flags: &["listen-"],
        why: "TLS is not available yet",
        instead: "Type http:// or unix:// instead",
        asked: |config| {
            let member = &config.member;
            [&member.listen_client_urls, &member.listen_peer_urls, &member.listen_client_http_urls]
                .into_iter()
                .chain([&config.monitoring.listen_metrics_urls])
                .flatten()
                .any(super::Url::is_tls)
        },
    },
    Missing {
        what: "--auth-token",
        flags: &["auth-token"],
        why: "JWT tokens are not available yet",
        instead: "Type --auth-token=simple",
        asked: |config| config.auth.token != "simple" && !config.auth.token.is_empty(),
    },
    Missing {
        what: "--discovery",
        flags: &["discovery"],
        why: "etcd's old discovery service is not available",
        instead: "Use --discovery-token and --discovery-endpoints, or name the members by --initial-cluster",
        asked: |config| !config.discovery.legacy.is_empty(),
    },
    Missing {
        what: "TLS to the discovery service",
        flags: &["discovery-"],
        why: "TLS to the discovery service is not available yet",
        instead: "Use http:// endpoints, and leave --discovery-insecure-transport at true",
        asked: |config| {
            let discovery = &config.discovery;
            asks_tls(&discovery.tls)
                || !discovery.insecure_transport
                || discovery.endpoints.iter().any(|endpoint| endpoint.starts_with("https://"))
        },
    },
];

fn asks_tls(tls: &super::Tls) -> bool {
    tls.cert_file.is_some()
        || tls.key_file.is_some()
        || tls.trusted_ca_file.is_some()
        || tls.crl_file.is_some()
        || tls.client_cert_file.is_some()
        || tls.client_key_file.is_some()
        || tls.client_cert_auth
        || tls.auto
        || !tls.allowed_cn.is_empty()
        || !tls.allowed_hostname.is_empty()
}

/// Refuses the first thing asked for that isn't there.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    match MISSING.iter().find(|missing| (missing.asked)(config)) {
        Some(missing) => Err(ConfigError::new(named(config, missing), missing.why, missing.instead)),
        None => Ok(()),
    }
}

/// The flags that were given of those that the row is about.
fn named(config: &Config, missing: &Missing) -> String {
    let given: Vec<_> = config
        .given
        .iter()
        .filter(|name| missing.flags.iter().any(|start| name.starts_with(start)))
        .map(|name| format!("--{name}"))
        .collect();
    if given.is_empty() { missing.what.to_owned() } else { given.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::super::flags;
    use super::*;

    #[test]
    fn what_matters_for_safety_is_never_ignored() {
        for (name, value) in [
            ("cert-file", "a.pem"),
            ("client-cert-auth", "true"),
            ("trusted-ca-file", "ca.pem"),
            ("auto-tls", "true"),
            ("client-cert-allowed-hostname", "h"),
            ("peer-cert-file", "a.pem"),
            ("peer-auto-tls", "true"),
            ("peer-cert-allowed-cn", "cn"),
            ("listen-client-http-urls", "https://localhost:1"),
            ("listen-metrics-urls", "https://localhost:1"),
            ("auth-token", "jwt,pub-key=a,priv-key=b,sign-method=RS256"),
            ("discovery", "http://h:1"),
            ("discovery-cacert", "ca.pem"),
            ("discovery-insecure-transport", "false"),
        ] {
            let mut config = Config::default();
            let flag = flags::find(name).expect("a known flag");
            config.set(flag, value).expect("a well-formed value");
            let error = config.finish().expect_err(name);
            assert!(error.why.contains("not available"), "{name}: {error}");
            assert!(error.what.contains(name) || name.starts_with("listen"), "{name}: {error}");
        }
    }
}
