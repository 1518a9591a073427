//! Whether the certificate of the other side is good enough.
//!
//! ```text
//! end entity ─┬► is itself one of the authorities ─► its time, its purpose ─┐
//!             └► webpki: signatures up to an authority, time, purpose ──────┴► name (servers) ─► revoked? ─► allowed?
//! ```

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::certificate::Facts;
use super::error::TlsError;
use super::material::{Authorities, Revoked};
use super::settings::Settings;

/// What is asked of a certificate beyond its authority.
#[derive(Debug)]
pub(super) struct Terms {
    revoked: Revoked,
    common_names: Vec<String>,
    hosts: Vec<ServerName<'static>>,
    exact: std::collections::HashSet<Vec<u8>>,
}

impl Terms {
    pub(super) fn new(
        settings: &Settings,
        authorities: &Authorities,
        revoked: Option<Revoked>,
    ) -> Result<Self, TlsError> {
        let host = |text: &String| {
            // As in a URL, an address may have brackets.
            let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
            let refused = || TlsError::Settings(format!("{text:?} is neither a host name nor an address"));
            ServerName::try_from(bare.to_owned()).map_err(|_| refused())
        };
        Ok(Self {
            revoked: revoked.unwrap_or_default(),
            common_names: settings.allowed_cn.clone(),
            hosts: settings.allowed_hostname.iter().map(host).collect::<Result<_, _>>()?,
            exact: authorities.exact.clone(),
        })
    }

    fn is_trusted_itself(&self, end_entity: &CertificateDer<'_>) -> bool {
        self.exact.contains(end_entity.as_ref())
    }

    /// That a certificate which is trusted itself is not over and made for this.
    fn in_time(
        end_entity: &CertificateDer<'_>,
        now: UnixTime,
        for_this: fn(&Facts) -> bool,
    ) -> Result<(), CertificateError> {
        let facts = Facts::read(end_entity).ok_or(CertificateError::BadEncoding)?;
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now < facts.not_before {
            return Err(CertificateError::NotValidYet);
        }
        if now > facts.not_after {
            return Err(CertificateError::Expired);
        }
        if for_this(&facts) { Ok(()) } else { Err(CertificateError::InvalidPurpose) }
    }

    fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<(), CertificateError> {
        if !self.revoked.is_empty() {
            for cert in std::iter::once(end_entity).chain(intermediates) {
                let facts = Facts::read(cert).ok_or(CertificateError::BadEncoding)?;
                if self.revoked.holds(&facts.serial) {
                    return Err(CertificateError::Revoked);
                }
            }
        }
        if !self.common_names.is_empty() {
            let facts = Facts::read(end_entity).ok_or(CertificateError::BadEncoding)?;
            if !self.common_names.contains(&facts.common_name) {
                return Err(CertificateError::NotValidForName);
            }
        }
        if !self.hosts.is_empty() {
            let parsed = ParsedCertificate::try_from(end_entity).map_err(|_| CertificateError::BadEncoding)?;
            if !self.hosts.iter().any(|host| verify_server_name(&parsed, host).is_ok()) {
                return Err(CertificateError::NotValidForName);
            }
        }
        Ok(())
    }
}

/// Checks clients.
#[derive(Debug)]
pub(super) struct Clients {
    inner: Arc<dyn ClientCertVerifier>,
    terms: Terms,
}

impl Clients {
    pub(super) fn new(
        authorities: &Authorities,
        terms: Terms,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let inner = WebPkiClientVerifier::builder_with_provider(authorities.roots.clone(), provider.clone()).build();
        let inner = inner.map_err(|error| TlsError::Settings(error.to_string()))?;
        Ok(Self { inner, terms })
    }
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.terms.is_trusted_itself(end_entity) {
            Terms::in_time(end_entity, now, |facts| facts.for_clients)?;
        } else {
            self.inner.verify_client_cert(end_entity, intermediates, now)?;
        }
        self.terms.check(end_entity, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Checks servers that this one connects to.
#[derive(Debug)]
pub(super) struct Servers {
    inner: Arc<WebPkiServerVerifier>,
    terms: Terms,
}

impl Servers {
    pub(super) fn new(
        authorities: &Authorities,
        terms: Terms,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let inner = WebPkiServerVerifier::builder_with_provider(authorities.roots.clone(), provider.clone()).build();
        let inner = inner.map_err(|error| TlsError::Settings(error.to_string()))?;
        Ok(Self { inner, terms })
    }
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.terms.is_trusted_itself(end_entity) {
            Terms::in_time(end_entity, now, |facts| facts.for_servers)?;
            verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        } else {
            self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        }
        self.terms.check(end_entity, intermediates)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Takes any server that holds the key of what it shows: where certificates come from no authority,
/// they keep listeners out, not impostors.
#[derive(Debug)]
pub(super) struct Anyone(pub(super) Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Takes no server: where there is no authority to trust.
#[derive(Debug)]
pub(super) struct NoOne(pub(super) Arc<CryptoProvider>);

impl ServerCertVerifier for NoOne {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Err(Error::General("no authority is trusted: type --peer-trusted-ca-file".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
