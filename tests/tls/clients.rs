//! A real server and the real etcdctl: who is let in, pages, sockets, rotation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rusd::api::Patience;
use rusd::env::Env;
use rusd::tls::{Connector, Pair, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::authority::{Authority, Issued, Wanted, put};
use crate::process::{Member, Place, flag};

fn shows(issued: &Issued) -> Vec<String> {
    vec![flag("cert", &issued.cert), flag("key", &issued.key)]
}

fn serves(issued: &Issued) -> Vec<String> {
    vec![flag("cert-file", &issued.cert), flag("key-file", &issued.key)]
}

/// A page over TLS.
async fn page(url: &str, connector: &Connector, path: &str) -> std::io::Result<String> {
    let address = url.split_once("://").expect("a URL").1;
    let mut stream = connector.connect(address, TcpStream::connect(address).await?).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    stream.flush().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_trusts_the_server_is_served() {
    let (place, authority) = (Place::new(), Authority::new("authority"));
    let ca = authority.write(place.path(), "ca");
    let server = authority.issue(place.path(), "server", &Wanted::default());
    let metrics = format!("https://localhost:{}", crate::ports::free());
    let flags = [serves(&server), vec![format!("--listen-metrics-urls={metrics}")]].concat();
    let member = Member::new(&place, "m", "https", "http").with(&flags).started();
    assert!(member.log().contains("serving client traffic securely"), "{}", member.log());
    member.serves(&[flag("cacert", &ca)], "k");
    // More than what the layers hold back by themselves.
    let large = "x".repeat(100_000);
    for at in 0..12 {
        let key = format!("large/{at}");
        let put = member.ctl(&[flag("cacert", &ca)], &["put", &key, &large]);
        assert!(put.is_none_or(|put| put.as_deref() == Ok("OK\n")), "{at}");
    }
    let all = member.ctl(&[flag("cacert", &ca)], &["get", "large/", "--prefix", "--print-value-only"]);
    assert!(all.is_none_or(|all| all.is_ok_and(|all| all.len() == 12 * 100_001)));
    let other = Authority::new("other").write(place.path(), "other");
    member.turns_away(&[flag("cacert", &other)], "another authority");
    let plain = member.client.replace("https", "http");
    assert!(member.ctl_at(&plain, &[], &["get", "k"]).is_none_or(|got| got.is_err()), "plain text is let in");
    let trusts = Settings { trusted_ca: Some(ca), ..Settings::default() };
    let connector = Connector::new("test", trusts, Env::real()).expect("good files");
    let health = page(&member.client, &connector, "/health").await.expect("a page");
    assert!(health.ends_with(r#"{"health":"true","reason":""}"#), "{health}");
    for url in [&member.client, &metrics] {
        let figures = page(url, &connector, "/metrics").await.expect("a page");
        assert!(figures.contains("etcd_server_has_leader 1"), "{url}");
    }
    // The page of a browser or of curl, which speaks HTTP/2 where it can.
    let curl = std::process::Command::new("curl")
        .args(["-sS", "--http2", "--cacert"])
        .arg(place.path().join("ca.pem"))
        .arg(format!("{}/version", member.client))
        .output();
    match curl {
        Err(error) => println!("SKIPPED: no curl: {error}"),
        Ok(curl) => {
            let text = String::from_utf8_lossy(&curl.stdout).into_owned();
            assert!(text.contains("\"etcdserver\":\"3.7.1\""), "{text} {}", String::from_utf8_lossy(&curl.stderr));
        }
    }
}

/// Which names a page may be asked for under: over TLS any, as the certificate has said already whose it is. On etcd, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_plain_http_looks_at_the_host() {
    for etcd in [crate::peers::peer("etcd", "only_plain_http_looks_at_the_host"), None] {
        let (place, authority) = (Place::new(), Authority::new("authority"));
        let ca = authority.write(place.path(), "ca");
        let server = authority.issue(place.path(), "server", &Wanted::default());
        let plain = format!("localhost:{}", crate::ports::free());
        let flags = [serves(&server), vec!["--host-whitelist=good.com".to_owned()]].concat();
        let mut member = Member::new(&place, "m", "https", "http");
        let tls = std::mem::take(&mut member.client);
        member.client = format!("{tls},http://{plain}");
        let mut member = member.with(&flags);
        if let Some(etcd) = etcd {
            member = member.run_by(etcd);
        }
        let member = member.started();
        let trusts = Settings { trusted_ca: Some(ca), ..Settings::default() };
        let connector = Connector::new("test", trusts, Env::real()).expect("good files");
        let address = tls.split_once("://").expect("a URL").1.to_owned();
        for (host, by_plain) in [("evil.com", "421"), ("good.com", "200")] {
            for request in ["GET /health", "GET /version", "POST /v3/auth/status"] {
                let text =
                    format!("{request} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                let mut answers = Vec::new();
                let mut stream = TcpStream::connect(&plain).await.expect("a connection");
                answers.push(asked(&mut stream, &text).await);
                let stream = TcpStream::connect(&address).await.expect("a connection");
                let mut stream = connector.connect(&address, stream).await.expect("a handshake");
                answers.push(asked(&mut stream, &text).await);
                assert_eq!(answers, [by_plain, "200"], "{request} for {host}: plain, TLS: {}", member.log());
            }
        }
    }
}

/// The status of an answer.
async fn asked(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), request: &str) -> String {
    stream.write_all(request.as_bytes()).await.expect("it is taken");
    stream.flush().await.expect("it is taken");
    let mut answer = Vec::new();
    // An end without a goodbye of TLS is one, too.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap_or_default().to_owned()
}

#[test]
fn clients_show_who_they_are() {
    let (place, authority) = (Place::new(), Authority::new("authority"));
    let ca = authority.write(place.path(), "ca");
    let server = authority.issue(place.path(), "server", &Wanted::default());
    let client = |name: &str, serial, names: &[&str]| {
        authority.issue(place.path(), name, &Wanted { common_name: name, serial, names, ..Wanted::default() })
    };
    let alice = client("alice", 7, &["alice.example"]);
    let revoked = client("revoked", 8, &["alice.example"]);
    let elsewhere = client("elsewhere", 9, &["other.example"]);
    let mallory = Wanted { common_name: "mallory", serial: 10, names: &["alice.example"], ..Wanted::default() };
    let mallory = Authority::new("other").issue(place.path(), "mallory", &mallory);
    let crl = place.path().join("crl");
    put(&crl, authority.revoke(&[8]).0);
    let mut flags = serves(&server);
    flags.extend([
        "--client-cert-auth".to_owned(),
        flag("trusted-ca-file", &ca),
        flag("client-crl-file", &crl),
        "--client-cert-allowed-hostname=alice.example".to_owned(),
    ]);
    let mut member = Member::new(&place, "m", "https", "http").with(&flags).started();
    let as_client = |issued: &Issued| [vec![flag("cacert", &ca)], shows(issued)].concat();
    member.serves(&as_client(&alice), "k");
    member.turns_away(&[flag("cacert", &ca)], "no certificate");
    member.turns_away(&as_client(&revoked), "revoked");
    member.turns_away(&as_client(&elsewhere), "not an allowed name");
    member.turns_away(&as_client(&mallory), "another authority");
    if member.ctl(&as_client(&alice), &["get", "k"]).is_some() {
        member.says("rejected connection on client endpoint");
    }
    // What is revoked while it runs is refused from the next handshake on.
    put(&crl, authority.revoke(&[7, 8]).1);
    std::thread::sleep(Duration::from_millis(1_200));
    member.turns_away(&as_client(&alice), "revoked by now");
}

/// GHSA-3wh4-j44w-pg92: revoked certificates were turned away on some listeners only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ghsa_3wh4_j44w_pg92_the_revoked_are_turned_away_everywhere() {
    let (place, authority) = (Place::new(), Authority::new("authority"));
    let ca = authority.write(place.path(), "ca");
    let server = authority.issue(place.path(), "server", &Wanted::default());
    let client = |name: &str, serial| {
        authority.issue(place.path(), name, &Wanted { common_name: name, serial, ..Wanted::default() })
    };
    let (good, revoked) = (client("good", 7), client("revoked", 8));
    let crl = place.path().join("crl");
    put(&crl, authority.revoke(&[8]).0);
    let [metrics, pages] = [(); 2].map(|()| format!("https://localhost:{}", crate::ports::free()));
    let mut flags = serves(&server);
    flags.extend([
        "--client-cert-auth".to_owned(),
        flag("trusted-ca-file", &ca),
        flag("client-crl-file", &crl),
        format!("--listen-metrics-urls={metrics}"),
        format!("--listen-client-http-urls={pages}"),
        "--peer-client-cert-auth".to_owned(),
        flag("peer-cert-file", &server.cert),
        flag("peer-key-file", &server.key),
        flag("peer-trusted-ca-file", &ca),
        flag("peer-crl-file", &crl),
    ]);
    let member = Member::new(&place, "m", "https", "https").with(&flags).started();
    let trusting = |issued: &Issued| {
        let pair = Pair { cert: issued.cert.clone(), key: issued.key.clone() };
        let trusts = Settings { trusted_ca: Some(ca.clone()), pair: Some(pair), ..Settings::default() };
        Connector::new("test", trusts, Env::real()).expect("good files")
    };
    for (url, path) in [
        (&pages, "/version"),
        (&pages, "/health"),
        (&metrics, "/metrics"),
        (&metrics, "/health"),
        (&member.peer, "/version"),
    ] {
        let let_in = page(url, &trusting(&good), path).await;
        assert!(let_in.as_ref().is_ok_and(|page| page.starts_with("HTTP/1.1 200")), "{url}{path}: {let_in:?}");
        let turned = page(url, &trusting(&revoked), path).await;
        assert!(!turned.as_ref().is_ok_and(|page| page.starts_with("HTTP/1.1")), "{url}{path}: {turned:?}");
    }
    let revoked = [vec![flag("cacert", &ca)], shows(&revoked)].concat();
    member.turns_away(&revoked, "revoked");
}

/// GHSA-6vch-q96h-7gc3: handshakes that are begun and not ended kept everybody else out; here where clients come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ghsa_6vch_q96h_7gc3_stalled_handshakes_keep_no_client_out() {
    let (place, authority) = (Place::new(), Authority::new("authority"));
    let ca = authority.write(place.path(), "ca");
    let server = authority.issue(place.path(), "server", &Wanted::default());
    let flags = [serves(&server), vec!["--max-connections=40".to_owned()]].concat();
    let member = Member::new(&place, "m", "https", "http").with(&flags).started();
    let trusts = Settings { trusted_ca: Some(ca.clone()), ..Settings::default() };
    let connector = Connector::new("test", trusts, Env::real()).expect("good files");
    let address = member.client.split_once("://").expect("a URL").1;
    // Handshakes end by themselves: whoever had to wait for that was kept out, or the machine was busy once.
    let mut took = Vec::new();
    while took.last().is_none_or(|took| *took >= Patience::default().handshake) {
        assert!(took.len() < 4, "it always came in when their time was over: {took:?}\n{}", member.log());
        let (mut stalled, begun) = (Vec::new(), Instant::now());
        for at in 0..100 {
            let mut socket = TcpStream::connect(address).await.expect("a connection");
            if at % 2 == 0 {
                // The beginning of a record that never goes on. The server may have cut it already.
                let _ = socket.write_all(b"\x16\x03\x01\x02").await;
            }
            stalled.push(socket);
        }
        let asked = tokio::time::timeout(crate::process::COMES_MAX, async {
            // In a flood a newcomer may be the one that goes; its client tries again.
            while page(&member.client, &connector, "/health").await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        asked.await.expect("an honest client comes in");
        took.push(begun.elapsed());
    }
    member.serves(&[flag("cacert", &ca)], "k");
}

#[test]
fn a_certificate_names_its_user() {
    let (place, authority) = (Place::new(), Authority::new("authority"));
    let ca = authority.write(place.path(), "ca");
    let server = authority.issue(place.path(), "server", &Wanted::default());
    let client = |name: &str, serial| {
        let wanted = Wanted { common_name: name, serial, ..Wanted::default() };
        let issued = authority.issue(place.path(), name, &wanted);
        [vec![flag("cacert", &ca)], shows(&issued)].concat()
    };
    let (root, alice, stranger, none) = (client("root", 7), client("alice", 8), client("stranger", 9), client("", 10));
    let mut flags = serves(&server);
    flags.extend(["--client-cert-auth".to_owned(), flag("trusted-ca-file", &ca), "--bcrypt-cost=4".to_owned()]);
    let member = Member::new(&place, "m", "https", "http").with(&flags).started();
    let setting_up: [&[&str]; 8] = [
        &["put", "secret", "1"],
        &["user", "add", "root", "--no-password"],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "alice:pw"],
        &["role", "add", "r"],
        &["role", "grant-permission", "r", "readwrite", "a", "b"],
        &["user", "grant-role", "alice", "r"],
        &["auth", "enable"],
    ];
    for args in setting_up {
        let Some(done) = member.ctl(&stranger, args) else { return };
        assert!(done.is_ok(), "{args:?}: {done:?}");
    }
    let says = |who: &[String], args: &[&str], words: &str| {
        let answer = member.ctl(who, args).expect("etcdctl was there before");
        let text = match &answer {
            Ok(text) | Err(text) => text,
        };
        assert!(text.contains(words), "{who:?} {args:?}: {answer:?}, and not {words}");
    };
    says(&root, &["get", "secret", "--print-value-only"], "1");
    says(&root, &["user", "list"], "alice");
    says(&alice, &["put", "a1", "v"], "OK");
    says(&alice, &["get", "a1", "--print-value-only"], "v");
    says(&alice, &["get", "secret"], "permission denied");
    says(&alice, &["user", "list"], "permission denied");
    says(&stranger, &["get", "secret"], "permission denied");
    // As on etcd: a user of no name for keys, and nobody for what is root's.
    says(&none, &["get", "secret"], "permission denied");
    says(&none, &["user", "list"], "user name is empty");
    // A token comes before the name, good or bad.
    says(&root, &["get", "secret", "--user=alice:pw"], "permission denied");
    says(&root, &["get", "secret", "--user=alice:wrong"], "authentication failed");
}

#[test]
fn one_port_speaks_both_and_sockets_speak_tls() {
    let (place, authority) = (Place::new(), Authority::new("authority"));
    let ca = authority.write(place.path(), "ca");
    let server = authority.issue(place.path(), "server", &Wanted::default());
    let mut member = Member::new(&place, "m", "https", "http");
    let (tls, plain) = (member.client.clone(), member.client.replace("https", "http"));
    let socket = format!("unixs://localhost:{}", crate::ports::free());
    let initial = format!("m={}", member.peer);
    member.client = format!("{tls},{plain},{socket}");
    member.set_flags(&initial, &serves(&server));
    let member = member.started();
    for (endpoint, trusts) in
        [(&plain, vec![]), (&tls, vec![flag("cacert", &ca)]), (&socket, vec![flag("cacert", &ca)])]
    {
        let Some(put) = member.ctl_at(endpoint, &trusts, &["put", "k", "v"]) else { return };
        assert_eq!(put.as_deref(), Ok("OK\n"), "{endpoint}: {}", member.log());
    }
}

#[test]
fn a_server_makes_its_own_certificate() {
    let place = Place::new();
    let flags = ["--auto-tls".to_owned(), "--self-signed-cert-validity=2".to_owned()];
    let mut member = Member::new(&place, "m", "https", "http").with(&flags).started();
    let made = member.dir.join("data/fixtures/client/cert.pem");
    let before = std::fs::read(&made).expect("it was made");
    member.serves(&["--insecure-skip-tls-verify".to_owned(), "--insecure-transport=false".to_owned()], "k");
    member.serves(&[flag("cacert", &made)], "k");
    member.kill();
    let member = member.started();
    assert_eq!(std::fs::read(&made).expect("it is there"), before, "it stays the same");
    member.serves(&[flag("cacert", &made)], "k");
}

#[test]
fn what_can_not_be_used_is_said_at_the_start() {
    let (place, authority) = (Place::new(), Authority::new("authority"));
    let server = authority.issue(place.path(), "server", &Wanted::default());
    let other = authority.issue(place.path(), "other", &Wanted::default());
    let junk = place.path().join("junk.pem");
    put(&junk, "no PEM at all");
    let mixed = Issued { cert: server.cert.clone(), key: other.key.clone() };
    let log = Member::new(&place, "a", "https", "http").with(&serves(&mixed)).refuses();
    assert!(log.contains("tls: private key does not match public key") && log.contains("server.crt"), "{log}");
    let bad = Issued { cert: junk.clone(), key: server.key.clone() };
    let log = Member::new(&place, "b", "https", "http").with(&serves(&bad)).refuses();
    assert!(log.contains("junk.pem: no certificate in PEM"), "{log}");
    let log = Member::new(&place, "c", "https", "http").with(&[]).refuses();
    assert!(log.contains("TLS key/cert (--cert-file, --key-file) must be provided for client url https://"), "{log}");
    // As with etcd it starts all the same, and whoever checks the certificate refuses it.
    let old = authority.issue(place.path(), "old", &Wanted { days: -1, ..Wanted::default() });
    let member = Member::new(&place, "d", "https", "http").with(&serves(&old)).started();
    assert!(member.log().contains("old.crt: the certificate expired at"), "{}", member.log());
}

/// Certificates of server and client change again and again under load: nobody notices.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_change_under_load_without_one_failure() {
    let place = Place::new();
    let dir = place.path().to_owned();
    let authority = Arc::new(Authority::new("authority"));
    let ca = authority.write(&dir, "ca");
    let server = authority.issue(&dir, "server", &Wanted::default());
    let alice = authority.issue(&dir, "alice", &Wanted { common_name: "alice", ..Wanted::default() });
    let flags = [serves(&server), vec![flag("trusted-ca-file", &ca), "--client-cert-auth".to_owned()]].concat();
    let member = Member::new(&place, "m", "https", "http").with(&flags).started();
    let settings = Settings {
        client_pair: Some(Pair { cert: alice.cert, key: alice.key }),
        trusted_ca: Some(ca),
        ..Settings::default()
    };
    let connector = Connector::new("test", settings, Env::real()).expect("good files");
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (stop, served, connector, url) = (stop.clone(), served.clone(), connector.clone(), member.client.clone());
        load.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                // A handshake each: pages close their connection.
                let answer = page(&url, &connector, "/health").await.expect("no request fails");
                assert!(answer.contains("\"health\":\"true\""), "{answer}");
                served.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let serial_before = std::fs::read(dir.join("server.crt")).expect("the certificate");
    for round in 2..6 {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        authority.issue(&dir, "server", &Wanted { serial: round, ..Wanted::default() });
        let alice = Wanted { common_name: "alice", serial: round, ..Wanted::default() };
        authority.issue(&dir, "alice", &alice);
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended.expect("no request failed");
    }
    assert!(served.load(Ordering::Relaxed) > 20, "{served:?}");
    assert_ne!(std::fs::read(dir.join("server.crt")).expect("the certificate"), serial_before);
    assert!(member.log().matches("the changed TLS files for clients are in use").count() >= 3, "{}", member.log());
}
