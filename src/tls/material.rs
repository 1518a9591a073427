//! From the bytes of files to what a handshake needs; every refusal names its file.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::certificate::{Facts, without_zeros};
use super::error::TlsError;
use super::files::{File, PairFiles};

/// A certificate to show.
#[derive(Clone)]
pub(super) struct Shown {
    pub(super) resolver: Arc<SingleCertAndKey>,
    /// Seconds since the epoch.
    not_after: i64,
}

/// The certificate to show, and what is wrong with that of the files: it can't be used, or it is over.
pub(super) struct Choice {
    pub(super) shown: Shown,
    pub(super) fault: Option<TlsError>,
}

/// Reads a certificate and its key. One that can't be used, or is over, gives way to the one shown before if
/// that is any better.
///
/// # Errors
/// What is wrong with the files, if nothing was shown before.
pub(super) fn choose(
    files: &PairFiles,
    before: Option<&Shown>,
    provider: &CryptoProvider,
    now: SystemTime,
) -> Result<Choice, TlsError> {
    let now = seconds(now);
    match (shown(files, provider), before) {
        (Ok((shown, _)), _) if shown.not_after >= now => Ok(Choice { shown, fault: None }),
        (Ok((_, over)), Some(before)) if before.not_after >= now => {
            Ok(Choice { shown: before.clone(), fault: Some(over) })
        }
        (Ok((shown, over)), _) => Ok(Choice { shown, fault: Some(over) }),
        (Err(error), Some(before)) => Ok(Choice { shown: before.clone(), fault: Some(error) }),
        (Err(error), None) => Err(error),
    }
}

/// What the files hold, and what to say of it when it is over.
fn shown(files: &PairFiles, provider: &CryptoProvider) -> Result<(Shown, TlsError), TlsError> {
    let chain = certificates(&files.cert)?;
    let facts = Facts::read(&chain[0])
        .ok_or_else(|| TlsError::file(&files.cert.path, "what stands there as a certificate is none"))?;
    // What the parser says of a key file could hold some of the key.
    let key = PrivateKeyDer::from_pem_slice(files.key.bytes()?).map_err(|_| {
        TlsError::file(&files.key.path, "no private key in PEM that isn't encrypted (PKCS #8, PKCS #1 or SEC 1)")
    })?;
    let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            TlsError::Mismatch { cert: files.cert.path.clone(), key: files.key.path.clone() }
        }
        rustls::Error::InvalidCertificate(why) => TlsError::file(&files.cert.path, why.to_string()),
        _ => TlsError::file(
            &files.key.path,
            "a key of a kind that isn't spoken here: RSA of 2048 bits and more, ECDSA on P-256 or P-384, Ed25519",
        ),
    })?;
    let over = TlsError::Expired { path: files.cert.path.clone(), when: facts.ends() };
    Ok((Shown { resolver: Arc::new(SingleCertAndKey::from(certified)), not_after: facts.not_after }, over))
}

fn certificates(file: &File) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(file.bytes()?).collect();
    match certs {
        Ok(certs) if certs.is_empty() => Err(TlsError::file(&file.path, "no certificate in PEM")),
        Ok(certs) => Ok(certs),
        Err(error) => Err(TlsError::file(&file.path, format!("not well-formed PEM: {error}"))),
    }
}

/// The certificates that are trusted.
#[derive(Clone)]
pub(super) struct Authorities {
    pub(super) roots: Arc<RootCertStore>,
    /// The same as bytes: a certificate may itself be what is trusted.
    pub(super) exact: HashSet<Vec<u8>>,
}

/// Reads them. With `strict`, each must be one; otherwise what isn't is left out.
pub(super) fn authorities(file: &File, strict: bool) -> Result<Authorities, TlsError> {
    let (mut roots, mut exact) = (RootCertStore::empty(), HashSet::new());
    for (at, cert) in certificates(file)?.into_iter().enumerate() {
        let bytes = cert.to_vec();
        match roots.add(cert) {
            Ok(()) => {
                exact.insert(bytes);
            }
            Err(error) if strict => {
                return Err(TlsError::file(&file.path, format!("certificate {} can't be trusted: {error}", at + 1)));
            }
            Err(_) => {}
        }
    }
    if roots.is_empty() {
        return Err(TlsError::file(&file.path, "no certificate that can be trusted"));
    }
    Ok(Authorities { roots: Arc::new(roots), exact })
}

/// Serial numbers of revoked certificates. As in etcd a number counts whoever gave it out, and the list is
/// believed because its file is.
#[derive(Clone, Debug, Default)]
pub(super) struct Revoked(HashSet<Vec<u8>>);

impl Revoked {
    pub(super) fn holds(&self, serial: &[u8]) -> bool {
        self.0.contains(without_zeros(serial))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Reads lists, of which there may be any number: DER, or sections of PEM.
pub(super) fn revoked(file: &File, now: SystemTime) -> Result<Revoked, TlsError> {
    let bytes = file.bytes()?;
    let lists = if bytes.starts_with(b"\x30") {
        vec![CertificateRevocationListDer::from(bytes)]
    } else {
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(bytes).collect();
        lists.map_err(|error| TlsError::file(&file.path, format!("not well-formed PEM: {error}")))?
    };
    if lists.is_empty() {
        return Err(TlsError::file(&file.path, "no list of revoked certificates, neither in DER nor in PEM"));
    }
    let mut serials = HashSet::new();
    // Of some that were written one after the other, none may be passed over.
    let mut rest: &[u8] = &[];
    let mut lists = lists.iter();
    loop {
        if rest.is_empty() {
            let Some(list) = lists.next() else { break };
            rest = list.as_ref();
        }
        let (behind, list) = CertificateRevocationList::from_der(rest)
            .map_err(|error| TlsError::file(&file.path, format!("not a list of revoked certificates: {error}")))?;
        rest = behind;
        if list.next_update().is_some_and(|next| next.timestamp() < seconds(now)) {
            tracing::warn!(
                path = %file.path.display(),
                "this list of revoked certificates should have been replaced by a newer one; it is still used"
            );
        }
        serials.extend(list.iter_revoked_certificates().map(|entry| without_zeros(entry.raw_serial()).to_vec()));
    }
    Ok(Revoked(serials))
}

pub(super) fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(since).unwrap_or(i64::MAX)
}
