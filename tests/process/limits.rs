//! Each limit's flag, given to a process and reached there: refused with etcd's words, counted under the flag's name,
//! and served again afterwards. (`connections` has those of connections, `overload` and `unread` those of bytes.)

use std::time::Duration;

use futures::StreamExt;
use rusd_proto::authpb;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::auth_client::AuthClient;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use rusd_proto::etcdserverpb::watch_client::WatchClient;
use rusd_proto::etcdserverpb::watch_request::RequestUnion;
use rusd_proto::v3lockpb;
use rusd_proto::v3lockpb::lock_client::LockClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::frames::{END_HEADERS, Frames, RST_STREAM, SETTINGS, call};
use crate::server::{Kind, Server};

const COMES_MAX: Duration = Duration::from_secs(60);
const TOO_MANY: &str = "etcdserver: too many requests";
/// HTTP/2's number of the setting, and of the refusal.
const MAX_CONCURRENT_STREAMS: u16 = 3;
const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];

fn is_refused<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let status = answer.expect_err("it is one too many");
    assert_eq!((status.code(), status.message()), (Code::Unknown, TOO_MANY));
}

fn create(key: String) -> pb::WatchRequest {
    let create = pb::WatchCreateRequest { key: key.into(), ..Default::default() };
    pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

struct Watch {
    say: mpsc::Sender<pb::WatchRequest>,
    answers: Streaming<pb::WatchResponse>,
}

impl Watch {
    /// A stream with one watcher: etcd answers only then.
    async fn open(channel: Channel, key: &str) -> Self {
        let (say, requests) = mpsc::channel(1);
        say.send(create(key.to_owned())).await.expect("open");
        let answers =
            WatchClient::new(channel).watch(ReceiverStream::new(requests)).await.expect("let in").into_inner();
        let mut watch = Self { say, answers };
        assert_eq!(watch.next().await, "");
        watch
    }

    /// A stream without any.
    async fn idle(channel: Channel) -> Result<Self, Status> {
        let (say, requests) = mpsc::channel(1);
        let answers = WatchClient::new(channel).watch(ReceiverStream::new(requests)).await?.into_inner();
        Ok(Self { say, answers })
    }

    async fn create(&mut self, key: String) -> String {
        self.say.send(create(key)).await.expect("open");
        self.next().await
    }

    /// Why one was not let in, or nothing.
    async fn next(&mut self) -> String {
        let answer = tokio::time::timeout(COMES_MAX, self.answers.message()).await.expect("an answer");
        let answer = answer.expect("the stream is open").expect("the stream is open");
        assert!(answer.created);
        answer.cancel_reason
    }
}

async fn metrics(server: &Server) -> String {
    let [url, _] = server.urls();
    let mut socket = tokio::net::TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
    socket.write_all(b"GET /metrics HTTP/1.0\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{series} ")));
    line.unwrap_or_else(|| panic!("{series} is not shown")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_limit_is_reached_once() {
    let flags = [
        "--max-watchers=6",
        "--max-watchers-per-stream=5",
        "--watch-keys-mb=1",
        "--max-leases=3",
        "--max-users=1",
        "--max-roles=1",
        "--users-and-roles-mb=1",
        "--max-lock-waiters=1",
        "--max-open-requests=24",
        "--max-pending-logins=2",
        "--max-pending-logins-per-connection=1",
        "--bcrypt-cost=10",
    ]
    .map(str::to_owned);
    let server = Server::start(Kind::Rusd, &flags, "limits").await.expect("our own is always there");

    // Keys first: a stream may have a quarter.
    let long = |at: usize| format!("{at}{}", "x".repeat(100 << 10));
    let mut watch = Watch::open(server.connect().await, &long(0)).await;
    for at in 1..3 {
        assert_eq!(watch.create(long(at)).await, "");
    }
    assert_eq!(watch.create("y".into()).await, TOO_MANY);
    drop(watch);
    until(&server, "rusd_limit_used{limit=\"max-watchers\"}", 0.0).await;
    let mut watch = Watch::open(server.connect().await, "0").await;
    for at in 1..5 {
        assert_eq!(watch.create(format!("{at}")).await, "");
    }
    assert_eq!(watch.create("y".into()).await, TOO_MANY, "the stream has five");
    let mut other = Watch::open(server.connect().await, "y").await;
    assert_eq!(other.create("y".into()).await, TOO_MANY, "all together have six");
    drop((watch, other));

    let mut lease = LeaseClient::new(server.connect().await);
    for id in [1, 2, 3] {
        lease.lease_grant(pb::LeaseGrantRequest { id, ttl: 600 }).await.unwrap();
    }
    is_refused(lease.lease_grant(pb::LeaseGrantRequest { id: 4, ttl: 600 }).await);

    let lock = async |lease| {
        LockClient::new(server.connect().await).lock(v3lockpb::LockRequest { name: "l".into(), lease }).await
    };
    let held = lock(1).await.unwrap().into_inner();
    let mut second = Box::pin(lock(2));
    tokio::select! {
        answer = &mut second => panic!("it is held: {answer:?}"),
        () = until(&server, "rusd_limit_used{limit=\"max-lock-waiters\"}", 1.0) => {}
    }
    is_refused(lock(3).await);
    LockClient::new(server.connect().await).unlock(v3lockpb::UnlockRequest { key: held.key }).await.unwrap();
    second.await.expect("its turn has come");

    // Streams that stay take the places of requests; probes have some of their own. This one asks for the page.
    until(&server, "rusd_limit_used{limit=\"max-open-requests\"}", 1.0).await;
    let mut streams = Vec::new();
    let refused = loop {
        match Watch::idle(server.connect().await).await {
            Ok(watch) => streams.push(watch),
            Err(refused) => break refused,
        }
        assert!(streams.len() <= 24);
    };
    is_refused::<()>(Err(refused));
    assert_eq!(streams.len(), 24);
    let mut kv = KvClient::new(server.connect().await);
    is_refused(kv.range(pb::RangeRequest { key: "k".into(), ..Default::default() }).await);
    assert!(metrics(&server).await.starts_with("HTTP/1.0 200"));
    drop(streams);
    let range = async || kv.clone().range(pb::RangeRequest { key: "k".into(), ..Default::default() }).await;
    let served = async {
        while range().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(COMES_MAX, served).await.expect("served again");

    // Logins, last: many of one connection, and one each of many.
    let mut auth = AuthClient::new(server.connect().await);
    let root = pb::AuthUserAddRequest { name: "root".into(), password: "pw".into(), ..Default::default() };
    auth.user_add(root).await.unwrap();
    auth.role_add(pb::AuthRoleAddRequest { name: "root".into() }).await.unwrap();
    auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() }).await.unwrap();
    let options = Some(authpb::UserAddOptions { no_password: true });
    is_refused(auth.user_add(pb::AuthUserAddRequest { name: "u".into(), options, ..Default::default() }).await);
    is_refused(auth.role_add(pb::AuthRoleAddRequest { name: "r".into() }).await);
    let perm = Some(authpb::Permission { key: vec![b'k'; 1_100_000].into(), ..Default::default() });
    is_refused(auth.role_grant_permission(pb::AuthRoleGrantPermissionRequest { name: "root".into(), perm }).await);
    auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
    let login = |channel: Channel| async move {
        let login = pb::AuthenticateRequest { name: "root".into(), password: "pw".into() };
        AuthClient::new(channel).authenticate(login).await
    };
    let one = server.connect().await;
    let of_one: Vec<_> = futures::stream::iter(0..16).map(|_| login(one.clone())).buffer_unordered(16).collect().await;
    let mut channels = Vec::new();
    for _ in 0..16 {
        channels.push(server.connect().await);
    }
    let of_many: Vec<_> = futures::stream::iter(channels).map(login).buffer_unordered(16).collect().await;
    for answers in [of_one, of_many] {
        let (taken, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
        assert!(!taken.is_empty() && !refused.is_empty(), "{} taken, {} refused", taken.len(), refused.len());
        refused.into_iter().for_each(is_refused);
    }
    login(one).await.expect("later");

    let shown = metrics(&server).await;
    for (flag, max) in [
        ("max-watchers", 6.0),
        ("watch-keys-mb", 1_048_576.0),
        ("max-leases", 3.0),
        ("max-users", 1.0),
        ("max-roles", 1.0),
        ("users-and-roles-mb", 1_048_576.0),
        ("max-lock-waiters", 1.0),
        ("max-open-requests", 24.0),
        ("max-pending-logins", 2.0),
        ("max-pending-logins-per-connection", 1.0),
    ] {
        assert_eq!(value(&shown, &format!("rusd_limit{{limit=\"{flag}\"}}")), max, "{flag}");
        let refused = value(&shown, &format!("rusd_limit_refused_total{{limit=\"{flag}\"}}"));
        assert!(refused >= 1.0, "{flag} was reached");
    }
    assert_eq!(value(&shown, "rusd_limit_refused_total{limit=\"max-watchers\"}"), 2.0);
    for there_is_one in ["max-users", "max-roles"] {
        assert_eq!(value(&shown, &format!("rusd_limit_used{{limit=\"{there_is_one}\"}}")), 1.0);
    }
    assert!(value(&shown, "rusd_limit_used{limit=\"users-and-roles-mb\"}") > 0.0);
    assert_eq!(value(&shown, "rusd_limit_refused_total{limit=\"watch-keys-mb\"}"), 1.0);
}

async fn until(server: &Server, series: &str, wanted: f64) {
    let comes = async {
        while value(&metrics(server).await, series) != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(COMES_MAX, comes).await.unwrap_or_else(|_| panic!("{series} never becomes {wanted}"));
}

/// The bound is told to the client, who waits; one that goes on is reset, and what it had goes on. As on etcd.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_one_connection() {
    for kind in [Kind::Etcd, Kind::Rusd] {
        let flags = ["--max-concurrent-streams=3".to_owned()];
        let Some(server) = Server::start(kind, &flags, "limits").await else { continue };
        let [url, _] = server.urls();
        let mut frames = Frames::open(url.trim_start_matches("http://"), &[]).await;
        let setting = [&MAX_CONCURRENT_STREAMS.to_be_bytes()[..], &3u32.to_be_bytes()].concat();
        let tells = |payload: &[u8]| payload.chunks(6).any(|told| told == setting);
        let told = frames.find(|(kind, _, _, payload)| *kind == SETTINGS && tells(payload)).await;
        assert!(told.is_some(), "{kind:?} doesn't tell the bound");
        for stream in [1, 3, 5, 7] {
            assert!(frames.send(&call(stream, "/etcdserverpb.Watch/Watch", END_HEADERS)).await);
        }
        let (_, _, stream, code) = frames.find(|(kind, ..)| *kind == RST_STREAM).await.expect("a refusal");
        assert_eq!((stream, &code[..]), (7, &REFUSED_STREAM[..]), "{kind:?}");

        // A client of good manners waits.
        let channel = server.connect().await;
        let mut streams = Vec::new();
        for at in 0..3 {
            streams.push(Watch::open(channel.clone(), &format!("k{at}")).await);
        }
        let mut kv = KvClient::new(channel);
        let mut put = Box::pin(kv.put(pb::PutRequest { key: "k0".into(), ..Default::default() }));
        let early = tokio::time::timeout(Duration::from_millis(300), &mut put).await;
        assert!(early.is_err(), "{kind:?}: there are three already: {early:?}");
        streams.pop();
        tokio::time::timeout(COMES_MAX, put).await.expect("its turn comes").unwrap();
    }
}
