//! The holes that were found in etcd's rights, each by its number. The matrix has them too, among all others.

use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::request_op::Request as Op;
use rusd_proto::etcdserverpb::watch_request::RequestUnion;
use tokio::time::{Duration, timeout};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::server::{Kind, Server};
use crate::users::{add_role, add_user, enable, grant_role, login, put, with};

/// A server with root and one user, who has one permission: kind, first key, end.
async fn open(permission: (i32, &str, &str)) -> (Server, Channel, String, String) {
    let server = Server::start(Kind::Rusd, &["--bcrypt-cost=4".to_owned()], "holes").await.expect("our own server");
    let channel = server.connect().await;
    for (key, lease) in [("k", 101), ("x", 102)] {
        let grant = pb::LeaseGrantRequest { id: lease, ttl: 600 };
        pb::lease_client::LeaseClient::new(channel.clone()).lease_grant(grant).await.expect("a lease");
        let put = pb::PutRequest { key: key.into(), value: "old".into(), lease, ..Default::default() };
        pb::kv_client::KvClient::new(channel.clone()).put(put).await.expect("a key");
    }
    add_user(&channel, None, "root", "pw").await.expect("root is added");
    grant_role(&channel, None, "root", "root").await.expect("root gets its role");
    add_user(&channel, None, "u", "pw").await.expect("a user is added");
    add_role(&channel, None, "r", Some(permission)).await.expect("a role is added");
    grant_role(&channel, None, "u", "r").await.expect("a role is granted");
    enable(&channel).await.expect("authentication is turned on");
    let root = login(&channel, "root", "pw").await.expect("root logs in");
    let user = login(&channel, "u", "pw").await.expect("the user logs in");
    (server, channel, root, user)
}

async fn txn(channel: &Channel, token: &str, op: Op) -> Result<pb::TxnResponse, Status> {
    let inner = pb::TxnRequest { success: vec![pb::RequestOp { request: Some(op) }], ..Default::default() };
    let nested = pb::RequestOp { request: Some(Op::RequestTxn(inner)) };
    let middle = pb::TxnRequest { success: vec![nested], ..Default::default() };
    let outer = pb::RequestOp { request: Some(Op::RequestTxn(middle)) };
    let txn = pb::TxnRequest { success: vec![outer], ..Default::default() };
    Ok(pb::kv_client::KvClient::new(channel.clone()).txn(with(Some(token), txn)).await?.into_inner())
}

fn denied<T: std::fmt::Debug>(answer: Result<T, Status>) {
    assert_eq!(answer.expect_err("it is let in").code(), Code::PermissionDenied);
}

/// Operations of nested transactions were not looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2026_33343_nested_transactions() {
    let (_server, channel, _, user) = open((2, "k", "")).await;
    let get = |key: &str| Op::RequestRange(pb::RangeRequest { key: key.to_owned().into(), ..Default::default() });
    let set = |key: &str| Op::RequestPut(pb::PutRequest { key: key.to_owned().into(), ..Default::default() });
    let delete =
        |key: &str| Op::RequestDeleteRange(pb::DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() });
    for op in [get("x"), set("x"), delete("x")] {
        denied(txn(&channel, &user, op).await);
    }
    for op in [get("k"), set("k"), delete("k")] {
        txn(&channel, &user, op).await.expect("its own key");
    }
}

/// Calls that nobody had a rule for: members, alarms, leases, compactions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2026_33413_calls_without_a_token() {
    let (_server, channel, root, user) = open((2, "k", "")).await;
    let list = |token| {
        let mut client = pb::cluster_client::ClusterClient::new(channel.clone());
        async move { client.member_list(with(token, pb::MemberListRequest { linearizable: true })).await.map(drop) }
    };
    let alarm = |token| {
        let mut client = pb::maintenance_client::MaintenanceClient::new(channel.clone());
        let alarm = pb::AlarmRequest { action: 1, member_id: 1, alarm: 1 };
        async move { client.alarm(with(token, alarm)).await.map(drop) }
    };
    let lease = |token| {
        let mut client = pb::lease_client::LeaseClient::new(channel.clone());
        async move { client.lease_grant(with(token, pb::LeaseGrantRequest { id: 0, ttl: 60 })).await.map(drop) }
    };
    let compact = |token| {
        let mut client = pb::kv_client::KvClient::new(channel.clone());
        async move { client.compact(with(token, pb::CompactionRequest { revision: 1, physical: false })).await.map(drop) }
    };
    let nobody = [list(None).await, alarm(None).await, lease(None).await, compact(None).await];
    for answer in nobody {
        assert_eq!(answer.expect_err("nobody is let in").message(), "etcdserver: user name is empty");
    }
    denied(alarm(Some(&user)).await);
    denied(compact(Some(&user)).await);
    for answer in [list(Some(&user)).await, lease(Some(&user)).await, list(Some(&root)).await] {
        answer.expect("a user may");
    }
}

/// A watch with an open end was let in by the right to its first key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ghsa_xg4h_6gfc_h4m8_watches_with_an_open_end() {
    let (_server, channel, root, user) = open((0, "k", "")).await;
    let create = |key: &str, end: &'static [u8]| {
        let create = pb::WatchCreateRequest { key: key.to_owned().into(), range_end: end.into(), ..Default::default() };
        let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let mut client = pb::watch_client::WatchClient::new(channel.clone());
        let user = user.clone();
        async move {
            let requests = futures::StreamExt::chain(futures::stream::iter([request]), futures::stream::pending());
            let mut stream = client.watch(with(Some(&user), requests)).await.expect("a stream").into_inner();
            let first = stream.message().await.expect("an answer").expect("an answer");
            (first, stream)
        }
    };
    for end in [&b"\0"[..], b"z", b"k\0\0"] {
        let (first, mut stream) = create("k", end).await;
        assert!(first.canceled && first.cancel_reason.contains("permission denied"), "{end:?}: {first:?}");
        put(&channel, Some(&root), "x", "new").await.expect("root writes");
        let more = timeout(Duration::from_millis(200), stream.message()).await;
        assert!(!matches!(&more, Ok(Ok(Some(more))) if !more.events.is_empty()), "{end:?}: {more:?}");
    }
    let (first, mut stream) = create("k", b"").await;
    assert!(first.created && !first.canceled, "{first:?}");
    put(&channel, Some(&root), "k", "new").await.expect("root writes");
    let event = stream.message().await.expect("an answer").expect("an answer");
    assert_eq!(event.events.len(), 1);
}

/// A put within a transaction gave the old value to who may not read, and took others' leases.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cve_2026_44283_old_values_and_leases_in_transactions() {
    let (_server, channel, _, user) = open((1, "k", "")).await;
    let set = |prev_kv, lease| {
        Op::RequestPut(pb::PutRequest { key: "k".into(), value: "v".into(), prev_kv, lease, ..Default::default() })
    };
    denied(txn(&channel, &user, set(true, 0)).await);
    denied(txn(&channel, &user, set(false, 102)).await);
    txn(&channel, &user, set(false, 101)).await.expect("all keys of that lease are its own");
}

/// Whether a transaction was too large was told before it was asked who called, so that each key's name could be had by
/// what the count of it made of one that was just small enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_size_of_a_transaction_tells_nothing_to_who_may_not_read() {
    let (_server, channel, root, user) = open((2, "k", "")).await;
    for key in 0..70 {
        put(&channel, Some(&root), &format!("x{key}"), "v").await.expect("root writes");
    }
    let read = |end: &'static [u8]| {
        Op::RequestRange(pb::RangeRequest { key: "x".into(), range_end: end.into(), ..Default::default() })
    };
    // Forty times forty times forty reads.
    let many = |op: Op| {
        let success = vec![pb::RequestOp { request: Some(op) }; 40];
        Op::RequestTxn(pb::TxnRequest { success, ..Default::default() })
    };
    let txn = async |token: Option<&str>, end: &'static [u8]| {
        let Op::RequestTxn(txn) = many(many(many(read(end)))) else { unreachable!() };
        let answer = pb::kv_client::KvClient::new(channel.clone()).txn(with(token, txn)).await;
        answer.map(drop).map_err(|status| status.message().to_owned())
    };
    for end in [&b"y"[..], b"x\0"] {
        assert_eq!(txn(None, end).await, Err("etcdserver: user name is empty".to_owned()), "{end:?}");
        assert_eq!(txn(Some(&user), end).await, Err("etcdserver: permission denied".to_owned()), "{end:?}");
    }
    let too_many = "etcdserver: too many operations in txn request".to_owned();
    assert_eq!(txn(Some(&root), b"y").await, Err(too_many), "it is one that is too large");
}
