//! Calls beside the conversations: metadata, leadership, counters, refusals of what is not served.

use std::sync::atomic::Ordering;

use rusd::types::Limits;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use rusd_proto::etcdserverpb::watch_client::WatchClient;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Request};

use crate::server::Server;

fn server() -> Server {
    Server::with_limits(Limits::default())
}

fn get(key: &'static str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), ..Default::default() }
}

fn with_metadata<T>(message: T, key: &'static str, value: &'static str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(key, MetadataValue::from_static(value));
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_needs_a_leader_is_refused_without_one() {
    let server = server();
    server.member.front.leaderless.store(true, Ordering::Relaxed);
    let channel = server.connect().await;
    let mut kv = KvClient::new(channel.clone());
    let status = kv.range(with_metadata(get("k"), "hasleader", "true")).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: no leader"));
    assert!(kv.range(with_metadata(get("k"), "hasleader", "false")).await.is_ok());
    let silent = futures::stream::pending::<pb::WatchRequest>();
    let status = WatchClient::new(channel.clone()).watch(with_metadata(silent, "hasleader", "true")).await;
    assert_eq!(status.unwrap_err().message(), "etcdserver: no leader");
    let status = MaintenanceClient::new(channel).status(pb::StatusRequest {}).await.unwrap();
    assert_eq!(
        (status.get_ref().leader, status.get_ref().errors.as_slice()),
        (0, &["etcdserver: no leader".into()][..])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_linearizable_read_waits_for_the_barrier_and_a_serializable_one_does_not() {
    let server = server();
    server.member.front.barrier_fails.store(true, Ordering::Relaxed);
    let mut kv = KvClient::new(server.connect().await);
    let status = kv.range(get("k")).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: leader changed"));
    assert!(kv.range(pb::RangeRequest { serializable: true, ..get("k") }).await.is_ok());
    assert_eq!(kv.range_stream(get("k")).await.unwrap_err().code(), Code::Unavailable);
    let read = |serializable| pb::RequestOp {
        request: Some(pb::request_op::Request::RequestRange(pb::RangeRequest { serializable, ..get("k") })),
    };
    let mixed = pb::TxnRequest { success: vec![read(true)], failure: vec![read(false)], ..Default::default() };
    assert_eq!(kv.txn(mixed).await.unwrap_err().code(), Code::Unavailable);
    let serializable = pb::TxnRequest { success: vec![read(true)], failure: vec![read(true)], ..Default::default() };
    assert!(kv.txn(serializable).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_is_not_answered_by_who_may_have_been_replaced() {
    let server = server();
    let mut lease = LeaseClient::new(server.connect().await);
    lease.lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 5 }).await.unwrap();
    server.member.front.barrier_fails.store(true, Ordering::Relaxed);
    let requests = futures::stream::iter([pb::LeaseKeepAliveRequest { id: 5 }]);
    let mut answers = lease.lease_keep_alive(requests).await.unwrap().into_inner();
    let status = answers.message().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: leader changed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_version_that_is_no_text_is_refused() {
    let server = server();
    let mut headers = http::HeaderMap::new();
    headers.insert("client-api-version", http::HeaderValue::from_bytes(b"3.\xff").unwrap());
    let mut request = Request::new(get("k"));
    *request.metadata_mut() = MetadataMap::from_headers(headers);
    let status = KvClient::new(server.connect().await).range(request).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "etcdserver: invalid client api version"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quotas_end_raises_the_alarm_for_this_member() {
    let server = Server::with_limits(Limits { quota_bytes: Some(2_000), ..Limits::default() });
    let channel = server.connect().await;
    let mut kv = KvClient::new(channel.clone());
    let put = |len| pb::PutRequest { key: "k".into(), value: vec![1; len].into(), ..Default::default() };
    kv.put(put(100)).await.unwrap();
    let status = kv.put(put(1_900)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.message(), "etcdserver: mvcc: database space exceeded");
    let status = kv.put(put(1)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "small ones neither, now");
    let alarms = MaintenanceClient::new(channel).alarm(pb::AlarmRequest::default()).await.unwrap().into_inner().alarms;
    assert_eq!(alarms, [pb::AlarmMember { member_id: crate::member::MEMBER.get(), alarm: 1 }]);
    kv.delete_range(pb::DeleteRangeRequest { key: "k".into(), ..Default::default() }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_counted_with_their_code() {
    let server = server();
    let mut kv = KvClient::new(server.connect().await);
    kv.range(get("k")).await.unwrap();
    kv.range(with_metadata(get("k"), "client-api-version", "3.7")).await.unwrap();
    kv.range(get("")).await.unwrap_err();
    let mut stream = kv.range_stream(get("k")).await.unwrap().into_inner();
    while stream.message().await.unwrap().is_some() {}
    let text = (server.services.metrics_text)();
    for line in [
        r#"grpc_server_started_total{grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"} 3"#,
        r#"grpc_server_handled_total{grpc_code="OK",grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"} 2"#,
        r#"grpc_server_handled_total{grpc_code="InvalidArgument",grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1"#,
        r#"grpc_server_handled_total{grpc_code="OK",grpc_method="RangeStream",grpc_service="etcdserverpb.KV",grpc_type="server_stream"} 1"#,
        r#"grpc_server_msg_sent_total{grpc_method="RangeStream",grpc_service="etcdserverpb.KV",grpc_type="server_stream"} 1"#,
        r#"etcd_server_client_requests_total{client_api_version="3.7",type="unary"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quota_comes_before_a_txns_shape_and_a_txn_without_puts_needs_none() {
    let server = Server::with_limits(Limits { quota_bytes: Some(1), ..Limits::default() });
    let mut kv = KvClient::new(server.connect().await);
    let nothing = pb::RequestOp { request: None };
    let put = pb::PutRequest { key: "k".into(), ..Default::default() };
    let put = pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) };
    let odd = pb::TxnRequest { success: vec![nothing.clone()], failure: vec![put], ..Default::default() };
    let status = kv.txn(odd).await.unwrap_err();
    assert_eq!(status.message(), "etcdserver: mvcc: database space exceeded");
    let odd = pb::TxnRequest { success: vec![nothing], ..Default::default() };
    assert_eq!(kv.txn(odd).await.unwrap_err().message(), "etcdserver: key not found");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_is_never_smaller_than_what_is_in_use() {
    let server = server();
    let mut kv = KvClient::new(server.connect().await);
    for value in [10, 100_000] {
        kv.put(pb::PutRequest { key: "k".into(), value: vec![7; value].into(), ..Default::default() }).await.unwrap();
        let status = MaintenanceClient::new(server.connect().await).status(pb::StatusRequest {}).await.unwrap();
        let pb::StatusResponse { db_size, db_size_in_use, .. } = status.into_inner();
        assert!(db_size >= db_size_in_use && db_size_in_use >= value as i64, "{db_size} {db_size_in_use}");
    }
}
