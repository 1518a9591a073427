//! etcd → rusd → etcd: with snapshot files, with directories that were left behind, and from a running etcd.
//!
//! ```text
//! etcd, filled ─► snapshot file, or its directory after a kill, or the running server ─► rusd
//!   ─► the same keys, leases, users; the same watches ─► rusd snapshot save ─► etcdutl restore ─► etcd: equal HashKV
//! ```

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test uses files, time and processes as they are"
)]

mod compared;
mod fill;
mod killed;
mod large;
mod live;
mod member;
mod pause;
#[path = "../support/peers.rs"]
mod peers;
#[path = "../support/ports.rs"]
mod ports;

use std::path::{Path, PathBuf};

use rusd_proto::etcdserverpb as pb;
use tempfile::TempDir;

use fill::{Content, content, fill, token};
use member::{Member, Place, must, run, rusd, words};
use peers::peer;

/// etcd's programs, or nothing where they aren't built.
struct Tools {
    etcd: PathBuf,
    etcdctl: PathBuf,
    etcdutl: PathBuf,
}

impl Tools {
    fn find(test: &str) -> Option<Self> {
        Some(Self { etcd: peer("etcd", test)?, etcdctl: peer("etcdctl", test)?, etcdutl: peer("etcdutl", test)? })
    }
}

/// What a real etcd says of a snapshot file after `etcdutl snapshot restore`.
async fn etcd_on(tools: &Tools, file: &Path, dir: &Path, with_users: bool) -> ((u32, i64), Content) {
    let (place, data) = (Place::free(), dir.join("etcd-on"));
    let mut arguments = words("snapshot restore");
    arguments.push(file.display().to_string());
    arguments.extend(place.identity(&data));
    must(&tools.etcdutl, &arguments);
    let etcd = Member::start(&tools.etcd, place, &place.flags(&data), &dir.join("etcd-on.log")).await;
    let token = if with_users { Some(token(&etcd).await) } else { None };
    let hash = etcd.hash_kv(token.as_deref()).await;
    let content = content(&etcd, token.as_deref()).await;
    std::fs::remove_dir_all(data).unwrap();
    (hash, content)
}

/// A snapshot of a server, by rusd's own command.
fn save(member: &Member, file: &Path, with_users: bool) {
    let mut arguments = words(&format!("snapshot save {} --endpoints 127.0.0.1:{}", file.display(), member.port));
    if with_users {
        arguments.extend(words("--user root:secret"));
    }
    must(&rusd(), &arguments);
    let said = must(&rusd(), &words(&format!("snapshot verify {}", file.display())));
    assert!(said.contains("its SHA-256 is right"), "{said}");
}

/// The round: a snapshot file of etcd's becomes a member of rusd's, whose snapshot becomes an etcd again.
async fn round_trip(with_users: bool, test: &str) {
    let Some(tools) = Tools::find(test) else { return };
    let dir = TempDir::new().unwrap();
    let (place, data) = (Place::free(), dir.path().join("etcd"));
    let etcd = Member::start(&tools.etcd, place, &place.flags(&data), &dir.path().join("etcd.log")).await;
    fill(&etcd, with_users).await;
    let root = if with_users { Some(token(&etcd).await) } else { None };
    let first = content(&etcd, root.as_deref()).await;
    let file = dir.path().join("etcd.db");
    save(&etcd, &file, with_users);
    for format in ["simple", "table", "json", "fields"] {
        let arguments = words(&format!("snapshot status {} -w {format}", file.display()));
        assert_eq!(must(&rusd(), &arguments), must(&tools.etcdutl, &arguments), "{format}");
    }
    etcd.end();
    let (hash, same) = etcd_on(&tools, &file, dir.path(), with_users).await;
    assert_eq!(same, first, "what etcd makes of its own file");

    let (place, data) = (Place::free(), dir.path().join("rusd"));
    let mut arguments = words(&format!("snapshot restore {}", file.display()));
    arguments.extend(place.identity(&data));
    must(&rusd(), &arguments);
    let again = run(&rusd(), &arguments);
    assert!(!again.status.success() && String::from_utf8_lossy(&again.stderr).contains("not empty"));
    let moved = Member::start(&rusd(), place, &place.flags(&data), &dir.path().join("rusd.log")).await;
    let root = if with_users { Some(token(&moved).await) } else { None };
    assert_eq!(content(&moved, root.as_deref()).await, first, "what rusd has");
    let file = dir.path().join("rusd.db");
    save(&moved, &file, with_users);
    moved.end();
    // A restart finds the same.
    let moved = Member::start(&rusd(), place, &place.flags(&data), &dir.path().join("rusd.log")).await;
    let root = if with_users { Some(token(&moved).await) } else { None };
    assert_eq!(content(&moved, root.as_deref()).await, first, "what rusd has after a restart");
    drop(moved);
    let (back, content) = etcd_on(&tools, &file, dir.path(), with_users).await;
    assert_eq!(content, first, "what etcd has in the end");
    assert_eq!(back, hash, "etcd's own hash of all keys and their history");
}

#[tokio::test]
async fn a_snapshot_file_goes_round() {
    round_trip(false, "a_snapshot_file_goes_round").await;
}

#[tokio::test]
async fn a_snapshot_file_with_users_goes_round() {
    round_trip(true, "a_snapshot_file_with_users_goes_round").await;
}

/// etcd is killed: its database lacks what only its log holds. All that it would have after a restart is taken over.
#[tokio::test]
async fn a_directory_that_was_left_behind_goes_round() {
    let test = "a_directory_that_was_left_behind_goes_round";
    let Some(tools) = Tools::find(test) else { return };
    for with_users in [false, true] {
        let dir = TempDir::new().unwrap();
        let (place, data) = (Place::free(), dir.path().join("etcd"));
        let log = dir.path().join("etcd.log");
        // Its database is written so seldom that nearly everything is in the log alone.
        let flags = [place.flags(&data), words("--backend-batch-interval=1h --backend-batch-limit=1000000")].concat();
        let mut etcd = Member::start(&tools.etcd, place, &flags, &log).await;
        fill(&etcd, with_users).await;
        etcd.kill();
        let copy = dir.path().join("copy");
        must(Path::new("cp"), &["-r".into(), data.display().to_string(), copy.display().to_string()]);
        let (to, moved_data) = (Place::free(), dir.path().join("rusd"));
        let mut arguments = words(&format!("import {}", copy.display()));
        arguments.extend(to.identity(&moved_data));
        let said = must(&rusd(), &arguments);
        assert!(said.contains("requests of etcd's log"), "{said}");

        let etcd = Member::start(&tools.etcd, place, &place.flags(&data), &log).await;
        let root = if with_users { Some(token(&etcd).await) } else { None };
        let first = content(&etcd, root.as_deref()).await;
        let hash = etcd.hash_kv(root.as_deref()).await;
        let moved = Member::start(&rusd(), to, &to.flags(&moved_data), &dir.path().join("rusd.log")).await;
        let root = if with_users { Some(token(&moved).await) } else { None };
        assert_eq!(content(&moved, root.as_deref()).await, first, "what rusd has");
        let file = dir.path().join("rusd.db");
        save(&moved, &file, with_users);
        let (back, content) = etcd_on(&tools, &file, dir.path(), with_users).await;
        assert_eq!((back, content), (hash, first), "what etcd has in the end");
    }
}

/// The flag, for a member that has nothing; the second start passes over it, even if what it names is gone.
#[tokio::test]
async fn the_first_start_takes_over_what_a_flag_names() {
    let test = "the_first_start_takes_over_what_a_flag_names";
    let Some(tools) = Tools::find(test) else { return };
    let dir = TempDir::new().unwrap();
    let (place, data) = (Place::free(), dir.path().join("etcd"));
    let etcd = Member::start(&tools.etcd, place, &place.flags(&data), &dir.path().join("etcd.log")).await;
    fill(&etcd, false).await;
    let first = content(&etcd, None).await;
    let to = Place::free();
    let (log, moved) = (dir.path().join("rusd.log"), dir.path().join("rusd"));
    let mut flags = to.flags(&moved);
    flags.push(format!("--import-from={}", data.display()));
    // Not while etcd runs on it.
    let mut early = Member::spawn(&rusd(), to, &flags, &log);
    assert!(!early.child.wait().unwrap().success());
    assert!(early.log().contains("is in use"), "{}", early.log());
    etcd.end();
    let member = Member::start(&rusd(), to, &flags, &log).await;
    assert_eq!(content(&member, None).await, first);
    member.end();
    std::fs::remove_dir_all(&data).unwrap();
    let member = Member::start(&rusd(), to, &flags, &log).await;
    assert_eq!(content(&member, None).await, first);
    assert!(std::fs::read_to_string(&log).unwrap().contains("--import-from is ignored"));
}

/// One file, three directories, one cluster; with revisions skipped, so that no watch hears one twice.
#[tokio::test]
async fn three_members_of_one_file_are_one_cluster() {
    let test = "three_members_of_one_file_are_one_cluster";
    let Some(tools) = Tools::find(test) else { return };
    let dir = TempDir::new().unwrap();
    let (place, data) = (Place::free(), dir.path().join("etcd"));
    let etcd = Member::start(&tools.etcd, place, &place.flags(&data), &dir.path().join("etcd.log")).await;
    fill(&etcd, false).await;
    let first = content(&etcd, None).await;
    let file = dir.path().join("etcd.db");
    save(&etcd, &file, false);
    drop(etcd);
    let places = [Place::free(), Place::free(), Place::free()];
    let cluster: Vec<_> = places.iter().enumerate().map(|(at, place)| format!("m{at}={}", place.peer())).collect();
    let mut members = Vec::new();
    for (at, place) in places.iter().enumerate() {
        let identity = words(&format!(
            "--name=m{at} --data-dir={} --initial-cluster={} --initial-advertise-peer-urls={} --initial-cluster-token=t",
            dir.path().join(format!("m{at}")).display(),
            cluster.join(","),
            place.peer()
        ));
        let mut arguments =
            words(&format!("snapshot restore {} --bump-revision 1000 --mark-compacted", file.display()));
        arguments.extend(identity.clone());
        must(&rusd(), &arguments);
        let flags = [identity, place.listeners()].concat();
        members.push(Member::spawn(&rusd(), *place, &flags, &dir.path().join(format!("m{at}.log"))));
    }
    for member in &mut members {
        member.ready().await;
    }
    for member in &members {
        let mut content = content(member, None).await;
        assert_eq!(content.revision, first.revision + 1000);
        content.revision = first.revision;
        assert_eq!(content, first);
    }
    let mut kv = pb::kv_client::KvClient::new(members[0].channel());
    let put = pb::PutRequest { key: "new".into(), value: "1".into(), ..Default::default() };
    let answer = kv.put(put).await.unwrap().into_inner();
    assert_eq!(answer.header.unwrap().revision, first.revision + 1001);
    let range = pb::RangeRequest { key: "k1".into(), revision: first.revision, ..Default::default() };
    assert!(kv.range(range).await.unwrap_err().message().contains("compacted"));
    let range = pb::RangeRequest { key: "new".into(), ..Default::default() };
    let read = pb::kv_client::KvClient::new(members[2].channel()).range(range).await.unwrap().into_inner();
    assert_eq!(read.kvs.len(), 1);
}

#[tokio::test]
async fn what_is_damaged_is_refused_and_nothing_is_made() {
    let test = "what_is_damaged_is_refused_and_nothing_is_made";
    let Some(tools) = Tools::find(test) else { return };
    let dir = TempDir::new().unwrap();
    let (place, data) = (Place::free(), dir.path().join("etcd"));
    let etcd = Member::start(&tools.etcd, place, &place.flags(&data), &dir.path().join("etcd.log")).await;
    fill(&etcd, false).await;
    let file = dir.path().join("etcd.db");
    must(&tools.etcdctl, &words(&format!("--endpoints=127.0.0.1:{} snapshot save {}", etcd.port, file.display())));
    let whole = std::fs::read(&file).unwrap();
    let bad = dir.path().join("bad.db");
    let mut flipped = whole.clone();
    flipped[9_000] ^= 4;
    let damages =
        [(whole[..whole.len() - 32].to_vec(), "missing hash"), (flipped, "SHA-256"), (vec![0; 512 + 32], "SHA-256")];
    for (bytes, says) in damages {
        std::fs::write(&bad, bytes).unwrap();
        let made = dir.path().join("made");
        let arguments = words(&format!("snapshot restore {} --data-dir {}", bad.display(), made.display()));
        let output = run(&rusd(), &arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(says), "{says}: {said}");
        assert!(!made.exists());
        let verify = run(&rusd(), &words(&format!("snapshot verify {}", bad.display())));
        assert!(!verify.status.success());
    }
    let running = words(&format!("import {} --data-dir {}", data.display(), dir.path().join("made").display()));
    let output = run(&rusd(), &running);
    assert!(String::from_utf8_lossy(&output.stderr).contains("is in use"));
}

/// A certificate of an authority of the test's own, with its key.
fn certificates(dir: &Path) -> [String; 3] {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let path = |name: &str| dir.join(name).display().to_string();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    // Whoever serves shows the same as whoever asks.
    params.extended_key_usages =
        vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let cert = params.signed_by(&key, &authority).unwrap();
    std::fs::write(path("ca.pem"), authority.pem()).unwrap();
    std::fs::write(path("cert.pem"), cert.pem()).unwrap();
    std::fs::write(path("key.pem"), key.serialize_pem()).unwrap();
    [path("ca.pem"), path("cert.pem"), path("key.pem")]
}

/// Cause: a server written in Go speaks HTTP/1 with whoever doesn't say in the handshake that it speaks HTTP/2.
/// Symptom: "frame with invalid size". Here etcd wants a client's certificate, too.
#[tokio::test]
async fn a_snapshot_is_saved_over_tls() {
    let Some(tools) = Tools::find("a_snapshot_is_saved_over_tls") else { return };
    let dir = TempDir::new().unwrap();
    let [ca, cert, key] = certificates(dir.path());
    let (place, data) = (Place::free(), dir.path().join("etcd"));
    let url = place.client().replace("http://", "https://");
    let flags = words(&format!(
        "--listen-client-urls={url} --advertise-client-urls={url} --listen-peer-urls={} --cert-file={cert} \
         --key-file={key} --trusted-ca-file={ca} --client-cert-auth",
        place.peer()
    ));
    let flags = [place.identity(&data), flags].concat();
    let mut etcd = Member::spawn(&tools.etcd, place, &flags, &dir.path().join("etcd.log"));
    let file = dir.path().join("etcd.db");
    let save = |rest: &str| run(&rusd(), &words(&format!("snapshot save {} --endpoints {url} {rest}", file.display())));
    let with_all = format!("--cacert {ca} --cert {cert} --key {key}");
    let mut last = save(&with_all);
    for _ in 0..100 {
        if last.status.success() {
            break;
        }
        assert!(etcd.child.try_wait().unwrap().is_none(), "{}", etcd.log());
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        last = save(&with_all);
    }
    assert!(last.status.success(), "{}", String::from_utf8_lossy(&last.stderr));
    must(&rusd(), &words(&format!("snapshot verify {}", file.display())));
    std::fs::remove_file(&file).unwrap();
    for without in ["", &format!("--cacert {ca}"), &format!("--cert {cert} --key {key}")] {
        assert!(!save(without).status.success() && !file.exists(), "{without:?}");
    }
    assert!(save(&format!("--insecure-skip-tls-verify --cert {cert} --key {key}")).status.success());
}

/// A member that lost its disk isn't one that begins: another that knows it as started keeps it from importing.
#[test]
fn who_was_there_before_does_not_import_again() {
    use std::io::{Read as _, Write as _};
    let dir = TempDir::new().unwrap();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let there = format!("http://{}", other.local_addr().unwrap());
    let place = Place::free();
    let mut config = rusd::ops::config::Config::default();
    let cluster = format!("--initial-cluster=a={there},b={}", place.peer());
    for (name, value) in [("name", "b"), ("initial-cluster", &cluster[18..])] {
        config.set(rusd::ops::config::flags::find(name).unwrap(), value).unwrap();
    }
    let own = rusd::ops::identity::Identity::bootstrap(&config).member;
    let body =
        format!(r#"[{{"id":{},"peerURLs":["{}"],"name":"b","clientURLs":["http://h:8"]}}]"#, own.get(), place.peer());
    std::thread::spawn(move || {
        for socket in other.incoming() {
            let mut socket = socket.unwrap();
            let _ = socket.read(&mut [0; 1024]);
            let head =
                "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nX-Etcd-Cluster-ID: cdf818194e3a8c32\r\n\r\n";
            let _ = socket.write_all(format!("{head}{body}").as_bytes());
        }
    });
    let mut flags = words(&format!("--name=b --data-dir={}", dir.path().join("b").display()));
    flags.extend([format!("--initial-advertise-peer-urls={}", place.peer()), cluster]);
    flags.extend(place.listeners());
    flags.push(format!("--import-from={}", dir.path().join("left.db").display()));
    let output = run(&rusd(), &flags);
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && said.contains("has already been bootstrapped"), "{said}");
}
