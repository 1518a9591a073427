//! Certificates for tests, made at run time.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use time::{Duration, OffsetDateTime};

/// An authority.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate to be made.
pub(crate) struct Wanted<'a> {
    pub(crate) common_name: &'a str,
    pub(crate) names: &'a [&'a str],
    pub(crate) serial: u8,
    /// Days from now to its end.
    pub(crate) days: i64,
    pub(crate) usages: &'a [ExtendedKeyUsagePurpose],
}

impl Default for Wanted<'_> {
    fn default() -> Self {
        let usages = &[ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Self { common_name: "", names: &["localhost", "127.0.0.1"], serial: 1, days: 1, usages }
    }
}

/// Where a certificate and its key lie.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

fn subject(params: &mut CertificateParams, common_name: &str) {
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "tests");
    if !common_name.is_empty() {
        params.distinguished_name.push(DnType::CommonName, common_name);
    }
}

/// Puts a file in place in one step.
pub(crate) fn put(path: &Path, bytes: impl AsRef<[u8]>) {
    let draft = path.with_extension("draft");
    fs::write(&draft, bytes).expect("the test's directory can be written");
    fs::rename(&draft, path).expect("the test's directory can be written");
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        subject(&mut params, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("signed") }
    }

    /// Writes its certificate.
    pub(crate) fn write(&self, dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(format!("{name}.pem"));
        put(&path, self.issuer.pem());
        path
    }

    /// Its certificate.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Issues a certificate and writes it: the key first, as somebody does who rotates by hand.
    pub(crate) fn issue(&self, dir: &Path, name: &str, wanted: &Wanted<'_>) -> Issued {
        let (params, key) = params(wanted);
        let cert = params.signed_by(&key, &self.issuer).expect("signed");
        write_pair(dir, name, &cert.pem(), &key)
    }

    /// Lists serial numbers as revoked: DER and PEM.
    pub(crate) fn revoke(&self, serials: &[u8]) -> (Vec<u8>, String) {
        let now = OffsetDateTime::now_utc();
        let entry = |serial: &u8| RevokedCertParams {
            serial_number: SerialNumber::from(vec![*serial]),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now,
            next_update: now + Duration::DAY,
            crl_number: SerialNumber::from(vec![1]),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).expect("signed");
        (list.der().to_vec(), list.pem().expect("PEM"))
    }
}

/// A certificate that is its own authority, as `openssl req -x509` makes them: marked as one, or not.
pub(crate) fn self_signed(dir: &Path, name: &str, is_ca: bool) -> Issued {
    let (mut params, key) = params(&Wanted { common_name: name, ..Wanted::default() });
    params.is_ca = if is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
    let cert = params.self_signed(&key).expect("signed");
    write_pair(dir, name, &cert.pem(), &key)
}

fn params(wanted: &Wanted<'_>) -> (CertificateParams, KeyPair) {
    let names: Vec<String> = wanted.names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    subject(&mut params, wanted.common_name);
    params.serial_number = Some(SerialNumber::from(vec![wanted.serial]));
    params.not_before = OffsetDateTime::now_utc() - Duration::days(30);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(wanted.days);
    params.extended_key_usages = wanted.usages.to_vec();
    (params, KeyPair::generate().expect("a key"))
}

fn write_pair(dir: &Path, name: &str, cert: &str, key: &KeyPair) -> Issued {
    let issued = Issued { cert: dir.join(format!("{name}.crt")), key: dir.join(format!("{name}.key")) };
    put(&issued.key, key.serialize_pem());
    put(&issued.cert, cert);
    issued
}
