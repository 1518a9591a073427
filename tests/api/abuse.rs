//! What no client should send: nothing of it may end the server, hang it or make it grow.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use prost::Message;
use rusd::types::Limits;
use rusd_proto::authpb;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::auth_client::AuthClient;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use rusd_proto::etcdserverpb::request_op::Request as Op;
use rusd_proto::v3electionpb::election_client::ElectionClient;
use rusd_proto::v3lockpb::lock_client::LockClient;
use rusd_proto::{v3electionpb, v3lockpb};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Code, Status};

use crate::server::Server;
use crate::wire::{CallOptions, Wire};

type Kv = KvClient<tonic::transport::Channel>;

/// How long anything that has to come may take.
const COMES_MAX: Duration = Duration::from_secs(60);

async fn raw(server: &Server, path: &str, message: impl Into<Bytes>) -> Result<Bytes, Status> {
    Wire::new(server.connect().await).unary(path, message.into(), &CallOptions::default()).await
}

fn server() -> Server {
    Server::with_limits(Limits::default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_message_are_refused_and_the_connection_lives() {
    let server = server();
    let wire = Wire::new(server.connect().await);
    let options = CallOptions::default();
    for junk in [&b"\xff\xff\xff"[..], b"\x0a\x05a", b"\x0b", b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"] {
        for path in ["/etcdserverpb.KV/Range", "/etcdserverpb.KV/Txn", "/etcdserverpb.Lease/LeaseGrant"] {
            let status = wire.unary(path, Bytes::from_static(junk), &options).await.unwrap_err();
            assert_eq!(status.code(), Code::Internal, "{path} {junk:?}");
            assert!(status.message().starts_with("grpc: error unmarshalling request: "), "{}", status.message());
        }
    }
    // Text that is not UTF-8, in a field that is a string.
    let status = wire.unary("/grpc.health.v1.Health/Check", Bytes::from_static(b"\x0a\x01\xff"), &options).await;
    assert_eq!(status.unwrap_err().code(), Code::Internal);
    assert!(wire.unary("/grpc.health.v1.Health/Check", Bytes::new(), &options).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_txn_nested_without_end_is_refused() {
    let server = server();
    for (depth, served) in [(30, true), (60, true), (129, true), (130, false), (200, false), (300, false)] {
        let mut txn = pb::TxnRequest::default();
        for _ in 1..depth {
            let inner = pb::RequestOp { request: Some(Op::RequestTxn(txn)) };
            txn = pb::TxnRequest { success: vec![inner], ..pb::TxnRequest::default() };
        }
        // As bytes, since a client's decoder would not take the answer.
        match raw(&server, "/etcdserverpb.KV/Txn", txn.encode_to_vec()).await {
            Ok(_) => assert!(served, "{depth} deep"),
            Err(status) => {
                assert!(!served, "{depth} deep: {status}");
                assert_eq!(status.message(), "etcdserver: too many operations in txn request");
                assert_eq!(status.code(), Code::InvalidArgument);
            }
        }
    }
    // Far deeper than a decoder's stack would bear.
    let mut bytes = Bytes::new();
    for _ in 0..3_000 {
        let op = [&[0x22], delimited(bytes.len()).as_slice(), &bytes].concat();
        bytes = [&[0x12], delimited(op.len()).as_slice(), &op].concat().into();
    }
    let status = raw(&server, "/etcdserverpb.KV/Txn", bytes).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

fn delimited(len: usize) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encode_length_delimiter(len, &mut out).unwrap();
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_numbers_are_only_numbers() {
    let server = server();
    let mut kv = KvClient::new(server.connect().await);
    kv.put(pb::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() }).await.unwrap();
    for limit in [i64::MIN, -1, 0, 1, i64::MAX] {
        let all = pb::RangeRequest { key: vec![0].into(), range_end: vec![0].into(), limit, ..Default::default() };
        assert_eq!(kv.range(all.clone()).await.unwrap().get_ref().kvs.len(), 1, "limit {limit}");
        let mut chunks = kv.range_stream(all).await.unwrap().into_inner();
        let only = chunks.message().await.unwrap().unwrap().range_response.unwrap();
        assert_eq!((only.kvs.len(), only.count, only.more), (1, 1, false), "limit {limit}");
        assert!(chunks.message().await.unwrap().is_none());
    }
    for revision in [i64::MIN, -1, i64::MAX] {
        let range = pb::RangeRequest { key: "k".into(), revision, ..Default::default() };
        let expected = if revision > 0 { Code::OutOfRange } else { Code::Ok };
        let got = kv.range(range.clone()).await.map_or_else(|status| status.code(), |_| Code::Ok);
        assert_eq!(got, expected, "revision {revision}");
        let compact = pb::CompactionRequest { revision, physical: true };
        if revision < 0 {
            continue;
        }
        assert_eq!(kv.compact(compact).await.unwrap_err().code(), Code::OutOfRange);
    }
    let bounds = pb::RangeRequest {
        key: "k".into(),
        min_mod_revision: i64::MIN,
        max_mod_revision: i64::MAX,
        min_create_revision: i64::MAX,
        max_create_revision: i64::MIN,
        ..Default::default()
    };
    kv.range(bounds).await.unwrap();
    let mut lease = LeaseClient::new(server.connect().await);
    for ttl in [i64::MIN, i64::MAX] {
        let granted = lease.lease_grant(pb::LeaseGrantRequest { ttl, id: i64::MIN }).await;
        assert_eq!(granted.is_ok(), ttl < 0, "ttl {ttl}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_holds_little_and_no_one_up() {
    let _memory = crate::MEMORY.lock().await;
    let server = server();
    let mut kv = KvClient::new(server.connect().await);
    let value = Bytes::from(vec![7; 512 * 1024]);
    for number in 0..64 {
        let put = pb::PutRequest { key: format!("k{number}").into(), value: value.clone(), ..Default::default() };
        kv.put(put).await.unwrap();
    }
    let all = pb::RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
    // 32 MiB each: none of them is ever read.
    let mut idle = Vec::new();
    for _ in 0..8 {
        let mut stalled = KvClient::new(server.connect().await).max_decoding_message_size(usize::MAX);
        idle.push(stalled.range_stream(all.clone()).await.unwrap().into_inner());
    }
    let others = async {
        for _ in 0..200 {
            kv.range(pb::RangeRequest { key: "k1".into(), keys_only: true, ..Default::default() }).await.unwrap();
        }
    };
    tokio::time::timeout(COMES_MAX, others).await.expect("others are served");
    // The stalled ones go on when they read, from their own revision.
    kv.delete_range(pb::DeleteRangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() })
        .await
        .unwrap();
    let mut found = 0;
    let mut stream = idle.pop().unwrap();
    while let Some(chunk) = stream.message().await.unwrap() {
        found += chunk.range_response.unwrap().kvs.len();
    }
    assert_eq!(found, 64);
}

/// Bytes of this process in memory; the server is part of it.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap() * 4096
}

/// Makes what other services' answers are large of, and the calls for them.
async fn large_elsewhere(server: &Server) -> Vec<(&'static str, Bytes)> {
    const NAME_BYTES: usize = 160 * 1024;
    let name = |letter: &str| letter.repeat(NAME_BYTES);
    let mut lease = LeaseClient::new(server.connect().await);
    lease.lease_grant(pb::LeaseGrantRequest { id: 7, ttl: 600 }).await.unwrap();
    let mut kv = KvClient::new(server.connect().await);
    for letter in ["a", "b", "c", "d"] {
        let put = pb::PutRequest { key: name(letter).into(), lease: 7, ..Default::default() };
        kv.put(put).await.unwrap();
    }
    let mut auth = AuthClient::new(server.connect().await);
    for letter in ["a", "b"] {
        auth.role_add(pb::AuthRoleAddRequest { name: name(letter) }).await.unwrap();
        let options = Some(authpb::UserAddOptions { no_password: true });
        let user = pb::AuthUserAddRequest { name: name(letter), options, ..Default::default() };
        auth.user_add(user).await.unwrap();
        let perm = authpb::Permission { key: name(letter).into(), ..Default::default() };
        let grant = pb::AuthRoleGrantPermissionRequest { name: name("a"), perm: Some(perm) };
        auth.role_grant_permission(grant).await.unwrap();
        let role = pb::AuthUserGrantRoleRequest { user: name("a"), role: name(letter) };
        auth.user_grant_role(role).await.unwrap();
    }
    let lock = v3lockpb::LockRequest { name: name("l").into(), lease: 7 };
    let campaign = v3electionpb::CampaignRequest { name: name("e").into(), lease: 7, value: Bytes::new() };
    let observe = v3electionpb::LeaderRequest { name: name("e").into() };
    LockClient::new(server.connect().await).lock(lock.clone()).await.unwrap();
    ElectionClient::new(server.connect().await).campaign(campaign.clone()).await.unwrap();
    vec![
        (
            "/etcdserverpb.Lease/LeaseTimeToLive",
            pb::LeaseTimeToLiveRequest { id: 7, keys: true }.encode_to_vec().into(),
        ),
        ("/etcdserverpb.Auth/UserGet", pb::AuthUserGetRequest { name: name("a") }.encode_to_vec().into()),
        ("/etcdserverpb.Auth/UserList", Bytes::new()),
        ("/etcdserverpb.Auth/RoleGet", pb::AuthRoleGetRequest { role: name("a") }.encode_to_vec().into()),
        ("/etcdserverpb.Auth/RoleList", Bytes::new()),
        ("/v3lockpb.Lock/Lock", lock.encode_to_vec().into()),
        ("/v3electionpb.Election/Campaign", campaign.encode_to_vec().into()),
        ("/v3electionpb.Election/Leader", observe.encode_to_vec().into()),
    ]
}

/// Small writes whose answers have pairs in them.
async fn writes_that_tell(kv: &mut Kv, all: &pb::RangeRequest, value: &Bytes) -> Vec<(&'static str, Bytes)> {
    let put = |key: &'static str| pb::PutRequest { key: key.into(), value: value.clone(), ..Default::default() };
    for key in ["put", "deleted"] {
        kv.put(put(key)).await.unwrap();
    }
    let again = pb::PutRequest { key: "put".into(), ignore_value: true, prev_kv: true, ..Default::default() };
    let delete = pb::DeleteRangeRequest { key: "deleted".into(), prev_kv: true, ..Default::default() };
    let small = pb::PutRequest { key: "small".into(), ..Default::default() };
    let ops = [Op::RequestPut(small), Op::RequestRange(all.clone())];
    let ops = ops.map(|op| pb::RequestOp { request: Some(op) }).into();
    let txn = pb::TxnRequest { success: ops, ..Default::default() };
    vec![
        ("/etcdserverpb.KV/Put", again.encode_to_vec().into()),
        ("/etcdserverpb.KV/DeleteRange", delete.encode_to_vec().into()),
        // Apart from one that only reads.
        ("/etcdserverpb.KV/Txn#put", txn.encode_to_vec().into()),
    ]
}

// Cause: the permit of a large read was given back before its answer was sent, and transactions had none. Symptom: a
// thousand reads of everything on one connection that nobody reads took all memory. Then: answers of leases, users,
// roles, locks and elections were held against no budget, so 200 calls for a lease with 64 keys of 1 MB held 12.8 GB. Then:
// a write's answer was held and never refused, so each of any number of small ones could read everything.
// Now: what clients haven't read is bounded together, and what doesn't fit is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_nobody_reads_are_bounded_together() {
    const UNREAD_BYTES_MAX: usize = 64 << 20;
    let _memory = crate::MEMORY.lock().await;
    let server = Server::with_limits(Limits { answers_pending_bytes_max: UNREAD_BYTES_MAX, ..Limits::default() });
    let mut kv = KvClient::new(server.connect().await);
    let value = Bytes::from(vec![7; 512 * 1024]);
    for number in 0..24 {
        let put = pb::PutRequest { key: format!("k{number}").into(), value: value.clone(), ..Default::default() };
        kv.put(put).await.unwrap();
    }
    let all = pb::RangeRequest { key: vec![0].into(), range_end: vec![0].into(), limit: 900, ..Default::default() };
    let ops = vec![pb::RequestOp { request: Some(Op::RequestRange(all.clone())) }; 2];
    let txn = pb::TxnRequest { success: ops, ..Default::default() };
    let mut calls = vec![
        ("/etcdserverpb.KV/Range", Bytes::from(all.encode_to_vec())),
        ("/etcdserverpb.KV/RangeStream", Bytes::from(all.encode_to_vec())),
        ("/etcdserverpb.KV/Txn", Bytes::from(txn.encode_to_vec())),
    ];
    calls.extend(writes_that_tell(&mut kv, &all, &value).await);
    calls.extend(large_elsewhere(&server).await);
    let before = resident_bytes();
    let stalled = Wire::new(server.connect().await);
    let (mut unread, mut refused) = (Vec::new(), std::collections::BTreeMap::new());
    for (path, message) in calls.iter().cycle().take(100 * calls.len()) {
        let once = futures::stream::iter([message.clone()]);
        match stalled.streaming(path.split('#').next().unwrap(), once, &CallOptions::default()).await {
            Ok(answer) => unread.push(answer),
            Err(status) => {
                assert_eq!(status.message(), "etcdserver: too many requests", "{path}");
                *refused.entry(*path).or_insert(0) += 1;
            }
        }
    }
    for (path, _) in &calls {
        let refused = refused.get(path).copied().unwrap_or(0);
        assert!(refused >= 50, "{path}: {refused} of 100 were refused");
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 512 << 20, "{grown} bytes more");
    // What tells nothing goes on.
    kv.put(pb::PutRequest { key: "k1".into(), value, ..Default::default() }).await.unwrap();
    // Small ones go on, large ones as soon as there is room.
    kv.range(pb::RangeRequest { key: "k1".into(), keys_only: true, ..Default::default() }).await.unwrap();
    drop(unread);
    let mut kv = kv.max_decoding_message_size(usize::MAX);
    while let Err(status) = kv.range(all.clone()).await {
        assert_eq!(status.message(), "etcdserver: too many requests");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

// Cause: a permission's key was kept as the part of its message that it came as. Symptom: a key of one byte kept a megabyte,
// which no bound on users and roles saw.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_keeps_nothing_else_of_its_message() {
    const FIELD_99_BYTES: [u8; 2] = [0x9a, 0x06];
    let _memory = crate::MEMORY.lock().await;
    let server = server();
    let role = pb::AuthRoleAddRequest { name: "r".into() };
    AuthClient::new(server.connect().await).role_add(role).await.unwrap();
    let unknown = [&FIELD_99_BYTES[..], &delimited(1 << 20), &vec![7; 1 << 20]].concat();
    let wire = Wire::new(server.connect().await);
    let before = resident_bytes();
    for number in 0..400 {
        let perm = Some(authpb::Permission { key: format!("k{number}").into(), ..Default::default() });
        let grant = pb::AuthRoleGrantPermissionRequest { name: "r".into(), perm }.encode_to_vec();
        let message = Bytes::from([grant, unknown.clone()].concat());
        wire.unary("/etcdserverpb.Auth/RoleGrantPermission", message, &CallOptions::default()).await.unwrap();
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 200 << 20, "{grown} bytes more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_end_in_the_middle_leave_nothing_behind() {
    let server = server();
    let mut lease = LeaseClient::new(server.connect().await);
    for _ in 0..200 {
        let requests = futures::stream::iter([pb::LeaseKeepAliveRequest { id: 1 }]).chain(futures::stream::pending());
        let mut answers = lease.lease_keep_alive(requests).await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap().ttl, 0);
        drop(answers);
    }
    // A message that is cut by the end of the request.
    let half = Bytes::from(pb::LeaseKeepAliveRequest { id: 1 }.encode_to_vec());
    assert!(raw(&server, "/etcdserverpb.Lease/LeaseTimeToLive", half).await.is_ok());
}

/// Bytes on a socket, without any client library in the way.
async fn speak(server: &Server, bytes: &[u8]) -> Vec<u8> {
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_millis(500), socket.read_to_end(&mut answer)).await;
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn junk_on_the_socket_ends_that_connection_only() {
    let server = server();
    for junk in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0\0\0\0\0\0\0\0\0\0",
        b"PRI * HTTP/2.0\r\n\r\n",
    ] {
        speak(&server, junk).await;
    }
    let head = [b"GET /health HTTP/1.1\r\nhost: x\r\nx: ".as_slice(), &vec![b'a'; 1 << 20], b"\r\n\r\n"].concat();
    let answer = speak(&server, &head).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "a head of a megabyte is not taken");
    let mut kv = KvClient::new(server.connect().await);
    kv.range(pb::RangeRequest { key: "k".into(), ..Default::default() }).await.unwrap();
}
