//! The HTTP endpoints, over HTTP/1.1 on the same port as gRPC.

use std::sync::atomic::Ordering;

use rusd::types::Limits;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::server::Server;

/// Status, head in lower case, body.
async fn http(server: &Server, method: &str, path: &str) -> (u16, String, String) {
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

async fn get(server: &Server, path: &str) -> (u16, String) {
    let (status, _, body) = http(server, "GET", path).await;
    (status, body)
}

fn answer(status: u16, body: &str) -> (u16, String) {
    (status, body.to_owned())
}

async fn alarm(server: &Server, action: i32, alarm: i32) {
    let request = pb::AlarmRequest { action, member_id: 5, alarm };
    MaintenanceClient::new(server.connect().await).alarm(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_member_answers_as_etcd_does() {
    let server = Server::with_limits(Limits::default());
    assert_eq!(get(&server, "/health").await, answer(200, r#"{"health":"true","reason":""}"#));
    assert_eq!(get(&server, "/livez").await, answer(200, "ok\n"));
    assert_eq!(get(&server, "/readyz").await, answer(200, "ok\n"));
    assert_eq!(get(&server, "/readyz/linearizable_read").await, answer(200, "ok\n"));
    assert_eq!(get(&server, "/livez/linearizable_read").await.0, 404);
    assert_eq!(get(&server, "/livez?verbose").await, answer(200, "[+]serializable_read ok\nok\n"));
    let version = r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#;
    assert_eq!(get(&server, "/version").await, answer(200, version));
    assert_eq!(get(&server, "/nothing").await, answer(404, "404 page not found\n"));
    assert_eq!(get(&server, "/health/x").await.0, 404);
    let (status, vars) = get(&server, "/debug/vars").await;
    let vars: serde_json::Value = serde_json::from_str(&vars).unwrap_or_else(|error| panic!("{error}: {vars}"));
    assert!(status == 200 && vars["raft.status"].is_object() && vars["file_descriptor_limit"].is_u64(), "{vars}");
    let (status, metrics) = get(&server, "/metrics").await;
    assert!(status == 200 && metrics.contains("# TYPE grpc_server_started_total counter"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_and_methods_are_etcds() {
    let server = Server::with_limits(Limits::default());
    let (status, head, body) = http(&server, "POST", "/health").await;
    assert_eq!((status, body.as_str()), (405, "Method Not Allowed\n"));
    assert!(head.contains("\r\nallow: get"), "{head}");
    let (status, head, body) = http(&server, "OPTIONS", "/any/thing").await;
    assert_eq!((status, body.as_str()), (200, ""));
    for line in [
        "access-control-allow-methods: post, get, options, put, delete",
        "access-control-allow-origin: *",
        "access-control-allow-headers: accept, content-type, authorization",
    ] {
        assert!(head.contains(line), "{line} is not in {head}");
    }
    let (_, head, _) = http(&server, "GET", "/version").await;
    assert!(head.contains("content-type: application/json"), "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alarms_and_a_missing_leader_show() {
    let server = Server::with_limits(Limits::default());
    alarm(&server, 1, 1).await;
    let (status, head, body) = http(&server, "GET", "/health").await;
    assert_eq!((status, body.as_str()), (503, "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n"));
    assert!(head.contains("x-content-type-options: nosniff"), "{head}");
    assert_eq!(get(&server, "/health?exclude=NOSPACE").await.0, 200);
    assert_eq!(get(&server, "/readyz").await.0, 200, "a full disk doesn't make a member unready");
    alarm(&server, 2, 1).await;
    alarm(&server, 1, 2).await;
    assert_eq!(get(&server, "/health?exclude=NOSPACE").await.0, 503);
    let (status, body) = get(&server, "/readyz").await;
    assert!(status == 503 && body.contains("[-]data_corruption failed: alarm activated: CORRUPT\n"), "{body}");
    assert_eq!(get(&server, "/readyz?exclude=data_corruption").await.0, 200);
    assert_eq!(get(&server, "/livez").await.0, 200);
    alarm(&server, 2, 2).await;

    server.member.front.leaderless.store(true, Ordering::Relaxed);
    assert_eq!(get(&server, "/health").await, answer(503, "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n"));
    assert_eq!(get(&server, "/health?serializable=true").await.0, 200);
    server.member.front.leaderless.store(false, Ordering::Relaxed);
    server.member.front.barrier_fails.store(true, Ordering::Relaxed);
    let (status, body) = get(&server, "/readyz").await;
    assert!(status == 503 && body.contains("[-]linearizable_read failed: etcdserver: leader changed\n"), "{body}");
    let reason = "{\"health\":\"false\",\"reason\":\"RANGE ERROR:etcdserver: leader changed\"}\n";
    assert_eq!(get(&server, "/health").await, answer(503, reason));
}
