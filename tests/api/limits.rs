//! What a call may take (time by `grpc-timeout`, bytes by the limits) and what its head and its frames must be. The
//! codes and texts are those that etcd 3.7.1 gave to the same bytes.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use prost::Message;
use rusd::types::Limits;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;

use crate::raw::{call, framed};
use crate::server::Server;

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";

fn put(key: &'static str, value: usize) -> Bytes {
    let put = pb::PutRequest { key: key.into(), value: vec![7; value].into(), ..Default::default() };
    framed(&put.encode_to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_ends_at_its_clients_deadline_and_its_write_goes_on() {
    let server = Server::with_limits(Limits::default());
    server.member.front.mute.store(true, Ordering::Relaxed);
    let answer = call(&server, PUT, &[("grpc-timeout", "200m")], vec![put("k", 1)], false).await;
    assert_eq!((answer.grpc_status.as_str(), answer.message.as_str()), ("4", "context deadline exceeded"));
    let mut kv = KvClient::new(server.connect().await);
    let found = kv.range(pb::RangeRequest { key: "k".into(), ..Default::default() }).await.unwrap();
    assert_eq!(found.get_ref().count, 1, "what was proposed is not undone");
    // A message that never ends is given up, too.
    let answer = call(&server, PUT, &[("grpc-timeout", "100m")], vec![put("k", 9).slice(..8)], true).await;
    assert_eq!(answer.grpc_status, "4");
    let get = framed(&pb::RangeRequest { key: "k".into(), ..Default::default() }.encode_to_vec());
    let answer = call(&server, RANGE, &[("grpc-timeout", "5S")], vec![get.clone()], false).await;
    assert_eq!(answer.grpc_status, "0", "whoever is in time is answered");
    let answer = call(&server, RANGE, &[("grpc-timeout", "5x")], vec![get], false).await;
    assert_ne!(answer.grpc_status, "0", "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_being_received_are_bounded() {
    let server = Server::with_limits(Limits { requests_pending_bytes_max: 60_000, ..Limits::default() });
    // Two of a megabyte that never end: what has come of the second would be too much.
    let parts = |body: &Bytes| vec![body.slice(..20_000), body.slice(20_000..40_000)];
    let body = put("k", 1_000_000);
    let mut first = Box::pin(call(&server, PUT, &[], parts(&body), true));
    let held = async {
        while server.services.budgets.requests.used() < 40_000 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        answer = &mut first => panic!("it has no end: {answer:?}"),
        () = held => {}
    }
    let refused = call(&server, PUT, &[], parts(&body), true).await;
    assert_eq!((refused.grpc_status.as_str(), refused.message.as_str()), ("2", "etcdserver: too many requests"));
    let small = call(&server, PUT, &[], vec![put("k", 100)], false).await;
    assert_eq!(small.grpc_status, "0", "what comes in one piece needs nothing of it");
    drop(first);
    while server.services.budgets.requests.used() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(call(&server, PUT, &[], vec![body], false).await.grpc_status, "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streams_message_that_never_ends_has_its_time() {
    let limits = Limits { request_arrival_max: std::time::Duration::from_millis(500), ..Limits::default() };
    let server = Server::with_limits(limits);
    let body = put("k", 1_000_000);
    for path in ["/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive"] {
        let parts = vec![body.slice(..20_000), body.slice(20_000..40_000)];
        let mut half = Box::pin(call(&server, path, &[], parts, true));
        let held = async {
            while server.services.budgets.requests.used() < 40_000 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        let held = tokio::time::timeout(std::time::Duration::from_secs(60), held);
        let answer = tokio::select! {
            biased;
            held = held => {
                held.expect("what has come of it is counted");
                tokio::time::timeout(std::time::Duration::from_secs(60), half).await.expect("its time is over")
            }
            answer = &mut half => answer,
        };
        assert_eq!(answer.grpc_status, "4", "{path}: {answer:?}");
        assert_eq!(server.services.budgets.requests.used(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_door_refuses_what_is_too_large_alike() {
    let server = Server::with_limits(Limits::default());
    for path in [
        RANGE,
        PUT,
        "/etcdserverpb.KV/Txn",
        "/etcdserverpb.KV/RangeStream",
        "/etcdserverpb.Watch/Watch",
        "/etcdserverpb.Lease/LeaseKeepAlive",
        "/etcdserverpb.Lease/LeaseGrant",
        "/etcdserverpb.Maintenance/Snapshot",
        "/grpc.health.v1.Health/Check",
    ] {
        let answer = call(&server, path, &[], vec![put("k", 2_200_000)], false).await;
        let text = "grpc: received message larger than max (2200008 vs. 2097152)";
        assert_eq!((answer.grpc_status.as_str(), answer.message.as_str()), ("8", text), "{path}");
        // By its head alone: nobody waits for the rest.
        let head = Bytes::from_static(&[0, 0, 0x20, 0, 1]);
        let answer = call(&server, path, &[], vec![head], true).await;
        assert_eq!(answer.grpc_status, "8", "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_and_frames_are_refused_as_etcd_refuses_them() {
    let server = Server::with_limits(Limits::default());
    let get = || framed(&pb::RangeRequest { key: "k".into(), ..Default::default() }.encode_to_vec());
    let junk = || framed(b"\xff\xff\xff");
    let one = |header: (&'static str, &'static str)| vec![header];
    let watch = "/etcdserverpb.Watch/Watch";
    let renew = "/etcdserverpb.Lease/LeaseKeepAlive";
    let short = || Bytes::from_static(b"\0\0\0\0\x05ab");
    let not_wire = "proto: cannot parse invalid wire-format data";
    let unary_junk = format!("grpc: error unmarshalling request: {not_wire}");
    let stream_junk = format!("grpc: failed to unmarshal the received message: {not_wire}");
    let no_snappy = "grpc: Decompressor is not installed for grpc-encoding \"snappy\"";
    let not_post = "Received a HEADERS frame with :method \"GET\" which should be POST";
    let cases = [
        (RANGE, vec![], get(), 200, "0", ""),
        (RANGE, one(("content-type", "application/grpc+proto")), get(), 200, "0", ""),
        (RANGE, one(("content-type", "text/x")), get(), 415, "3", "invalid gRPC request content-type \"text/x\""),
        (RANGE, one(("content-type", "application/grpcx")), get(), 415, "3", "*"),
        (RANGE, one((":method", "GET")), get(), 405, "13", not_post),
        (RANGE, one(("grpc-timeout", "0n")), get(), 200, "4", "context deadline exceeded"),
        (RANGE, one(("grpc-timeout", "5s")), get(), 400, "13", "*"),
        (RANGE, one(("grpc-encoding", "snappy")), get(), 200, "12", no_snappy),
        (watch, one(("grpc-encoding", "snappy")), get(), 200, "12", no_snappy),
        (RANGE, vec![], Bytes::new(), 200, "2", "EOF"),
        (RANGE, vec![], short(), 200, "2", "unexpected EOF"),
        (watch, vec![], short(), 200, "13", "unexpected EOF"),
        (renew, vec![], short(), 200, "13", "unexpected EOF"),
        (RANGE, vec![], [get(), get()].concat().into(), 200, "0", ""),
        (RANGE, vec![], junk(), 200, "13", unary_junk.as_str()),
        (watch, vec![], junk(), 200, "13", stream_junk.as_str()),
        (renew, vec![], junk(), 200, "13", stream_junk.as_str()),
        ("/etcdserverpb.KV/RangeStream", vec![], junk(), 200, "13", stream_junk.as_str()),
        ("/etcdserverpb.KV/Nope", vec![], get(), 200, "12", "unknown method Nope for service etcdserverpb.KV"),
    ];
    for (path, headers, body, http_status, code, message) in cases {
        let answer = call(&server, path, &headers, vec![body], false).await;
        let what = format!("{path} {headers:?}: {answer:?}");
        assert_eq!((answer.http_status, answer.grpc_status.as_str()), (http_status, code), "{what}");
        assert!(message == "*" || answer.message == message, "{what}");
    }
}
