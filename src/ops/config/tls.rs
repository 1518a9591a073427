//! The rules between the flags of TLS. Texts are etcd's where it has the rule.
//!
//! A side (clients, members) is held to them only if it may use TLS: with plain URLs a listener's flags are
//! without effect, and a warning says so. Members use it as soon as one may be dialled by it. What would weaken TLS silently is refused, also
//! where etcd lets it pass.

use super::{Config, ConfigError, Tls, Url};
use crate::tls::Version;

/// One side's flags.
struct Side<'a> {
    /// How the names of its flags begin.
    prefix: &'static str,
    tls: &'a Tls,
    /// The flag that asks for authorities to be checked.
    cert_auth: &'static str,
    crl: &'static str,
    allowed_cn: &'static str,
    allowed_hostname: &'static str,
    client_cert: &'static str,
    client_key: &'static str,
}

impl Config {
    fn client_side(&self) -> Side<'_> {
        Side {
            prefix: "",
            tls: &self.client_tls,
            cert_auth: "client-cert-auth",
            crl: "client-crl-file",
            // No flag: a key of the config file.
            allowed_cn: "client-transport-security.allowed-cn",
            allowed_hostname: "client-cert-allowed-hostname",
            client_cert: "client-cert-file",
            client_key: "client-key-file",
        }
    }

    fn peer_side(&self) -> Side<'_> {
        Side {
            prefix: "peer-",
            tls: &self.peer_tls,
            cert_auth: "peer-client-cert-auth",
            crl: "peer-crl-file",
            allowed_cn: "peer-cert-allowed-cn",
            allowed_hostname: "peer-cert-allowed-hostname",
            client_cert: "peer-client-cert-file",
            client_key: "peer-client-key-file",
        }
    }

    /// The URLs of listeners that use the TLS for clients.
    fn client_listeners(&self) -> impl Iterator<Item = &Url> {
        let member = &self.member;
        let lists = [&member.listen_client_urls, &member.listen_client_http_urls, &self.monitoring.listen_metrics_urls];
        lists.into_iter().flatten()
    }

    /// Whether a listener for clients, pages or metrics speaks TLS.
    pub fn clients_use_tls(&self) -> bool {
        self.client_listeners().any(Url::is_tls)
    }

    /// Whether the peer port speaks TLS.
    pub fn peer_port_uses_tls(&self) -> bool {
        self.member.listen_peer_urls.iter().any(Url::is_tls)
    }

    /// Whether members may have to be reached over TLS.
    pub fn peers_use_tls(&self) -> bool {
        let clustering = &self.clustering;
        let urls = clustering.initial_cluster.iter().flat_map(|(_, urls)| urls);
        let tls = &self.peer_tls;
        self.peer_port_uses_tls()
            || urls.chain(&clustering.initial_advertise_peer_urls).any(Url::is_tls)
            || tls.auto
            || [&tls.cert_file, &tls.client_cert_file, &tls.trusted_ca_file].into_iter().any(Option::is_some)
    }

    /// Whether members take each other's certificates unseen, since they make them themselves.
    pub fn peers_trust_anyone(&self) -> bool {
        self.peer_side().makes_its_own() && self.peer_tls.trusted_ca_file.is_none()
    }

    /// TLS flags that change nothing because their listener is plain: the URL, and what is ignored.
    pub fn tls_ignored(&self) -> Vec<(&Url, &'static str)> {
        let of = |tls: &Tls| {
            [
                (tls.cert_file.is_some() || tls.key_file.is_some(), "certificate and key"),
                (tls.auto, "certificates that are made here"),
                (tls.client_cert_auth, "the demand for certificates of clients"),
                (tls.trusted_ca_file.is_some(), "the authorities to trust"),
                (tls.crl_file.is_some(), "lists of revoked certificates"),
                (!tls.allowed_cn.is_empty() || !tls.allowed_hostname.is_empty(), "names that are allowed"),
            ]
            .into_iter()
            .filter_map(|(given, what)| given.then_some(what))
            .collect::<Vec<_>>()
        };
        let sides = [
            (self.member.listen_client_urls.as_slice(), of(&self.client_tls)),
            (self.member.listen_client_http_urls.as_slice(), of(&self.client_tls)),
            (self.member.listen_peer_urls.as_slice(), of(&self.peer_tls)),
        ];
        sides
            .into_iter()
            .flat_map(|(urls, ignored)| {
                let plain = urls.iter().filter(|url| !url.is_tls());
                plain.flat_map(move |url| ignored.clone().into_iter().map(move |what| (url, what)))
            })
            .collect()
    }
}

/// Checks all of them.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    versions(config)?;
    config.cipher_suites()?;
    one_address_one_use(config)?;
    if let Some(url) = config.client_listeners().find(|url| url.is_tls()) {
        let is_metrics = config.monitoring.listen_metrics_urls.contains(url);
        let missing = if is_metrics {
            "client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url".to_owned()
        } else {
            format!("TLS key/cert (--cert-file, --key-file) must be provided for client url {url} with HTTPS scheme")
        };
        config.client_side().has_pair(url, missing)?;
        config.client_side().check(config)?;
    }
    if let Some(url) = config.member.listen_peer_urls.iter().find(|url| url.is_tls()) {
        let missing = format!("cannot listen on TLS for {}: KeyFile and CertFile are not presented", url.address());
        config.peer_side().has_pair(url, missing)?;
    }
    // Also one that only dials others over TLS must not trust more than its flags say.
    if config.peers_use_tls() {
        config.peer_side().check(config)?;
        config.peer_side().check_made()?;
    }
    Ok(())
}

fn versions(config: &Config) -> Result<(), ConfigError> {
    let security = &config.security;
    if let Some(max) = security.tls_max_version
        && security.tls_min_version > max
    {
        let name = |version| if version == Version::V12 { "TLS1.2" } else { "TLS1.3" };
        let (min, max) = (name(security.tls_min_version), name(max));
        return Err(ConfigError::new(
            format!("--tls-min-version={min} --tls-max-version={max}"),
            format!("min version ({min}) is greater than max version ({max})"),
            format!("Type --tls-min-version={max}, or leave --tls-max-version out"),
        ));
    }
    if security.tls_min_version == Version::V13 && !security.cipher_suites.is_empty() {
        return Err(ConfigError::new(
            "--cipher-suites and --tls-min-version=TLS1.3",
            "cipher suites cannot be configured when only TLS1.3 is enabled",
            "Leave --cipher-suites out",
        ));
    }
    Ok(())
}

fn one_address_one_use(config: &Config) -> Result<(), ConfigError> {
    let member = &config.member;
    let is_client = |url: &&Url| member.listen_client_urls.iter().any(|client| client.address() == url.address());
    match member.listen_client_http_urls.iter().find(is_client) {
        Some(url) => Err(ConfigError::new(
            format!("--listen-client-http-urls={url}"),
            format!("cannot bind both --listen-client-urls and --listen-client-http-urls on the same url {url}"),
            "Give pages a port of their own, or leave --listen-client-http-urls out",
        )),
        None => Ok(()),
    }
}

impl Side<'_> {
    fn flag(&self, name: &str) -> String {
        format!("--{}{name}", self.prefix)
    }

    /// A listener has something to show.
    fn has_pair(&self, url: &Url, missing: String) -> Result<(), ConfigError> {
        let tls = self.tls;
        if tls.cert_file.is_some() || tls.key_file.is_some() || tls.auto {
            return Ok(());
        }
        let (cert, key, auto) = (self.flag("cert-file"), self.flag("key-file"), self.flag("auto-tls"));
        let instead = format!("Add {cert} and {key}, or {auto}, or type {}", plain(url));
        Err(ConfigError::new(url.to_string(), missing, instead))
    }

    fn check(&self, config: &Config) -> Result<(), ConfigError> {
        let tls = self.tls;
        let text = |path: &Option<std::path::PathBuf>| path.as_deref().unwrap_or("".as_ref()).display().to_string();
        if tls.cert_file.is_some() != tls.key_file.is_some() {
            let (cert, key) = (self.flag("cert-file"), self.flag("key-file"));
            let (key_file, cert_file) = (text(&tls.key_file), text(&tls.cert_file));
            return Err(ConfigError::new(
                format!("{cert} and {key}"),
                format!("KeyFile and CertFile must both be present[key: {key_file}, cert: {cert_file}]"),
                format!("Add {}", if tls.key_file.is_none() { key } else { cert }),
            ));
        }
        if tls.client_cert_file.is_some() != tls.client_key_file.is_some() {
            let (key, cert) = (text(&tls.client_key_file), text(&tls.client_cert_file));
            return Err(ConfigError::new(
                format!("--{} and --{}", self.client_cert, self.client_key),
                format!(
                    "ClientKeyFile and ClientCertFile must both be present or both absent: key: {key}, cert: {cert}]"
                ),
                "Give both, or none",
            ));
        }
        if !tls.allowed_cn.is_empty() && !tls.allowed_hostname.is_empty() {
            return Err(ConfigError::new(
                format!("--{} and --{}", self.allowed_cn, self.allowed_hostname),
                format!(
                    "AllowedCNs and AllowedHostnames are mutually exclusive (cns={:?}, hostnames={:?})",
                    tls.allowed_cn, tls.allowed_hostname
                ),
                "Keep one of them",
            ));
        }
        if tls.trusted_ca_file.is_none()
            && let Some(asked) = self.asks_for_authorities()
        {
            return Err(ConfigError::new(
                format!("--{asked}"),
                format!("certificates of others can't be checked without {}", self.flag("trusted-ca-file")),
                format!("Add {}", self.flag("trusted-ca-file")),
            ));
        }
        if self.makes_its_own() && config.security.self_signed_cert_validity_years == 0 {
            return Err(ConfigError::new(
                "--self-signed-cert-validity=0",
                "selfSignedCertValidity is invalid,it should be greater than 0",
                "Type --self-signed-cert-validity=1",
            ));
        }
        Ok(())
    }

    /// The flag that makes no sense without authorities, if one was given.
    fn asks_for_authorities(&self) -> Option<&'static str> {
        let tls = self.tls;
        [
            (tls.client_cert_auth, self.cert_auth),
            (tls.crl_file.is_some(), self.crl),
            (!tls.allowed_hostname.is_empty(), self.allowed_hostname),
            (!tls.allowed_cn.is_empty(), self.allowed_cn),
        ]
        .into_iter()
        .find(|(given, _)| *given)
        .map(|(_, flag)| flag)
    }

    fn makes_its_own(&self) -> bool {
        self.tls.auto && self.tls.cert_file.is_none()
    }

    /// Members that make their certificates themselves take any of the others'.
    fn check_made(&self) -> Result<(), ConfigError> {
        if self.makes_its_own() && self.tls.trusted_ca_file.is_some() {
            return Err(ConfigError::new(
                "--peer-auto-tls and --peer-trusted-ca-file",
                "certificates that members make themselves come from no authority, so nothing would be checked",
                "Add --peer-cert-file and --peer-key-file instead of --peer-auto-tls",
            ));
        }
        Ok(())
    }
}

fn plain(url: &Url) -> String {
    let scheme = if url.is_unix() { "unix" } else { "http" };
    format!("{scheme}://{}", url.address())
}

#[cfg(test)]
mod tests {
    use super::super::flags;
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        config.clustering.initial_cluster = Default::default();
        for (name, value) in pairs {
            config.set(flags::find(name).expect("a known flag"), value).expect("a well-formed value");
        }
        config.finish()
    }

    const CLIENT: [(&str, &str); 2] =
        [("listen-client-urls", "https://localhost:1"), ("advertise-client-urls", "https://localhost:1")];
    const PAIR: [(&str, &str); 2] = [("cert-file", "c"), ("key-file", "k")];
    const PEER: [(&str, &str); 4] = [
        ("listen-peer-urls", "https://localhost:2"),
        ("initial-advertise-peer-urls", "https://localhost:2"),
        ("peer-cert-file", "c"),
        ("peer-key-file", "k"),
    ];

    #[test]
    fn refusals_are_etcds_and_name_the_way_out() {
        type Given<'a> = &'a [&'a [(&'a str, &'a str)]];
        let cases: [(Given<'_>, &str, &str); 17] = [
            (
                &[&CLIENT],
                "TLS key/cert (--cert-file, --key-file) must be provided for client url https://localhost:1",
                "http://localhost:1",
            ),
            (&[&CLIENT, &PAIR[..1]], "KeyFile and CertFile must both be present[key: , cert: c]", "Add --key-file"),
            (&[&CLIENT, &PAIR[1..]], "KeyFile and CertFile must both be present[key: k, cert: ]", "Add --cert-file"),
            (
                &[&[("listen-metrics-urls", "https://localhost:3")]],
                "must be provided for metrics secure url",
                "--auto-tls",
            ),
            (
                &[&PEER[..2]],
                "cannot listen on TLS for localhost:2: KeyFile and CertFile are not presented",
                "--peer-cert-file",
            ),
            (
                &[&PEER, &[("peer-client-cert-file", "c")]],
                "ClientKeyFile and ClientCertFile must both be present",
                "both",
            ),
            (&[&CLIENT, &PAIR, &[("client-key-file", "c")]], "must both be present or both absent", "both"),
            (
                &[&PEER, &[("peer-cert-allowed-cn", "a"), ("peer-cert-allowed-hostname", "b")]],
                "mutually exclusive",
                "one of them",
            ),
            (&[&CLIENT, &PAIR, &[("client-cert-auth", "true")]], "without --trusted-ca-file", "Add --trusted-ca-file"),
            (&[&CLIENT, &PAIR, &[("client-crl-file", "x")]], "without --trusted-ca-file", "Add --trusted-ca-file"),
            (
                &[&PEER, &[("peer-cert-allowed-cn", "x")]],
                "without --peer-trusted-ca-file",
                "Add --peer-trusted-ca-file",
            ),
            (
                &[&PEER[..2], &[("peer-auto-tls", "true"), ("peer-trusted-ca-file", "x")]],
                "come from no authority",
                "--peer-cert-file",
            ),
            (
                &[&CLIENT, &[("auto-tls", "true"), ("self-signed-cert-validity", "0")]],
                "selfSignedCertValidity is invalid,it should be greater than 0",
                "=1",
            ),
            (&[&[("cipher-suites", "x")]], "unexpected TLS cipher suite \"x\"", "TLS_ECDHE"),
            (
                &[&[("cipher-suites", "TLS_AES_128_GCM_SHA256"), ("tls-min-version", "TLS1.3")]],
                "cipher suites cannot be configured when only TLS1.3 is enabled",
                "out",
            ),
            (
                &[&[("tls-min-version", "TLS1.3"), ("tls-max-version", "TLS1.2")]],
                "min version (TLS1.3) is greater than max version (TLS1.2)",
                "TLS1.2",
            ),
            (
                &[&[("listen-client-http-urls", "http://localhost:2379")]],
                "cannot bind both --listen-client-urls and",
                "port",
            ),
        ];
        for (parts, why, instead) in cases {
            let error = with(&parts.concat()).expect_err(why);
            assert!(error.why.contains(why) && error.instead.contains(instead), "{parts:?}: {error}");
        }
    }

    #[test]
    fn what_is_right_is_taken_and_what_is_ignored_is_said() {
        assert!(with(&CLIENT.iter().chain(&PAIR).chain(&PEER).copied().collect::<Vec<_>>()).is_ok());
        assert!(with(&[&CLIENT[..], &[("auto-tls", "true")]].concat()).is_ok());
        assert!(
            with(&[("tls-max-version", "TLS1.3"), ("cipher-suites", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")]).is_ok()
        );
        let plain = with(&[("cert-file", "c"), ("client-cert-auth", "true"), ("peer-key-file", "k")]).expect("ignored");
        assert!(!plain.clients_use_tls() && !plain.peer_port_uses_tls());
        let said: Vec<_> = plain.tls_ignored().iter().map(|(url, _)| url.to_string()).collect();
        assert_eq!(said, ["http://localhost:2379", "http://localhost:2379", "http://localhost:2380"]);
        for (flag, value, what) in [
            ("auto-tls", "true", "made here"),
            ("trusted-ca-file", "x", "authorities"),
            ("client-crl-file", "x", "revoked"),
            ("client-cert-allowed-hostname", "x", "names"),
        ] {
            let plain = with(&[(flag, value)]).expect("ignored");
            assert!(plain.tls_ignored().iter().any(|(_, said)| said.contains(what)), "--{flag}");
        }
        let peers = with(&[("peer-trusted-ca-file", "x"), ("peer-cert-allowed-cn", "x")]).expect("ignored");
        assert_eq!(peers.tls_ignored().len(), 2);
    }

    #[test]
    fn members_that_only_dial_over_tls_are_held_to_the_rules_too() {
        let dials = ("initial-advertise-peer-urls", "https://localhost:2");
        let pair = [("peer-cert-file", "c"), ("peer-key-file", "k")];
        assert!(with(&[dials]).is_ok_and(|config| config.peers_use_tls() && !config.peers_trust_anyone()));
        for (given, why) in [
            (&[("peer-crl-file", "x")][..], "without --peer-trusted-ca-file"),
            (&[("peer-cert-allowed-cn", "x")], "without --peer-trusted-ca-file"),
            (&[("peer-auto-tls", "true"), ("peer-trusted-ca-file", "x")], "come from no authority"),
            (&[("peer-cert-file", "c")], "must both be present"),
        ] {
            let error = with(&[&[dials], given].concat()).expect_err(why);
            assert!(error.why.contains(why), "{given:?}: {error}");
        }
        let auto = [("peer-auto-tls", "true")];
        assert!(with(&auto).is_ok_and(|config| config.peers_trust_anyone()));
        assert!(with(&[&auto[..], &pair].concat()).is_ok_and(|config| !config.peers_trust_anyone()));
    }
}
