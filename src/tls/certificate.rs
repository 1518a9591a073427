//! What a certificate says: whose it is, how long it lasts, what it may be used for.

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// Who a client is, by a certificate that was verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The subject's common name; empty if it has none.
    pub common_name: String,
}

/// What is read of a certificate. It says nothing of whether it may be trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The last common name of the subject, as Go takes it.
    pub(super) common_name: String,
    pub(super) dns_names: Vec<String>,
    /// Its IP addresses as text.
    pub(super) addresses: Vec<String>,
    /// Seconds since the epoch.
    pub(super) not_before: i64,
    /// Seconds since the epoch.
    pub(super) not_after: i64,
    /// Big-endian, without leading zeros.
    pub(super) serial: Vec<u8>,
    pub(super) for_clients: bool,
    pub(super) for_servers: bool,
}

impl Facts {
    /// Reads a certificate; `None` if it is none.
    pub(super) fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, cert) = X509Certificate::from_der(der).ok()?;
        let mut facts = Self {
            common_name: cert
                .subject()
                .iter_common_name()
                .last()
                .and_then(|name| name.as_str().ok())
                .unwrap_or_default()
                .to_owned(),
            not_before: cert.validity().not_before.timestamp(),
            not_after: cert.validity().not_after.timestamp(),
            serial: without_zeros(cert.raw_serial()).to_vec(),
            for_clients: true,
            for_servers: true,
            ..Self::default()
        };
        if let Some(names) = cert.subject_alternative_name().ok()? {
            for name in &names.value.general_names {
                match name {
                    GeneralName::DNSName(name) => facts.dns_names.push((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => facts.addresses.push(address(bytes)),
                    _ => {}
                }
            }
        }
        if let Some(usage) = cert.extended_key_usage().ok()? {
            facts.for_clients = usage.value.any || usage.value.client_auth;
            facts.for_servers = usage.value.any || usage.value.server_auth;
        }
        Some(facts)
    }

    /// The end of its time, for people.
    pub(super) fn ends(&self) -> String {
        let end = OffsetDateTime::from_unix_timestamp(self.not_after).ok();
        end.and_then(|end| end.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{} s after 1970", self.not_after))
    }
}

fn address(bytes: &[u8]) -> String {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let address = four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
    // One that is none matches none, and is still a name.
    address.map_or_else(|_| "an address of a wrong length".to_owned(), |address| address.to_string())
}

/// A serial number as it is compared.
pub(super) fn without_zeros(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_tells_of_itself() {
        let mut params =
            rcgen::CertificateParams::new(["a.example".to_owned(), "127.0.0.1".to_owned()]).expect("names");
        params.distinguished_name.push(rcgen::DnType::CommonName, "alice");
        params.serial_number = Some(vec![0, 0, 7].into());
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = rcgen::KeyPair::generate().expect("a key");
        let facts = Facts::read(params.self_signed(&key).expect("signed").der()).expect("a certificate");
        assert_eq!((facts.common_name.as_str(), &facts.serial[..]), ("alice", &[7][..]));
        assert_eq!((facts.dns_names, facts.addresses), (vec!["a.example".to_owned()], vec!["127.0.0.1".to_owned()]));
        assert!(facts.for_clients && !facts.for_servers);
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        bolero::check!().with_iterations(5_000).for_each(|bytes: &[u8]| {
            let _ = Facts::read(&CertificateDer::from(bytes));
        });
    }
}
