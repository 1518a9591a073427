//! What the flags of TLS make: entrances for clients and members, and a way out to members.

use std::path::PathBuf;

use super::ServerError;
use crate::api::Security;
use crate::env::Env;
use crate::ops::config::{Config, Url};
use crate::tls::{self, Acceptor, Connector, Pair, Settings, TlsError};

/// What listeners let clients and members in by; nothing where no URL asks for TLS.
pub(super) struct Entrances {
    clients: Option<Acceptor>,
    peers: Option<Acceptor>,
}

impl Entrances {
    /// Reads the certificates, and makes those that are to be made, for clients and for peers in these directories.
    pub(super) fn open(config: &Config, made: &[PathBuf; 2], env: &Env) -> Result<Self, ServerError> {
        let [clients_dir, peers_dir] = made;
        let years = config.security.self_signed_cert_validity_years;
        let mut entrances = Self { clients: None, peers: None };
        if config.clients_use_tls() {
            let mut settings = for_clients(config)?;
            if settings.pair.is_none() {
                let member = &config.member;
                let urls = [
                    &member.listen_client_urls,
                    &member.listen_client_http_urls,
                    &config.monitoring.listen_metrics_urls,
                    &config.clustering.advertise_client_urls,
                ];
                settings.pair = Some(tls::self_signed(env, clients_dir, &hosts(&urls), years)?);
            } else if config.client_tls.auto {
                tracing::warn!("ignoring client auto TLS since certs given");
            }
            starting("client", &settings, config.client_tls.client_cert_auth);
            entrances.clients = Some(Acceptor::new("clients", settings, env.clone())?);
        }
        if config.peer_port_uses_tls() {
            let mut settings = for_peers(config)?;
            if settings.pair.is_none() {
                let urls = [&config.member.listen_peer_urls, &config.clustering.initial_advertise_peer_urls];
                settings.pair = Some(tls::self_signed(env, peers_dir, &hosts(&urls), years)?);
            } else if config.peer_tls.auto {
                tracing::warn!("ignoring peer auto TLS since certs given");
            }
            starting("peer", &settings, config.peer_tls.client_cert_auth);
            entrances.peers = Some(Acceptor::new("members", settings, env.clone())?);
        }
        if are_clients_as_good_as_members(config) {
            tracing::warn!(
                "any client's certificate is as good as a member's: they are of one authority, and no name is demanded of members"
            );
        }
        for (url, what) in config.tls_ignored() {
            tracing::warn!(%url, "this URL is not under TLS: {what} are ignored for it");
        }
        Ok(entrances)
    }

    /// For a listener of clients that is asked for by plain URLs, by those under TLS, or by both.
    pub(super) fn client(&self, is_plain: bool, is_tls: bool) -> Result<Security, ServerError> {
        if !is_tls {
            return Ok(Security::Plain);
        }
        let acceptor = self.clients.clone().ok_or_else(missing)?;
        Ok(if is_plain { Security::Either(acceptor) } else { Security::Tls(acceptor) })
    }

    /// For a listener of members.
    pub(super) fn peer(&self, url: &Url) -> Result<Security, ServerError> {
        if !url.is_tls() {
            return Ok(Security::Plain);
        }
        Ok(Security::Tls(self.peers.clone().ok_or_else(missing)?))
    }
}

/// Says what is used, as etcd does.
fn starting(whom: &str, settings: &Settings, cert_auth: bool) {
    let path = |path: Option<&PathBuf>| path.map(|path| path.display().to_string()).unwrap_or_default();
    tracing::info!(
        cert = path(settings.pair.as_ref().map(|pair| &pair.cert)),
        key = path(settings.pair.as_ref().map(|pair| &pair.key)),
        "trusted-ca" = path(settings.trusted_ca.as_ref()),
        "client-cert-auth" = cert_auth,
        "crl-file" = path(settings.crl.as_ref()),
        "starting with {whom} TLS"
    );
    let passed_over = settings.suites.passed_over();
    if !passed_over.is_empty() {
        tracing::warn!(suites = passed_over.join(","), "these cipher suites are not spoken here; the others are");
    }
}

/// The way to members over TLS; none where nothing asks for it.
pub(super) fn connector(config: &Config, env: &Env) -> Result<Option<Connector>, ServerError> {
    if !config.peers_use_tls() {
        return Ok(None);
    }
    Ok(Some(Connector::new("connections to members", for_peers(config)?, env.clone())?))
}

/// Rules between flags have seen to it that there is one.
fn missing() -> ServerError {
    TlsError::Settings("there is no certificate for this listener".to_owned()).into()
}

fn for_clients(config: &Config) -> Result<Settings, ServerError> {
    Ok(Settings {
        pair: pair(&config.client_tls.cert_file, &config.client_tls.key_file),
        // As in etcd, authorities alone mean that clients need a certificate; the flag only demands that there are any.
        trusted_ca: config.client_tls.trusted_ca_file.clone(),
        crl: config.client_tls.crl_file.clone(),
        allowed_cn: config.client_tls.allowed_cn.clone(),
        allowed_hostname: config.client_tls.allowed_hostname.clone(),
        ..shared(config)?
    })
}

fn for_peers(config: &Config) -> Result<Settings, ServerError> {
    Ok(Settings {
        trust_anyone: config.peers_trust_anyone(),
        pair: pair(&config.peer_tls.cert_file, &config.peer_tls.key_file),
        client_pair: pair(&config.peer_tls.client_cert_file, &config.peer_tls.client_key_file),
        trusted_ca: config.peer_tls.trusted_ca_file.clone(),
        crl: config.peer_tls.crl_file.clone(),
        allowed_cn: config.peer_tls.allowed_cn.clone(),
        allowed_hostname: config.peer_tls.allowed_hostname.clone(),
        check_address: !config.peer_tls.skip_client_san_verification,
        ..shared(config)?
    })
}

fn shared(config: &Config) -> Result<Settings, ServerError> {
    let suites = config.cipher_suites()?;
    Ok(Settings {
        version_min: config.security.tls_min_version,
        version_max: config.security.tls_max_version,
        suites,
        ..Settings::default()
    })
}

fn pair(cert: &Option<PathBuf>, key: &Option<PathBuf>) -> Option<Pair> {
    Some(Pair { cert: cert.clone()?, key: key.clone()? })
}

/// Whether a certificate that lets in a client lets it in as a member, too: who a member is it says itself.
fn are_clients_as_good_as_members(config: &Config) -> bool {
    let (clients, peers) = (&config.client_tls, &config.peer_tls);
    config.peer_port_uses_tls()
        && peers.trusted_ca_file.is_some()
        && peers.trusted_ca_file == clients.trusted_ca_file
        && peers.allowed_cn.is_empty()
        && peers.allowed_hostname.is_empty()
}

/// The hosts of URLs; a socket's path is a name of this machine.
fn hosts(urls: &[&Vec<Url>]) -> Vec<String> {
    let host = |url: &Url| if url.host().contains('/') { "localhost".to_owned() } else { url.host().to_owned() };
    let mut hosts: Vec<_> = urls.iter().flat_map(|urls| urls.iter()).map(host).collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_authority_for_all_is_told_unless_members_are_named() {
        let ca = |name: &str| Some(PathBuf::from(name));
        let mut config = Config::default();
        (config.client_tls.trusted_ca_file, config.peer_tls.trusted_ca_file) = (ca("one"), ca("one"));
        assert!(!are_clients_as_good_as_members(&config), "members aren't under TLS");
        config.member.listen_peer_urls = vec!["https://127.0.0.1:2380".parse().expect("a URL")];
        assert!(are_clients_as_good_as_members(&config));
        config.peer_tls.allowed_cn = vec!["member".to_owned()];
        assert!(!are_clients_as_good_as_members(&config));
        config.peer_tls.allowed_cn.clear();
        config.peer_tls.trusted_ca_file = ca("other");
        assert!(!are_clients_as_good_as_members(&config));
    }
}
