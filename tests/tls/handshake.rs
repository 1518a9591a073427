//! Handshakes over a pipe: both sides are ours, so that each refusal can be told apart.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use rcgen::ExtendedKeyUsagePurpose;
use rusd::env::Env;
use rusd::tls::{Acceptor, Connector, Pair, Settings, Suites, TlsError, Version};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::authority::{Authority, Issued, Wanted, put, self_signed};

fn pair(issued: &Issued) -> Option<Pair> {
    Some(Pair { cert: issued.cert.clone(), key: issued.key.clone() })
}

/// What the server knows of the client, or why one of them refused: `(server, client)`.
type Outcome = Result<Option<String>, (String, String)>;

async fn meet(acceptor: &Acceptor, connector: &Connector, to: &str, from: Option<IpAddr>) -> Outcome {
    let (here, there) = tokio::io::duplex(64 << 10);
    let client = async {
        let mut stream = connector.connect(to, there).await.map_err(|error| error.to_string())?;
        // With TLS 1.3 a client only learns from its first read that it was refused.
        stream.write_all(b"hello").await.map_err(|error| error.to_string())?;
        stream.flush().await.map_err(|error| error.to_string())?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await.map_err(|error| error.to_string())?;
        assert_eq!(&answer, b"HELLO");
        Ok::<_, String>(())
    };
    let server = async {
        let (mut stream, identity) = acceptor.accept(here, from).await.map_err(|error| error.to_string())?;
        let mut question = [0; 5];
        stream.read_exact(&mut question).await.map_err(|error| error.to_string())?;
        stream.write_all(b"HELLO").await.map_err(|error| error.to_string())?;
        stream.flush().await.map_err(|error| error.to_string())?;
        Ok::<_, String>(identity.map(|identity| identity.common_name))
    };
    match tokio::join!(server, client) {
        (Ok(identity), Ok(())) => Ok(identity),
        (server, client) => Err((server.err().unwrap_or_default(), client.err().unwrap_or_default())),
    }
}

fn acceptor(settings: Settings) -> Acceptor {
    Acceptor::new("test", settings, Env::real()).expect("good files")
}

fn connector(settings: Settings) -> Connector {
    Connector::new("test", settings, Env::real()).expect("good files")
}

/// An authority, a server's certificate and a client's.
struct World {
    dir: TempDir,
    authority: Authority,
    ca: std::path::PathBuf,
    server: Issued,
    alice: Issued,
}

impl World {
    fn new() -> Self {
        let dir = TempDir::new().expect("a directory");
        let authority = Authority::new("authority");
        let ca = authority.write(dir.path(), "ca");
        let server = authority.issue(dir.path(), "server", &Wanted::default());
        let alice = Wanted { common_name: "alice", serial: 7, names: &[], ..Wanted::default() };
        let alice = authority.issue(dir.path(), "alice", &alice);
        Self { dir, authority, ca, server, alice }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A server that demands certificates.
    fn serves(&self) -> Settings {
        Settings { pair: pair(&self.server), trusted_ca: Some(self.ca.clone()), ..Settings::default() }
    }

    fn dials(&self, shows: &Issued) -> Settings {
        Settings { client_pair: pair(shows), trusted_ca: Some(self.ca.clone()), ..Settings::default() }
    }

    async fn outcome(&self, serves: Settings, dials: Settings) -> Outcome {
        meet(&acceptor(serves), &connector(dials), "localhost:1", None).await
    }
}

#[tokio::test]
async fn who_is_known_is_let_in_by_name() {
    let world = World::new();
    let outcome = world.outcome(world.serves(), world.dials(&world.alice)).await;
    assert_eq!(outcome, Ok(Some("alice".to_owned())));
    let nobody = Settings { trusted_ca: Some(world.ca.clone()), ..Settings::default() };
    let (server, _) = world.outcome(world.serves(), nobody.clone()).await.expect_err("no certificate");
    assert_eq!(server, "tls: client didn't provide a certificate");
    let open = Settings { pair: pair(&world.server), ..Settings::default() };
    assert_eq!(world.outcome(open.clone(), nobody).await, Ok(None));
    // What nobody asked for says nothing of anybody.
    assert_eq!(world.outcome(open, world.dials(&world.alice)).await, Ok(None));
}

#[tokio::test]
async fn others_are_refused_in_both_directions() {
    let world = World::new();
    let other = Authority::new("other");
    let mallory = other.issue(world.path(), "mallory", &Wanted { common_name: "alice", ..Wanted::default() });
    let (server, client) = world.outcome(world.serves(), world.dials(&mallory)).await.expect_err("another authority");
    assert!(server.contains("UnknownIssuer"), "{server}");
    assert!(client.contains("UnknownCA"), "{client}");
    let trusts_other = Settings { trusted_ca: Some(other.write(world.path(), "other")), ..world.dials(&world.alice) };
    let (server, client) = world.outcome(world.serves(), trusts_other).await.expect_err("another authority");
    assert_eq!(server, "remote error: tls: unknown certificate authority");
    assert!(client.contains("UnknownIssuer"), "{client}");
    let old = world.authority.issue(world.path(), "old", &Wanted { days: -1, ..Wanted::default() });
    let (server, _) = world.outcome(world.serves(), world.dials(&old)).await.expect_err("expired");
    assert!(server.contains("expired"), "{server}");
    let only_server = Wanted { usages: &[ExtendedKeyUsagePurpose::ServerAuth], ..Wanted::default() };
    let only_server = world.authority.issue(world.path(), "only-server", &only_server);
    assert!(world.outcome(world.serves(), world.dials(&only_server)).await.is_err());
}

#[tokio::test]
async fn a_server_must_hold_the_name_it_is_called_by() {
    let world = World::new();
    let (acceptor, connector) = (acceptor(world.serves()), connector(world.dials(&world.alice)));
    for to in ["localhost:1", "127.0.0.1:1", "/run/some.sock", "localhost"] {
        assert!(meet(&acceptor, &connector, to, None).await.is_ok(), "{to}");
    }
    for to in ["127.0.0.2:1", "example.com:1", "[::1]:1"] {
        let (server, client) = meet(&acceptor, &connector, to, None).await.expect_err(to);
        assert_eq!(server, "remote error: tls: bad certificate");
        assert!(client.contains("not valid for"), "{client}");
    }
}

#[tokio::test]
async fn only_allowed_names_are_let_in() {
    let world = World::new();
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let web = Wanted { common_name: "web", names: &["*.web.example", "10.1.2.3"], ..Wanted::default() };
    let web = world.authority.issue(world.path(), "web", &web);
    let by_name = |cns: &[&str], hosts: &[&str]| Settings {
        allowed_cn: named(cns),
        allowed_hostname: named(hosts),
        ..world.serves()
    };
    for (cns, hosts) in [
        (&["x", "web"][..], &[][..]),
        (&[], &["a.web.example"]),
        (&[], &["x.example", "10.1.2.3"]),
        (&[], &["[10.1.2.3]"]),
    ] {
        let outcome = world.outcome(by_name(cns, hosts), world.dials(&web)).await;
        assert_eq!(outcome, Ok(Some("web".to_owned())), "{cns:?} {hosts:?}");
    }
    for (cns, hosts) in
        [(&["x", "we"][..], &[][..]), (&[], &["web"]), (&[], &["a.b.web.example"]), (&[], &["10.1.2.4"])]
    {
        let (server, _) = world.outcome(by_name(cns, hosts), world.dials(&web)).await.expect_err("not allowed");
        assert_eq!(server, "client certificate authentication failed", "{cns:?} {hosts:?}");
    }
    // A member asks the same of those it connects to.
    let dials = Settings { allowed_cn: named(&["members"]), ..world.dials(&world.alice) };
    assert!(world.outcome(world.serves(), dials).await.is_err());
    let bad = Settings { allowed_hostname: named(&["a b"]), ..world.serves() };
    let error = Acceptor::new("test", bad, Env::real()).expect_err("no name");
    assert!(error.to_string().contains("\"a b\""), "{error}");
}

#[tokio::test]
async fn revoked_certificates_are_refused_in_der_and_pem() {
    let world = World::new();
    let bob = Wanted { common_name: "bob", serial: 8, ..Wanted::default() };
    let bob = world.authority.issue(world.path(), "bob", &bob);
    let (der, pem) = world.authority.revoke(&[7, 99]);
    let crl = world.path().join("crl");
    for bytes in [der, pem.into_bytes()] {
        put(&crl, bytes);
        let serves = Settings { crl: Some(crl.clone()), ..world.serves() };
        let (server, client) = world.outcome(serves.clone(), world.dials(&world.alice)).await.expect_err("revoked");
        assert!(server.to_lowercase().contains("revoked"), "{server}");
        assert!(client.contains("CertificateRevoked"), "{client}");
        assert_eq!(world.outcome(serves, world.dials(&bob)).await, Ok(Some("bob".to_owned())));
    }
    // A server's certificate can be revoked, too.
    put(&crl, world.authority.revoke(&[1]).0);
    let dials = Settings { crl: Some(crl), ..world.dials(&world.alice) };
    assert!(world.outcome(world.serves(), dials).await.is_err());
}

#[tokio::test]
async fn a_certificate_may_be_its_own_authority() {
    let world = World::new();
    for (name, is_ca) in [("own-ca", true), ("own", false)] {
        let own = self_signed(world.path(), name, is_ca);
        let both = Settings { pair: pair(&own), trusted_ca: Some(own.cert.clone()), ..Settings::default() };
        assert_eq!(world.outcome(both.clone(), both.clone()).await, Ok(Some(name.to_owned())));
        assert!(world.outcome(both.clone(), world.dials(&world.alice)).await.is_err());
        let elsewhere = meet(&acceptor(both.clone()), &connector(both), "example.com:1", None).await;
        assert!(elsewhere.is_err());
    }
}

#[tokio::test]
async fn versions_and_suites_are_kept_to() {
    let world = World::new();
    let version = |min, max| Settings { version_min: min, version_max: max, ..world.dials(&world.alice) };
    let only_13 = Settings { version_min: Version::V13, ..world.serves() };
    let (server, _) =
        world.outcome(only_13.clone(), version(Version::V12, Some(Version::V12))).await.expect_err("too old");
    assert!(server.contains("Tls12NotOfferedOrEnabled"), "{server}");
    assert!(world.outcome(only_13, version(Version::V12, None)).await.is_ok());
    let only_12 = Settings { version_max: Some(Version::V12), ..world.serves() };
    assert!(world.outcome(only_12.clone(), version(Version::V13, None)).await.is_err());
    assert!(world.outcome(only_12.clone(), version(Version::V12, None)).await.is_ok());
    let suites = |name: &str| Suites::parse(&[name.to_owned()]).expect("known");
    let one = Settings { suites: suites("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"), ..only_12 };
    let other = Settings {
        suites: suites("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305"),
        ..version(Version::V12, Some(Version::V12))
    };
    assert!(world.outcome(one.clone(), other).await.is_err());
    let same = Settings { suites: one.suites.clone(), ..version(Version::V12, Some(Version::V12)) };
    assert!(world.outcome(one, same).await.is_ok());
}

#[tokio::test]
async fn a_member_calls_from_where_its_certificate_says() {
    let world = World::new();
    let elsewhere = Wanted { common_name: "m", names: &["10.9.9.9"], ..Wanted::default() };
    let elsewhere = world.authority.issue(world.path(), "elsewhere", &elsewhere);
    let serves = acceptor(Settings { check_address: true, ..world.serves() });
    let dials = connector(world.dials(&elsewhere));
    let from = |text: &str| Some(text.parse().expect("an address"));
    assert!(meet(&serves, &dials, "localhost:1", from("10.9.9.9")).await.is_ok());
    let (server, _) = meet(&serves, &dials, "localhost:1", from("127.0.0.1")).await.expect_err("elsewhere");
    assert_eq!(server, "x509: certificate is valid for 10.9.9.9, not 127.0.0.1");
    assert!(meet(&serves, &dials, "localhost:1", None).await.is_ok(), "a Unix socket has no address");
}

#[tokio::test]
async fn members_without_an_authority_trust_each_other() {
    let world = World::new();
    let made = rusd::tls::self_signed(&Env::real(), &world.path().join("made"), &["10.1.1.1".to_owned()], 1);
    let serves = Settings { pair: Some(made.expect("made")), ..Settings::default() };
    let anyone = Settings { trust_anyone: true, ..Settings::default() };
    assert_eq!(world.outcome(serves.clone(), anyone).await, Ok(None));
    assert!(world.outcome(serves, world.dials(&world.alice)).await.is_err());
}

#[tokio::test]
async fn bad_files_are_named() {
    let world = World::new();
    let (junk, empty) = (world.path().join("junk.pem"), world.path().join("empty.pem"));
    put(&junk, "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n");
    put(&empty, "");
    let nowhere = world.path().join("nowhere.pem");
    let no_cert = world.path().join("no-cert.pem");
    put(&no_cert, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let shows = |cert: &Path, key: &Path| Settings {
        pair: Some(Pair { cert: cert.to_owned(), key: key.to_owned() }),
        ..Settings::default()
    };
    let error = |settings: Settings| {
        let error = Acceptor::new("test", settings, Env::real()).expect_err("bad");
        let key = std::fs::read_to_string(&world.server.key).expect("the key");
        let secret = key.lines().nth(1).expect("its second line");
        assert!(!error.to_string().contains(secret), "a key in a message: {error}");
        error
    };
    for bad in [&junk, &empty, &nowhere, &no_cert] {
        let name = bad.display().to_string();
        for settings in [
            shows(bad, &world.server.key),
            shows(&world.server.cert, bad),
            Settings { trusted_ca: Some(bad.clone()), ..world.serves() },
            Settings { crl: Some(bad.clone()), ..world.serves() },
        ] {
            let said = error(settings.clone()).to_string();
            assert!(said.contains(&name), "{settings:?}: {said}");
        }
    }
    let mismatch = error(shows(&world.server.cert, &world.alice.key));
    assert!(matches!(mismatch, TlsError::Mismatch { .. }), "{mismatch}");
    assert!(mismatch.to_string().starts_with("tls: private key does not match public key"));
    // A key in the place of a certificate.
    error(shows(&world.server.key, &world.server.key));
}

#[tokio::test]
async fn changed_files_are_taken_and_broken_ones_are_not() {
    let world = World::new();
    let crl = world.path().join("crl");
    put(&crl, world.authority.revoke(&[]).0);
    let serves = acceptor(Settings { crl: Some(crl.clone()), ..world.serves() });
    let dials = connector(world.dials(&world.alice));
    let alice = async || meet(&serves, &dials, "localhost:1", None).await;
    let later = || tokio::time::sleep(Duration::from_millis(1_100));
    assert!(alice().await.is_ok());
    // Half a rotation: the key is another one.
    let before = std::fs::read(&world.server.key).expect("the key");
    put(&world.server.key, std::fs::read(&world.alice.key).expect("the key"));
    later().await;
    assert!(alice().await.is_ok(), "the old pair stays");
    put(&world.server.key, before);
    std::fs::remove_file(&crl).expect("it was there");
    later().await;
    assert!(alice().await.is_ok(), "the old list stays");
    put(&crl, world.authority.revoke(&[7]).0);
    later().await;
    assert!(alice().await.is_err(), "she is revoked by now");
    // An authority that is no longer trusted.
    put(&crl, world.authority.revoke(&[]).0);
    later().await;
    assert!(alice().await.is_ok());
    Authority::new("new").write(world.path(), "ca");
    later().await;
    assert!(alice().await.is_err());
}

#[tokio::test]
async fn revocations_do_not_wait_for_a_good_pair_of_ones_own() {
    let later = || tokio::time::sleep(Duration::from_millis(1_100));
    for fault in ["the key of another", "over", "over by itself"] {
        let world = World::new();
        let crl = world.path().join("crl");
        put(&crl, world.authority.revoke(&[]).0);
        let issue = |days| world.authority.issue(world.path(), "server", &Wanted { days, ..Wanted::default() });
        if fault == "over by itself" {
            // Its last second is this one.
            issue(0);
        }
        let serves = acceptor(Settings { crl: Some(crl.clone()), ..world.serves() });
        let checks = connector(world.dials(&world.alice));
        let anyone = connector(Settings { trust_anyone: true, ..world.dials(&world.alice) });
        assert!(meet(&serves, &anyone, "localhost:1", None).await.is_ok(), "{fault}");
        match fault {
            "the key of another" => put(&world.server.key, std::fs::read(&world.alice.key).expect("the key")),
            "over" => drop(issue(-1)),
            _ => {}
        }
        later().await;
        if fault != "over by itself" {
            assert!(meet(&serves, &checks, "localhost:1", None).await.is_ok(), "{fault}: the old pair stays");
        }
        put(&crl, world.authority.revoke(&[7]).0);
        later().await;
        let (server, _) = meet(&serves, &anyone, "localhost:1", None).await.expect_err(fault);
        assert!(server.contains("Revoked"), "{fault}: {server}");
        // Nor is an authority trusted any longer than its file says.
        put(&crl, world.authority.revoke(&[]).0);
        Authority::new("new").write(world.path(), "ca");
        later().await;
        let (server, _) = meet(&serves, &anyone, "localhost:1", None).await.expect_err(fault);
        assert!(server.contains("UnknownIssuer"), "{fault}: {server}");
        // A good pair is taken as soon as there is one.
        let ca = world.authority.write(world.path(), "ca");
        issue(1);
        later().await;
        assert_eq!(ca, world.ca);
        assert!(meet(&serves, &checks, "localhost:1", None).await.is_ok(), "{fault}");
    }
}

#[tokio::test]
async fn of_lists_in_one_file_each_counts() {
    let world = World::new();
    let crl = world.path().join("crl");
    let serves = Settings { crl: Some(crl.clone()), ..world.serves() };
    let ((none, none_pem), (seven, seven_pem)) = (world.authority.revoke(&[99]), world.authority.revoke(&[7]));
    for bytes in [[none.clone(), seven].concat(), [none_pem, seven_pem].concat().into_bytes()] {
        put(&crl, bytes);
        assert!(world.outcome(serves.clone(), world.dials(&world.alice)).await.is_err());
    }
    put(&crl, [none, b"more".to_vec()].concat());
    let error = Acceptor::new("test", serves, Env::real()).expect_err("what is no list");
    assert!(error.to_string().contains("not a list of revoked"), "{error}");
}
