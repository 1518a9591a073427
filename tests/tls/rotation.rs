//! Certificates, authorities and lists of revoked ones change while calls, streams and members go on.
//!
//! ```text
//! bundle: old ─► old, new ─► (certificates of the new one) ─► new        list: more and more strangers
//! meanwhile: puts with a handshake each · puts on one connection · a watch · a keep-alive: none fails
//! members: the same for their certificates under puts, then one starts anew: no election
//! ```

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rusd::env::Env;
use rusd::tls::{Connector, Pair, Settings};
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use rusd_proto::etcdserverpb::watch_client::WatchClient;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::authority::{Authority, Wanted, put};
use crate::process::{COMES_MAX, Member, Place, flag};

/// Longer than changed files are left unlooked at while there are handshakes, and than a handshake with the old ones takes.
const SEEN_AFTER: Duration = Duration::from_secs(3);

/// A connection over TLS.
async fn connect(url: &str, connector: &Connector) -> Channel {
    let address = url.split_once("://").expect("a URL").1.to_owned();
    let connector = connector.clone();
    let dial = tower::service_fn(move |_: Uri| {
        let (address, connector) = (address.clone(), connector.clone());
        async move {
            let stream = TcpStream::connect(&address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(TokioIo::new(connector.connect(&address, stream).await?))
        }
    });
    let endpoint = Endpoint::from_static("http://localhost").timeout(COMES_MAX);
    endpoint.connect_with_connector(dial).await.expect("a handshake")
}

fn value(key: &str, value: u64) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: value.to_string().into(), ..Default::default() }
}

/// The authorities that both sides trust, as one file.
fn trust(ca: &Path, authorities: &[&Authority]) {
    put(ca, authorities.iter().map(|authority| authority.pem()).collect::<String>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_files_change_under_calls_and_streams() {
    let place = Place::new();
    let dir = place.path().to_owned();
    let (ca, crl) = (dir.join("ca.pem"), dir.join("crl"));
    let authority = Authority::new("authority 0");
    trust(&ca, &[&authority]);
    put(&crl, authority.revoke(&[200]).1);
    let server = authority.issue(&dir, "server", &Wanted::default());
    let alice = |serial| Wanted { common_name: "alice", serial, ..Wanted::default() };
    let pair = authority.issue(&dir, "alice", &alice(1));
    let flags = [
        flag("cert-file", &server.cert),
        flag("key-file", &server.key),
        flag("trusted-ca-file", &ca),
        flag("client-crl-file", &crl),
        "--client-cert-auth".to_owned(),
    ];
    let member = Member::new(&place, "m", "https", "http").with(&flags).started();
    let settings = |pair: Pair| Settings {
        client_pair: Some(pair),
        trusted_ca: Some(ca.clone()),
        http2: true,
        ..Settings::default()
    };
    let pair = Pair { cert: pair.cert, key: pair.key };
    let connector = Connector::new("test", settings(pair), Env::real()).expect("good files");

    let stop = Arc::new(AtomicBool::new(false));
    let [handshakes, puts, renewals] = [(); 3].map(|()| Arc::new(AtomicU64::new(0)));
    let mut load = tokio::task::JoinSet::new();
    for at in 0..2 {
        let (stop, count, connector, url) =
            (stop.clone(), handshakes.clone(), connector.clone(), member.client.clone());
        load.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let mut kv = KvClient::new(connect(&url, &connector).await);
                kv.put(value(&format!("new/{at}"), 0)).await.expect("no put fails");
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let channel = connect(&member.client, &connector).await;
    let (say, requests) = mpsc::channel(4);
    let create = pb::WatchCreateRequest { key: "old".into(), ..Default::default() };
    let create = pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
    say.send(create).await.expect("open");
    let mut watch = WatchClient::new(channel.clone()).watch(ReceiverStream::new(requests)).await.unwrap().into_inner();
    watch.message().await.expect("created").expect("created");
    {
        let (stop, count, mut kv) = (stop.clone(), puts.clone(), KvClient::new(channel.clone()));
        load.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let next = count.load(Ordering::Relaxed) + 1;
                kv.put(value("old", next)).await.expect("no put fails");
                count.store(next, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
    }
    let mut lease = LeaseClient::new(channel);
    lease.lease_grant(pb::LeaseGrantRequest { id: 7, ttl: 5 }).await.expect("granted");
    {
        let (stop, count) = (stop.clone(), renewals.clone());
        load.spawn(async move {
            let (say, requests) = mpsc::channel(1);
            say.send(pb::LeaseKeepAliveRequest { id: 7 }).await.expect("the stream is open");
            let mut answers = lease.lease_keep_alive(ReceiverStream::new(requests)).await.unwrap().into_inner();
            while !stop.load(Ordering::Relaxed) {
                let answer = answers.message().await.expect("no renewal fails").expect("the stream is open");
                assert!(answer.ttl > 0, "the lease was lost");
                count.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(100)).await;
                say.send(pb::LeaseKeepAliveRequest { id: 7 }).await.expect("the stream is open");
            }
        });
    }

    let mut authorities = vec![authority];
    for round in 1..4u8 {
        let new = Authority::new(&format!("authority {round}"));
        trust(&ca, &[&authorities[authorities.len() - 1], &new]);
        tokio::time::sleep(SEEN_AFTER).await;
        new.issue(&dir, "server", &Wanted { serial: round, ..Wanted::default() });
        new.issue(&dir, "alice", &alice(round));
        let strangers: Vec<u8> = (200..200 + 10 * round).collect();
        put(&crl, new.revoke(&strangers).1);
        tokio::time::sleep(SEEN_AFTER).await;
        trust(&ca, &[&new]);
        authorities.push(new);
        tokio::time::sleep(SEEN_AFTER).await;
        assert!(!load.is_empty());
        if let Some(ended) = load.try_join_next() {
            ended.expect("nothing fails");
            panic!("somebody has stopped in round {round}");
        }
    }
    // All of it counts: a certificate of the first authority is nobody's, and one that is listed neither.
    for (issuer, serial) in [(&authorities[0], 9), (&authorities[3], 205)] {
        let stranger = issuer.issue(&dir, "stranger", &alice(serial));
        let stranger = Pair { cert: stranger.cert, key: stranger.key };
        let connector = Connector::new("stranger", settings(stranger), Env::real()).expect("good files");
        let address = member.client.split_once("://").expect("a URL").1;
        let stream = TcpStream::connect(address).await.expect("a connection");
        // With TLS 1.3 the refusal comes after the client's own end of the handshake.
        let refused = match connector.connect(address, stream).await {
            Err(_) => true,
            Ok(mut stream) => {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
                stream.read_u8().await.is_err()
            }
        };
        assert!(refused, "serial {serial} is let in");
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended.expect("nothing fails");
    }
    let last = puts.load(Ordering::Relaxed);
    let mut seen = 0;
    while seen < last {
        for event in watch.message().await.expect("the stream is open").expect("the stream is open").events {
            let kv = event.kv.expect("a put");
            seen += 1;
            assert_eq!(kv.value, seen.to_string(), "each once, in order");
        }
    }
    let figures = [&handshakes, &puts, &renewals].map(|count| count.load(Ordering::Relaxed));
    assert!(figures.iter().all(|count| *count > 20), "{figures:?}");
    let changes = member.log().matches("the changed TLS files for clients are in use").count();
    assert!(changes >= 6, "{changes}: {}", member.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_change_theirs_without_an_election() {
    let place = Place::new();
    let dir = place.path().to_owned();
    let ca = dir.join("peers.pem");
    let mut authority = Authority::new("authority 0");
    trust(&ca, &[&authority]);
    let names = ["m1", "m2", "m3"];
    let mut members: Vec<_> = names.map(|name| Member::new(&place, name, "http", "https")).into();
    let initial: Vec<_> = members.iter().map(|member| format!("{}={}", member.name, member.peer)).collect();
    let wanted = |serial| Wanted { common_name: "members", serial, ..Wanted::default() };
    for member in &mut members {
        let issued = authority.issue(&dir, &member.name, &wanted(1));
        let flags = [
            flag("peer-cert-file", &issued.cert),
            flag("peer-key-file", &issued.key),
            flag("peer-trusted-ca-file", &ca),
            "--peer-client-cert-auth".to_owned(),
            "--peer-cert-allowed-cn=members".to_owned(),
            // Long enough that a busy machine is no reason for an election.
            "--heartbeat-interval=200".to_owned(),
            "--election-timeout=4000".to_owned(),
        ];
        member.set_flags(&initial.join(","), &flags);
        member.start();
    }
    members.iter_mut().for_each(Member::ready);
    let at = |member: &Member| Endpoint::from_shared(member.client.clone()).expect("a URL").connect_lazy();
    let status = async |member: &Member| {
        MaintenanceClient::new(at(member)).status(pb::StatusRequest {}).await.map(tonic::Response::into_inner)
    };
    let begun = status(&members[0]).await.expect("it serves");
    let mut leader = 0;
    for (place, member) in members.iter().enumerate() {
        let status = status(member).await.expect("it serves");
        if status.header.expect("a header").member_id == status.leader {
            leader = place;
        }
    }
    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let puts = {
        let (stop, count, mut kv) = (stop.clone(), count.clone(), KvClient::new(at(&members[leader])));
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let next = count.load(Ordering::Relaxed) + 1;
                kv.put(value("k", next)).await.expect("no put fails");
                count.store(next, Ordering::Relaxed);
            }
        })
    };
    for round in 1..4usize {
        let new = Authority::new(&format!("authority {round}"));
        trust(&ca, &[&authority, &new]);
        for name in names {
            new.issue(&dir, name, &wanted(u8::try_from(round).expect("few") + 1));
        }
        // Those that are connected stay so; one that starts anew shows the new one to the others, and they to it.
        let again = (leader + 1 + round % 2) % 3;
        members[again].kill();
        trust(&ca, &[&new]);
        authority = new;
        members[again].start();
        let before = count.load(Ordering::Relaxed);
        let mut kv = KvClient::new(at(&members[again]));
        let caught_up = async {
            let range = pb::RangeRequest { key: "k".into(), serializable: true, ..Default::default() };
            while kv.range(range.clone()).await.is_err() || status(&members[again]).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let range = pb::RangeRequest { key: "k".into(), ..Default::default() };
            let read = loop {
                match kv.range(range.clone()).await {
                    Ok(read) => break read.into_inner(),
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            };
            let value: u64 = String::from_utf8_lossy(&read.kvs[0].value).parse().expect("a number");
            assert!(value >= before, "{value} after {before}");
        };
        tokio::time::timeout(COMES_MAX, caught_up).await.unwrap_or_else(|_| panic!("{}", members[again].log()));
    }
    stop.store(true, Ordering::Relaxed);
    puts.await.expect("no put fails");
    assert!(count.load(Ordering::Relaxed) > 20, "{count:?}");
    let ended = status(&members[leader]).await.expect("it serves");
    assert_eq!((ended.raft_term, ended.leader), (begun.raft_term, begun.leader), "nobody else was elected");
}
