//! A certificate of one's own, for where none is given: `--auto-tls`, `--peer-auto-tls`.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::{Duration, OffsetDateTime};

use super::certificate::Facts;
use super::error::TlsError;
use super::material::seconds;
use super::reload::wall;
use super::settings::Pair;
use crate::env::{Env, make_dir_durably, read_all, write_atomic};

/// No certificate of ours is longer.
const CERT_BYTES_MAX: usize = 64 << 10;
/// The clock of whoever checks it may be a little behind.
const BEFORE: Duration = Duration::HOUR;

/// The pair in `dir`, made if there is none or if it is over; valid for `hosts` and for so many `years`.
///
/// # Errors
/// Those of the disk; a pair that is there and can't be read.
pub fn self_signed(env: &Env, dir: &Path, hosts: &[String], years: u32) -> Result<Pair, TlsError> {
    let disk = env.disk.as_ref();
    let pair = Pair { cert: dir.join("cert.pem"), key: dir.join("key.pem") };
    let read = |path: &Path, error: &io::Error| TlsError::Read { path: path.to_owned(), why: error.to_string() };
    let is_there = |path: &Path| disk.exists(path).map_err(|error| read(path, &error));
    if is_there(&pair.cert)? && is_there(&pair.key)? {
        let bytes = read_all(disk, &pair.cert, CERT_BYTES_MAX).map_err(|error| read(&pair.cert, &error))?;
        let cert = CertificateDer::from_pem_slice(&bytes).ok();
        let facts = cert.and_then(|cert| Facts::read(&cert));
        let Some(facts) = facts else {
            return Err(TlsError::file(&pair.cert, "no certificate; remove the file, and a new one is made"));
        };
        if facts.not_after > seconds(wall(env)) {
            return Ok(pair);
        }
        tracing::warn!(path = %pair.cert.display(), ended = facts.ends(), "a new certificate takes this one's place");
    }
    let made = make(env, hosts, years)?;
    let put = |path: &Path, text: &str| {
        write_atomic(disk, path, text.as_bytes())
            .map_err(|error| TlsError::Make(format!("can't write {}: {error}", path.display())))
    };
    make_dir_durably(disk, dir).map_err(|error| TlsError::Make(format!("can't make {}: {error}", dir.display())))?;
    put(&pair.key, &made.1)?;
    put(&pair.cert, &made.0)?;
    tracing::warn!(cert = %pair.cert.display(), years, "automatically generate certificates");
    Ok(pair)
}

/// Certificate and key, as PEM.
fn make(env: &Env, hosts: &[String], years: u32) -> Result<(String, String), TlsError> {
    let now = OffsetDateTime::from(wall(env));
    let end = now.checked_add(Duration::days(365 * i64::from(years)));
    let mut serial = [0; 16];
    env.rng.fill(&mut serial);
    // A positive number of the same length, always.
    serial[0] = serial[0] & 0x7f | 0x40;
    let mut params = CertificateParams::default();
    params.serial_number = Some(serial.to_vec().into());
    params.not_before = now - BEFORE;
    params.not_after = end.ok_or_else(|| TlsError::Make(format!("{years} years are too many")))?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "rusd");
    params.is_ca = IsCa::NoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    for host in hosts {
        let name = match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(
                host.as_str().try_into().map_err(|_| TlsError::Make(format!("{host:?} is no host name")))?,
            ),
        };
        if !params.subject_alt_names.contains(&name) {
            params.subject_alt_names.push(name);
        }
    }
    let failed = |error: rcgen::Error| TlsError::Make(error.to_string());
    let key = KeyPair::generate().map_err(failed)?;
    let cert = params.self_signed(&key).map_err(failed)?;
    Ok((cert.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::env::{ManualClock, MemDisk, SystemRng, ThreadSpawn};

    #[test]
    fn a_pair_is_made_once_and_again_when_it_is_over() {
        let clock = Arc::new(ManualClock::new());
        clock.advance(std::time::Duration::from_secs(1_000_000_000));
        let disk = Arc::new(MemDisk::new());
        let env =
            Env { disk: disk.clone(), clock: clock.clone(), rng: Arc::new(SystemRng), spawn: Arc::new(ThreadSpawn) };
        let dir = Path::new("/data/fixtures/client");
        let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned(), "127.0.0.1".to_owned()];
        let cert = || {
            let pair = self_signed(&env, dir, &hosts, 1).expect("made");
            read_all(disk.as_ref(), &pair.cert, CERT_BYTES_MAX).expect("written")
        };
        let (first, second) = (cert(), cert());
        assert_eq!(first, second);
        let facts = Facts::read(&CertificateDer::from_pem_slice(&first).expect("PEM")).expect("a certificate");
        assert_eq!(facts.not_after, 1_000_000_000 + 365 * 86_400);
        assert!(!facts.addresses.is_empty() && facts.for_servers && facts.dns_names == ["localhost"]);
        clock.advance(std::time::Duration::from_secs(366 * 86_400));
        assert_ne!(cert(), first);
        assert!(self_signed(&env, Path::new("/data/x"), &hosts, u32::MAX).is_err());
    }
}
