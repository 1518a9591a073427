//! Whether a client calls from where its certificate says that it is; members are asked this.
//!
//! ```text
//! no names ─► yes      address among its addresses ─► yes
//! a name of the certificate resolves to the address ─► yes
//! it has wildcards, and the address's name is one of them ─► yes
//! ```
//! As in etcd, so that the certificate of one member is of no use on another machine.

use std::net::IpAddr;

use rustls::client::verify_server_name;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::ParsedCertificate;

use super::certificate::Facts;

/// Names of a certificate that are looked up at most.
const LOOKUPS_MAX: usize = 64;

/// Checks it.
///
/// # Errors
/// The refusal as etcd words it.
pub(super) async fn check(cert: &CertificateDer<'_>, address: IpAddr) -> Result<(), String> {
    // An IPv4 client of a dual-stack socket.
    let address = address.to_canonical();
    let facts = Facts::read(cert).ok_or("the client's certificate can't be read")?;
    if facts.addresses.is_empty() && facts.dns_names.is_empty() {
        return Ok(());
    }
    let parsed = ParsedCertificate::try_from(cert).map_err(|error| error.to_string())?;
    if !facts.addresses.is_empty() && verify_server_name(&parsed, &ServerName::IpAddress(address.into())).is_ok() {
        return Ok(());
    }
    if facts.dns_names.is_empty() {
        return Err(format!("x509: certificate is valid for {}, not {address}", facts.addresses.join(", ")));
    }
    if is_one_of(address, &facts.dns_names).await {
        return Ok(());
    }
    Err(format!("tls: {:?} does not match any of DNSNames {:?}", address.to_string(), facts.dns_names))
}

async fn is_one_of(address: IpAddr, names: &[String]) -> bool {
    for name in names.iter().filter(|name| !name.starts_with("*.")).take(LOOKUPS_MAX) {
        if let Ok(mut found) = tokio::net::lookup_host((name.as_str(), 0)).await
            && found.any(|found| found.ip().to_canonical() == address)
        {
            return true;
        }
    }
    // What serves addresses' names is slow where nobody looks after it: it is asked last, and only if that can help.
    if !names.iter().any(|name| name.starts_with("*.")) {
        return false;
    }
    let reverse = tokio::task::spawn_blocking(move || dns_lookup::lookup_addr(&address).ok());
    let told = reverse.await.ok().flatten();
    told.is_some_and(|told| names.iter().any(|name| covers(name, told.trim_end_matches('.'))))
}

/// Whether a name of a certificate, maybe a wildcard, stands for a host; wildcards at any depth, as in etcd.
fn covers(name: &str, host: &str) -> bool {
    match name.strip_prefix('*') {
        Some(suffix) if suffix.starts_with('.') => {
            host.len() > suffix.len()
                && host.get(host.len() - suffix.len()..).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
        }
        _ => name.eq_ignore_ascii_case(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_cover_what_lies_below() {
        assert!(covers("*.b.c", "a.b.c") && covers("*.b.c", "x.a.B.c") && covers("a.b", "A.b"));
        assert!(!covers("*.b.c", "b.c") && !covers("*.b.c", "ab.c") && !covers("a.b", "x.a.b"));
        assert!(!covers("*", "a") && !covers("*.b", "ä"));
    }

    #[tokio::test]
    async fn a_certificate_is_good_where_it_says() {
        let cert = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let key = rcgen::KeyPair::generate().expect("a key");
            rcgen::CertificateParams::new(names).expect("names").self_signed(&key).expect("signed").der().clone()
        };
        let here: IpAddr = "127.0.0.1".parse().expect("an address");
        let mapped: IpAddr = "::ffff:127.0.0.1".parse().expect("an address");
        assert!(check(&cert(&[]), here).await.is_ok());
        assert!(check(&cert(&["127.0.0.1"]), here).await.is_ok());
        assert!(check(&cert(&["127.0.0.1"]), mapped).await.is_ok());
        assert!(check(&cert(&["localhost"]), here).await.is_ok());
        let error = check(&cert(&["10.9.8.7", "fe80::1"]), here).await.expect_err("elsewhere");
        assert_eq!(error, "x509: certificate is valid for 10.9.8.7, fe80::1, not 127.0.0.1");
        let error = check(&cert(&["no-such-host.invalid"]), here).await.expect_err("elsewhere");
        assert!(error.starts_with("tls: \"127.0.0.1\" does not match any of DNSNames"), "{error}");
    }
}
