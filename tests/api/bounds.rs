//! Each limit of the client port: as much as there may be is served, one more is refused with etcd's words, and what
//! is given back can be used again.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use rusd::types::Limits;
use rusd_proto::authpb;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::auth_client::AuthClient;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use rusd_proto::etcdserverpb::watch_request::RequestUnion;
use rusd_proto::v3electionpb;
use rusd_proto::v3electionpb::election_client::ElectionClient;
use rusd_proto::v3lockpb;
use rusd_proto::v3lockpb::lock_client::LockClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Code, Status};

use crate::frames::{DATA, END_HEADERS, END_STREAM, Frames, call, frame};
use crate::raw::framed;
use crate::server::Server;

const TOO_MANY: &str = "etcdserver: too many requests";
/// How long anything that has to come may take.
const COMES_MAX: Duration = Duration::from_secs(60);

fn is_refused<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let status = answer.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unknown, TOO_MANY));
}

/// Waits for what comes by itself.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let comes = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(COMES_MAX, comes).await.unwrap_or_else(|_| panic!("{what}"));
}

fn create(key: &str) -> Vec<u8> {
    let create = pb::WatchCreateRequest { key: key.to_owned().into(), ..Default::default() };
    let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    framed(&request.encode_to_vec()).to_vec()
}

/// A connection with one watch stream of one watcher, which ends with it; and its first answer, or the refusal.
async fn watch(server: &Server, key: &str) -> (Frames, Option<pb::WatchResponse>) {
    let mut frames = Frames::open(server.address(), &[]).await;
    let all = [call(1, "/etcdserverpb.Watch/Watch", END_HEADERS), frame(DATA, 0, 1, &create(key))];
    assert!(frames.send(&all.concat()).await);
    let first =
        frames.find(|(kind, flags, stream, _)| *stream == 1 && (*kind == DATA || flags & END_STREAM != 0)).await;
    let (kind, .., payload) = first.expect("an answer");
    let answer = (kind == DATA).then(|| pb::WatchResponse::decode(&payload[5..]).expect("a watch's answer"));
    (frames, answer)
}

async fn page(server: &Server, request: &str) -> String {
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

fn put(key: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_all_clients() {
    let server = Server::with_limits(Limits { requests_open_max: 3, ..Limits::default() });
    let mut open = Vec::new();
    for _ in 0..3 {
        let (stream, answer) = watch(&server, "k").await;
        assert!(answer.is_some(), "there is room");
        open.push(stream);
    }
    let mut kv = KvClient::new(server.connect().await);
    is_refused(kv.put(put("k")).await);
    assert_eq!(watch(&server, "k").await.1, None, "refused as a call");
    let answer = page(
        &server,
        "POST /v3/kv/range HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 14\r\n\r\n{\"key\":\"aw==\"}",
    )
    .await;
    assert!(
        answer.starts_with("HTTP/1.1 500 ") && answer.ends_with(&format!("{{\"code\":2,\"message\":\"{TOO_MANY}\"}}")),
        "{answer}"
    );
    let answer = page(&server, "GET /version HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains(TOO_MANY), "{answer}");
    // What tells of the overload, or keeps leases, is answered all the same.
    for path in ["/health", "/livez", "/readyz", "/metrics"] {
        let answer = page(&server, &format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    }
    let renewals = futures::stream::iter([pb::LeaseKeepAliveRequest { id: 7 }]);
    let mut lease = LeaseClient::new(server.connect().await);
    assert_eq!(lease.lease_keep_alive(renewals).await.unwrap().into_inner().message().await.unwrap().unwrap().ttl, 0);
    assert!(server.services.budgets.open.refused() >= 4);
    open.pop();
    until("room after one has gone", async || kv.put(put("k")).await.is_ok()).await;
    drop(open);
    until("nothing is held", async || server.services.budgets.open.taken() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_of_a_stream_and_of_all() {
    let limits = Limits { stream_watchers_max: 2, watchers_max: 3, ..Limits::default() };
    let server = Server::with_limits(limits);
    let refused = |answer: Option<pb::WatchResponse>| {
        let answer = answer.expect("the stream is let in");
        (answer.created, answer.canceled, answer.watch_id, answer.cancel_reason)
    };
    let too_many = (true, true, -1, TOO_MANY.to_owned());
    let (mut first, _) = watch(&server, "a").await;
    assert!(first.send(&[frame(DATA, 0, 1, &create("b")), frame(DATA, 0, 1, &create("c"))].concat()).await);
    let mut answers = Vec::new();
    while answers.len() < 2 {
        let (.., payload) = first.find(|(kind, ..)| *kind == DATA).await.expect("an answer");
        // Several may come in one frame.
        let mut rest = &payload[..];
        while let Some((head, after)) = rest.split_first_chunk::<5>() {
            let (message, after) = after.split_at(head[4].into());
            answers.push(pb::WatchResponse::decode(message).expect("a watch's answer"));
            rest = after;
        }
    }
    assert!(!answers[0].canceled);
    assert_eq!(refused(answers.pop()), too_many, "its own are two");
    let (second, answer) = watch(&server, "d").await;
    assert!(answer.is_some_and(|answer| !answer.canceled));
    assert_eq!(refused(watch(&server, "e").await.1), too_many, "all have three");
    assert_eq!(server.member.hub.metrics().snapshot().refused_total, 2);
    drop((first, second));
    until("room for others", async || watch(&server, "f").await.1.is_some_and(|answer| !answer.canceled)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases() {
    let server = Server::with_limits(Limits { leases_max: 2, ..Limits::default() });
    let mut lease = LeaseClient::new(server.connect().await);
    for id in [1, 2] {
        lease.lease_grant(pb::LeaseGrantRequest { ttl: 60, id }).await.unwrap();
    }
    is_refused(lease.lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 3 }).await);
    // A lock without a lease would get one.
    let mut lock = LockClient::new(server.connect().await);
    is_refused(lock.lock(v3lockpb::LockRequest { name: "l".into(), lease: 0 }).await);
    assert_eq!(server.services.budgets.leases.refused(), 2);
    lease.lease_revoke(pb::LeaseRevokeRequest { id: 1 }).await.unwrap();
    lease.lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 3 }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_and_roles() {
    let server = Server::with_limits(Limits { users_max: 2, roles_max: 2, ..Limits::default() });
    let mut auth = AuthClient::new(server.connect().await);
    let options = Some(authpb::UserAddOptions { no_password: true });
    let user = |name: &str| pb::AuthUserAddRequest { name: name.into(), options, ..Default::default() };
    let role = |name: &str| pb::AuthRoleAddRequest { name: name.into() };
    for name in ["a", "b"] {
        auth.user_add(user(name)).await.unwrap();
        auth.role_add(role(name)).await.unwrap();
    }
    is_refused(auth.user_add(user("c")).await);
    is_refused(auth.role_add(role("c")).await);
    let body = r#"{"name":"c"}"#;
    let head = format!("HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    let answer = page(&server, &format!("POST /v3/auth/role/add {head}{body}")).await;
    assert!(answer.ends_with(&format!("{{\"code\":2,\"message\":\"{TOO_MANY}\"}}")), "{answer}");
    assert_eq!((server.services.budgets.users.refused(), server.services.budgets.roles.refused()), (1, 2));
    // What would be refused anyway is refused as ever, and what makes nothing more goes on.
    assert_eq!(auth.user_add(user("a")).await.unwrap_err().message(), "etcdserver: user name already exists");
    assert_eq!(auth.role_add(role("a")).await.unwrap_err().message(), "etcdserver: role name already exists");
    auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: "a".into(), role: "a".into() }).await.unwrap();
    auth.user_delete(pb::AuthUserDeleteRequest { name: "b".into() }).await.unwrap();
    auth.role_delete(pb::AuthRoleDeleteRequest { role: "b".into() }).await.unwrap();
    auth.user_add(user("c")).await.unwrap();
    auth.role_add(role("c")).await.unwrap();
}

// Cause: who came without a lease got one before it was seen that there is no room for the answer. Symptom: each refused call
// left a lease for a minute, whose name nobody knew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_for_whose_answer_there_is_no_room_leaves_no_lease() {
    let server = Server::with_limits(Limits::default());
    let answers = &server.services.budgets.answers;
    let full = answers.hold(answers.max());
    let name = Bytes::from(vec![b'n'; 20 << 10]);
    let lock = v3lockpb::LockRequest { name: name.clone(), lease: 0 };
    is_refused(LockClient::new(server.connect().await).lock(lock.clone()).await);
    let campaign = v3electionpb::CampaignRequest { name, lease: 0, value: "v".into() };
    is_refused(ElectionClient::new(server.connect().await).campaign(campaign).await);
    let mut lease = LeaseClient::new(server.connect().await);
    let left = lease.lease_leases(pb::LeaseLeasesRequest {}).await.unwrap().into_inner();
    assert_eq!(left.leases, []);
    drop(full);
    LockClient::new(server.connect().await).lock(lock).await.unwrap();
}

// Cause: what may wait for hours let go of its message's bytes when that was there, though it has the message until its place
// is taken. Symptom: while there was no leader, 5 000 calls without a lease could have as many messages of megabytes, beside
// all limits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_for_a_lock_is_held_until_its_place_is_taken() {
    const LONG: usize = 200 << 10;
    let server = Server::with_limits(Limits::default());
    let (requests, grants) = (&server.services.budgets.requests, &server.member.front.grants);
    let name = Bytes::from(vec![b'n'; LONG]);
    let channel = server.connect().await;
    let lock = || {
        let (channel, name) = (channel.clone(), name.clone());
        tokio::spawn(async move { LockClient::new(channel).lock(v3lockpb::LockRequest { name, lease: 0 }).await })
    };
    let campaign = || {
        let channel = channel.clone();
        let request = v3electionpb::CampaignRequest { name: name.clone(), lease: 0, value: "v".into() };
        tokio::spawn(async move { ElectionClient::new(channel).campaign(request).await })
    };
    grants.close();
    let first = lock();
    grants.is_reached().await;
    assert!(requests.used() >= LONG, "{}", requests.used());
    grants.open();
    first.await.unwrap().unwrap();
    // Those behind it wait with their names, and nothing else.
    let waiters = &server.services.budgets.lock_waiters;
    for (number, call) in [lock().abort_handle(), campaign().abort_handle()].into_iter().enumerate() {
        until("it waits", async || waiters.taken() > number && requests.used() == 0).await;
        assert!(!call.is_finished());
    }
}

/// The keys of all who contend for `l`.
async fn keys(server: &Server) -> Vec<String> {
    let range = pb::RangeRequest { key: "l/".into(), range_end: "l0".into(), ..Default::default() };
    let found = KvClient::new(server.connect().await).range(range).await.unwrap().into_inner();
    found.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_wait_for_a_lock() {
    let server = Server::with_limits(Limits { lock_waiters_max: 1, ..Limits::default() });
    let mut lease = LeaseClient::new(server.connect().await);
    for id in [1, 2, 3] {
        lease.lease_grant(pb::LeaseGrantRequest { ttl: 600, id }).await.unwrap();
    }
    let lock = async |lease| {
        LockClient::new(server.connect().await).lock(v3lockpb::LockRequest { name: "l".into(), lease }).await
    };
    let campaign = async |lease| {
        let request = v3electionpb::CampaignRequest { name: "l".into(), lease, value: "v".into() };
        ElectionClient::new(server.connect().await).campaign(request).await
    };
    let held = lock(1).await.unwrap().into_inner();
    let waiters = &server.services.budgets.lock_waiters;
    let mut second = Box::pin(lock(2));
    tokio::select! {
        answer = &mut second => panic!("it is held: {answer:?}"),
        () = until("one waits", async || keys(&server).await.len() == 2) => {}
    }
    assert_eq!(waiters.taken(), 1);
    is_refused(lock(3).await);
    // Cause: a place was taken and given up again when there was no room to wait in. Symptom: the key of another call with
    // the same lease went with it, which was told that its session had ended.
    is_refused(lock(2).await);
    is_refused(campaign(2).await);
    assert_eq!(waiters.refused(), 3);
    assert_eq!(keys(&server).await, ["l/1", "l/2"], "nothing came and nothing went");
    // Who needs not wait needs no room.
    assert_eq!(lock(1).await.unwrap().into_inner().key, held.key);
    let other = v3lockpb::LockRequest { name: "m".into(), lease: 3 };
    LockClient::new(server.connect().await).lock(other).await.unwrap();
    // Cause: without room to wait in, the store's revision stood for the own key's, though there was none. Symptom: as long as
    // the holder's key was the last thing written, one more got the lock, or led.
    let other = v3lockpb::LockRequest { name: "m".into(), lease: 2 };
    is_refused(LockClient::new(server.connect().await).lock(other).await);
    let other = v3electionpb::CampaignRequest { name: "m".into(), lease: 2, value: "v".into() };
    is_refused(ElectionClient::new(server.connect().await).campaign(other).await);
    LockClient::new(server.connect().await).unlock(v3lockpb::UnlockRequest { key: held.key }).await.unwrap();
    second.await.expect("its turn has come");
    until("nobody waits", async || waiters.taken() == 0).await;
}

// Cause: a lease was granted for a call without one before it was known whether it may wait, and was nobody's when it came to
// nothing. Symptom: each call that was refused, failed or given up left a lease for a minute, and its refusal cost two entries
// of the log. Now: nothing is granted to who is refused, and what was granted to others goes with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_without_a_lease_leave_none_behind() {
    let server = Server::with_limits(Limits { lock_waiters_max: 1, ..Limits::default() });
    let channel = server.connect().await;
    let lock =
        async || LockClient::new(channel.clone()).lock(v3lockpb::LockRequest { name: "l".into(), lease: 0 }).await;
    let campaign = async || {
        let request = v3electionpb::CampaignRequest { name: "l".into(), lease: 0, value: "v".into() };
        ElectionClient::new(channel.clone()).campaign(request).await
    };
    let leases = async || {
        let all = LeaseClient::new(channel.clone()).lease_leases(pb::LeaseLeasesRequest {}).await.unwrap();
        all.into_inner().leases.len()
    };
    let revision = async || {
        let any = pb::RangeRequest { key: "any".into(), ..Default::default() };
        KvClient::new(channel.clone()).range(any).await.unwrap().into_inner().header.unwrap().revision
    };
    lock().await.unwrap();
    for campaigns in [false, true] {
        let wait = async || if campaigns { campaign().await.map(drop) } else { lock().await.map(drop) };
        let mut second = Box::pin(wait());
        tokio::select! {
            answer = &mut second => panic!("it is held: {answer:?}"),
            () = until("one waits", async || keys(&server).await.len() == 2) => {}
        }
        assert_eq!(leases().await, 2, "of who holds it, and of who waits");
        let before = revision().await;
        is_refused(lock().await);
        is_refused(campaign().await);
        assert_eq!((leases().await, revision().await), (2, before), "nothing was granted");
        drop(second);
        until("its lease goes with it", async || leases().await == 1).await;
        assert_eq!(keys(&server).await.len(), 1);
        until("nobody waits", async || server.services.budgets.lock_waiters.taken() == 0).await;
    }
    // Who fails for another reason.
    let leader = v3electionpb::LeaderKey { name: "l".into(), key: "l/none".into(), rev: 1, lease: 0 };
    let proclaim = v3electionpb::ProclaimRequest { leader: Some(leader), value: "v".into() };
    ElectionClient::new(channel.clone()).proclaim(proclaim).await.unwrap_err();
    until("its lease goes with it", async || leases().await == 1).await;
    // Who needs not wait gets one as ever.
    let other = v3lockpb::LockRequest { name: "m".into(), lease: 0 };
    LockClient::new(channel.clone()).lock(other).await.unwrap();
    assert_eq!(leases().await, 2);
}

// Cause: what calls hold while they wait was held against nothing. Symptom: 400 calls for one lock, or 150 that observe an
// election, held half a gigabyte within all limits, and many times as many are let in. Now: they share a bound, and one
// for which there is no room changes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_calls_that_wait() {
    const BYTES_MAX: usize = 4 << 20;
    const LONG: usize = 160 << 10;
    // Each call is more than its name.
    const MOST: usize = BYTES_MAX / LONG;
    let server = Server::with_limits(Limits { watch_ranges_bytes_max: BYTES_MAX, ..Limits::default() });
    let mut lease = LeaseClient::new(server.connect().await);
    for id in [1, 2, 3] {
        lease.lease_grant(pb::LeaseGrantRequest { ttl: 600, id }).await.unwrap();
    }
    let mut kv = KvClient::new(server.connect().await);
    let channel = server.connect().await;
    let name = Bytes::from(vec![b'n'; LONG]);
    let lock = async |name: &Bytes, lease| {
        LockClient::new(channel.clone()).lock(v3lockpb::LockRequest { name: name.clone(), lease }).await
    };
    let observe = async |name: &Bytes| {
        ElectionClient::new(channel.clone()).observe(v3electionpb::LeaderRequest { name: name.clone() }).await
    };
    let names = &server.services.budgets.names;
    let nobody = || until("nobody waits", async || names.used() == 0);

    // Observers.
    lock(&name, 1).await.unwrap();
    let (mut observers, mut refused) = (Vec::new(), 0);
    for _ in 0..2 * MOST {
        match observe(&name).await {
            Ok(observer) => observers.push(observer),
            Err(status) => {
                is_refused::<()>(Err(status));
                refused += 1;
            }
        }
    }
    assert!(!observers.is_empty() && refused >= MOST, "{} observe, {refused} were refused", observers.len());
    assert!(names.used() <= BYTES_MAX);
    let before = kv.range(pb::RangeRequest { key: "n".into(), ..Default::default() }).await.unwrap().into_inner();
    is_refused(lock(&name, 2).await);
    let campaign = v3electionpb::CampaignRequest { name: name.clone(), lease: 2, value: "v".into() };
    is_refused(ElectionClient::new(channel.clone()).campaign(campaign).await);
    lock(&name, 1).await.expect("who needs not wait needs no room");
    let after = kv.range(pb::RangeRequest { key: "n".into(), ..Default::default() }).await.unwrap().into_inner();
    assert_eq!(before.header.unwrap().revision, after.header.unwrap().revision, "nothing was changed");
    drop(observers);
    nobody().await;

    // Calls that wait for a lock.
    let waiters = &server.services.budgets.lock_waiters;
    let (mut waiting, mut refused) = (Vec::new(), 0);
    for _ in 0..2 * MOST {
        let mut call = Box::pin(lock(&name, 2));
        tokio::select! {
            answer = &mut call => {
                is_refused(answer);
                refused += 1;
            }
            () = until("it waits", async || waiters.taken() > waiting.len()) => waiting.push(call),
        }
    }
    assert!(!waiting.is_empty() && refused >= MOST, "{} wait, {refused} were refused", waiting.len());
    assert!(names.used() <= BYTES_MAX);
    drop(waiting);
    nobody().await;

    // A short name, behind whose keys is a long one: each call has a copy of it.
    let long = [&b"s/"[..], &name].concat();
    kv.put(pb::PutRequest { key: long.into(), ..Default::default() }).await.unwrap();
    let (mut observers, mut refused) = (Vec::new(), 0);
    for _ in 0..2 * MOST {
        let mut observer = observe(&"s".into()).await.unwrap().into_inner();
        match observer.message().await {
            Ok(leader) => observers.extend(leader.map(|_| observer)),
            Err(status) => {
                is_refused::<()>(Err(status));
                refused += 1;
            }
        }
    }
    assert!(!observers.is_empty() && refused >= MOST, "{} observe, {refused} were refused", observers.len());
    is_refused(lock(&"s".into(), 3).await);
    drop(observers);
    nobody().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_of_one_connection() {
    let server = Server::with_limits(Limits { logins_per_connection_max: 2, ..Limits::default() });
    let channel = server.connect().await;
    let mut auth = pb::auth_client::AuthClient::new(channel.clone());
    let user = |name: &str| pb::AuthUserAddRequest { name: name.into(), password: "pw".into(), ..Default::default() };
    auth.user_add(user("root")).await.unwrap();
    auth.role_add(pb::AuthRoleAddRequest { name: "root".into() }).await.unwrap();
    auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() }).await.unwrap();
    auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
    let login = |channel: &tonic::transport::Channel| {
        let mut auth = pb::auth_client::AuthClient::new(channel.clone());
        async move { auth.authenticate(pb::AuthenticateRequest { name: "root".into(), password: "pw".into() }).await }
    };
    let (many, other) = (server.connect().await, server.connect().await);
    let all = futures::future::join_all((0..64).map(|_| login(&many)));
    // Whoever comes by another connection isn't in the way of those.
    let (answers, own) = tokio::join!(all, login(&other));
    own.expect("its own share");
    let (taken, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert!(taken.len() >= 2, "{} were let in", taken.len());
    assert!(!refused.is_empty(), "64 at once are more than two");
    refused.into_iter().for_each(is_refused);
    login(&many).await.expect("later");
}
