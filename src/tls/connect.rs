//! The client's side of a handshake: connections to other members.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};

use super::error::TlsError;
use super::files::{self, Files};
use super::material::{Choice, Shown};
use super::reload::{Made, Reloading, wall};
use super::settings::Settings;
use super::verify::{Anyone, NoOne, Servers, Terms};
use super::{material, suites};
use crate::env::Env;

/// A stream to a server after the handshake.
pub type ClientStream<S> = tokio_rustls::client::TlsStream<S>;

/// Makes streams to servers private. Cheap to clone.
#[derive(Clone)]
pub struct Connector {
    config: Arc<Reloading<ClientConfig>>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl Connector {
    /// Reads the files; `name` says in logs for whom they are. Blocks while it reads.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn new(name: &'static str, settings: Settings, env: Env) -> Result<Self, TlsError> {
        Ok(Self { config: Arc::new(Reloading::new(name, settings, env, make)?) })
    }

    /// Does the handshake with the server of a URL: its certificate must hold the host of `address`, which is
    /// `host:port`, or the name of a Unix socket. There is no time limit here.
    ///
    /// # Errors
    /// Those of the stream, and why the server isn't trusted or doesn't trust this one.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        address: &str,
        stream: S,
    ) -> io::Result<ClientStream<S>> {
        let config = self.config.current().await;
        tokio_rustls::TlsConnector::from(config).connect(server_name(address)?, stream).await
    }
}

fn server_name(address: &str) -> io::Result<ServerName<'static>> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    // The path of a socket names nobody.
    let host = if host.is_empty() || host.contains('/') { "localhost" } else { host };
    ServerName::try_from(host.to_owned()).map_err(|_| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{host:?} is no name that a certificate could hold"))
    })
}

fn make(settings: &Settings, files: &Files, before: Option<&Shown>, env: &Env) -> Result<Made<ClientConfig>, TlsError> {
    let provider = suites::provider(settings);
    let now = wall(env);
    let authorities = match &files.trusted_ca {
        _ if settings.trust_anyone => None,
        Some(ca) => Some(material::authorities(ca, true)?),
        None => system(env),
    };
    let verifier: Arc<dyn ServerCertVerifier> = match authorities {
        Some(authorities) => {
            let revoked = files.crl.as_ref().map(|file| material::revoked(file, now)).transpose()?;
            let terms = Terms::new(settings, &authorities, revoked)?;
            Arc::new(Servers::new(&authorities, terms, &provider)?)
        }
        None if settings.trust_anyone => Arc::new(Anyone(provider.clone())),
        None => Arc::new(NoOne(provider.clone())),
    };
    let pair = files.client_pair.as_ref().or(files.pair.as_ref());
    let choice = pair.map(|pair| material::choose(pair, before, &provider, now)).transpose()?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&suites::versions(settings))
        .map_err(|error| TlsError::Settings(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let (mut config, shown, fault) = match choice {
        Some(Choice { shown, fault }) => (config.with_client_cert_resolver(shown.resolver.clone()), Some(shown), fault),
        None => (config.with_no_client_auth(), None, None),
    };
    if settings.http2 {
        config.alpn_protocols = vec![b"h2".to_vec()];
    }
    // One connection lives long; what it would save is not worth a session that outlives its certificate.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Made { value: Arc::new(config), shown, fault })
}

/// The system's authorities. A member that is alone dials nobody and needs none: without them it starts, and
/// trusts no one.
fn system(env: &Env) -> Option<material::Authorities> {
    let found = files::system(env.disk.as_ref()).map(|file| material::authorities(&file, false));
    let found = found.unwrap_or_else(|| Err(TlsError::Settings("this system trusts no authority".to_owned())));
    found
        .inspect_err(|error| {
            tracing::warn!(%error, "no authority to trust was given: no member can be reached over TLS");
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn where_no_authority_is_trusted_only_a_dial_fails() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let cert = rcgen::CertificateParams::new(["localhost".to_owned()]).expect("a name").self_signed(&key);
        let der = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        let server = rustls::ServerConfig::builder_with_provider(suites::provider(&Settings::default()))
            .with_protocol_versions(&suites::versions(&Settings::default()))
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![cert.expect("signed").der().clone()], der.into())
            .expect("a pair");
        // No file is there, as in an image made from scratch.
        let env = Env { disk: Arc::new(crate::env::MemDisk::new()), ..Env::real() };
        let connector = Connector::new("test", Settings::default(), env).expect("a start");
        let (here, there) = tokio::io::duplex(64 << 10);
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        let (_, dialled) = tokio::join!(acceptor.accept(here), connector.connect("localhost:1", there));
        let error = dialled.expect_err("nobody is trusted").to_string();
        assert!(error.contains("no authority is trusted"), "{error}");
    }

    #[test]
    fn the_name_to_expect_is_the_host_of_the_url() {
        let name = |address: &str| server_name(address).map(|name| name.to_str().into_owned()).ok();
        assert_eq!(name("a.example:2380").as_deref(), Some("a.example"));
        assert_eq!(name("127.0.0.1:2380").as_deref(), Some("127.0.0.1"));
        assert_eq!(name("[::1]:2380").as_deref(), Some("::1"));
        assert_eq!(name("localhost:20001").as_deref(), Some("localhost"));
        assert_eq!(name("/run/a.sock").as_deref(), Some("localhost"));
        assert_eq!(name("a b:1"), None);
    }
}
