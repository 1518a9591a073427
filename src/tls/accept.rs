//! The server's side of a handshake.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, NoServerSessionStorage};
use rustls::{AlertDescription, CertificateError, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};

use super::certificate::{ClientIdentity, Facts};
use super::error::TlsError;
use super::files::Files;
use super::material::{Choice, Shown};
use super::reload::{Made, Reloading, wall};
use super::settings::Settings;
use super::verify::{Clients, Terms};
use super::{material, san, suites};
use crate::env::Env;

/// A client's stream after its handshake.
pub type ServerStream<S> = tokio_rustls::server::TlsStream<S>;

/// Makes streams of clients private. Cheap to clone.
#[derive(Clone)]
pub struct Acceptor {
    config: Arc<Reloading<ServerConfig>>,
    check_address: bool,
    demands: bool,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("demands", &self.demands).finish_non_exhaustive()
    }
}

/// Why a client is not let in; texts are Go's where etcd's users know them.
#[derive(Debug)]
pub enum HandshakeError {
    /// It went away before it said anything, as a port scanner does.
    Gone,
    /// Anything else.
    Refused(String),
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("EOF"),
            Self::Refused(why) => f.write_str(why),
        }
    }
}

impl Acceptor {
    /// Reads the files; `name` says in logs for whom they are. Blocks while it reads.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn new(name: &'static str, settings: Settings, env: Env) -> Result<Self, TlsError> {
        let (check_address, demands) = (settings.check_address, settings.trusted_ca.is_some());
        Ok(Self { config: Arc::new(Reloading::new(name, settings, env, make)?), check_address, demands })
    }

    /// Whether clients need a certificate.
    pub fn demands_certificates(&self) -> bool {
        self.demands
    }

    /// Does the handshake. `address` is the client's, unless it comes over a Unix socket. There is no time limit
    /// here. `None` for a client of whom no certificate was demanded.
    ///
    /// # Errors
    /// Why the client isn't let in.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        address: Option<IpAddr>,
    ) -> Result<(ServerStream<S>, Option<ClientIdentity>), HandshakeError> {
        let config = self.config.current().await;
        let stream = tokio_rustls::TlsAcceptor::from(config).accept(stream).await.map_err(|error| why(&error))?;
        // There is one only if it was demanded, and then it was verified.
        let Some(cert) = stream.get_ref().1.peer_certificates().and_then(|certs| certs.first()) else {
            return Ok((stream, None));
        };
        if self.check_address
            && let Some(address) = address
        {
            san::check(cert, address).await.map_err(HandshakeError::Refused)?;
        }
        let facts = Facts::read(cert);
        let facts =
            facts.ok_or_else(|| HandshakeError::Refused("the client's certificate can't be read".to_owned()))?;
        Ok((stream, Some(ClientIdentity { common_name: facts.common_name })))
    }
}

fn make(settings: &Settings, files: &Files, before: Option<&Shown>, env: &Env) -> Result<Made<ServerConfig>, TlsError> {
    let provider = suites::provider(settings);
    let Some(pair) = &files.pair else {
        return Err(TlsError::Settings("a listener needs a certificate and its key".to_owned()));
    };
    let now = wall(env);
    let Choice { shown, fault } = material::choose(pair, before, &provider, now)?;
    let clients: Arc<dyn ClientCertVerifier> = match &files.trusted_ca {
        Some(ca) => {
            let authorities = material::authorities(ca, true)?;
            let revoked = files.crl.as_ref().map(|file| material::revoked(file, now)).transpose()?;
            let terms = Terms::new(settings, &authorities, revoked)?;
            Arc::new(Clients::new(&authorities, terms, &provider)?)
        }
        None => Arc::new(NoClientAuth),
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&suites::versions(settings))
        .map_err(|error| TlsError::Settings(error.to_string()))?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(shown.resolver.clone());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if files.trusted_ca.is_some() {
        // A session taken up again would go round the certificate, which may have been revoked since.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(Made { value: Arc::new(config), shown: Some(shown), fault })
}

fn why(error: &io::Error) -> HandshakeError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    HandshakeError::Refused(match inner {
        None if error.kind() == io::ErrorKind::UnexpectedEof => return HandshakeError::Gone,
        None => error.to_string(),
        Some(rustls::Error::AlertReceived(alert)) => told(*alert),
        Some(rustls::Error::NoCertificatesPresented) => "tls: client didn't provide a certificate".to_owned(),
        // Clients aren't asked for any other name than those that are allowed.
        Some(rustls::Error::InvalidCertificate(CertificateError::NotValidForName)) => {
            "client certificate authentication failed".to_owned()
        }
        Some(rustls::Error::InvalidMessage(_)) => "tls: first record does not look like a TLS handshake".to_owned(),
        Some(other) => format!("tls: {other}"),
    })
}

/// Why the other side refused this one, as Go words it.
pub(super) fn told(alert: AlertDescription) -> String {
    let text = match alert {
        AlertDescription::AccessDenied => "access denied",
        AlertDescription::BadCertificate => "bad certificate",
        AlertDescription::CertificateExpired => "expired certificate",
        AlertDescription::CertificateRequired => "certificate required",
        AlertDescription::CertificateRevoked => "revoked certificate",
        AlertDescription::CertificateUnknown => "unknown certificate",
        AlertDescription::DecryptError => "error decrypting message",
        AlertDescription::HandshakeFailure => "handshake failure",
        AlertDescription::InternalError => "internal error",
        AlertDescription::ProtocolVersion => "protocol version not supported",
        AlertDescription::UnknownCA => "unknown certificate authority",
        AlertDescription::UnsupportedCertificate => "unsupported certificate",
        other => return format!("remote error: tls: {other:?}"),
    };
    format!("remote error: tls: {text}")
}
