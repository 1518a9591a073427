//! What each kind of listener serves, and to whom.

use std::sync::Arc;

use rusd::api::{self, Address, ConnOptions, Connections, Listener, PeerDoor, Serves, SocketOptions, WebPolicy};
use rusd::types::Limits;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tonic::transport::Endpoint;

use crate::server::Server;

/// Another listener over the same services. It ends with the sender.
fn listen(server: &Server, serves: Serves, web: WebPolicy) -> (u16, watch::Sender<bool>) {
    let address = Address::Tcp("127.0.0.1:0".into());
    let listener = Listener::bind(&address, SocketOptions::default(), &rusd::env::RealDisk).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (down, shutdown) = watch::channel(false);
    let options = ConnOptions { serves, web: Arc::new(web), ..ConnOptions::default() };
    tokio::spawn(api::serve(
        vec![(listener, options)],
        server.services.clone(),
        Connections::new("max-connections", 9),
        shutdown,
    ));
    (port, down)
}

/// Status, head in lower case, body; 0 if there is no answer. `headers` end with a line break each.
async fn http(port: u16, request: &str, headers: &str) -> (u16, String, String) {
    let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("{request} HTTP/1.1\r\n{headers}connection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // A server that closes the connection without an answer may reset it.
    let _ = socket.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return (0, String::new(), answer) };
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    (status, head.to_ascii_lowercase(), body.to_owned())
}

async fn status(port: u16, path: &str) -> u16 {
    http(port, &format!("GET {path}"), "host: localhost\r\n").await.0
}

async fn puts(port: u16) -> Result<(), String> {
    let channel = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap().connect().await;
    let mut kv = KvClient::new(channel.map_err(|error| error.to_string())?);
    let put = pb::PutRequest { key: "k".into(), ..pb::PutRequest::default() };
    kv.put(put).await.map(drop).map_err(|status| status.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_listener_serves_what_it_is_for() {
    let server = Server::with_limits(Limits::default());
    // Port by what it serves, and the answers to gRPC, /health, /version, /debug/vars, /members and the JSON gateway.
    for (serves, grpc, pages) in [
        (Serves::All, true, [200, 200, 200, 404, 501]),
        (Serves::Grpc, true, [0, 0, 0, 0, 0]),
        (Serves::Pages, false, [200, 200, 200, 404, 501]),
        (Serves::Metrics, false, [200, 404, 404, 404, 404]),
    ] {
        let (port, _down) = listen(&server, serves, WebPolicy::default());
        check(port, grpc, pages, &format!("{serves:?}")).await;
    }
    let (port, _down) = listen_for_peers(&server);
    check(port, false, [404, 200, 404, 200, 404], "peers").await;
}

async fn check(port: u16, grpc: bool, pages: [u16; 5], name: &str) {
    assert_eq!(puts(port).await.is_ok(), grpc, "{name}: {:?}", puts(port).await);
    for (path, expected) in ["/health", "/version", "/debug/vars", "/members", "/v3/kv/put"].into_iter().zip(pages) {
        assert_eq!(status(port, path).await, expected, "{name} {path}");
    }
}

/// A peer port without a peer service.
fn listen_for_peers(server: &Server) -> (u16, watch::Sender<bool>) {
    let address = Address::Tcp("127.0.0.1:0".into());
    let listener = Listener::bind(&address, SocketOptions::default(), &rusd::env::RealDisk).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (down, shutdown) = watch::channel(false);
    let proposer = server.services.proposer.clone();
    let cluster = server.services.info.cluster_id;
    let door = PeerDoor::new(tonic::service::Routes::default(), cluster, Arc::new(move || proposer.members()));
    tokio::spawn(api::serve_peers(vec![listener], door, Connections::new("max-connections", 9), shutdown));
    (port, down)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_peer_url_names_the_members() {
    let server = Server::with_limits(Limits::default());
    let (port, _down) = listen_for_peers(&server);
    let (status, head, body) = http(port, "GET /members", "host: localhost\r\n").await;
    assert_eq!(status, 200);
    assert!(head.contains("x-etcd-cluster-id: ") && head.contains("content-type: application/json"), "{head}");
    let members: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert!(members[0]["id"].is_u64() && members[0]["clientURLs"].is_array(), "{body}");
    let (status, head, _) = http(port, "POST /members", "host: localhost\r\ncontent-length: 0\r\n").await;
    assert!(status == 405 && head.contains("allow: get"), "{status} {head}");
}

// Cause: who connected to the peer port and said nothing kept its place. Symptom: other members stood outside.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_keep_no_member_out() {
    let server = Server::with_limits(Limits::default());
    let (port, _down) = listen_for_peers(&server);
    let mut silent = Vec::new();
    for says in [&b""[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", b"GET /mem"].repeat(7) {
        let mut socket = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        socket.write_all(says).await.unwrap();
        silent.push(socket);
    }
    let asked = tokio::time::timeout(std::time::Duration::from_secs(60), status(port, "/members")).await;
    assert_eq!(asked.expect("it gets a place"), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unlisted_hosts_and_origins_get_nothing() {
    let server = Server::with_limits(Limits::default());
    let policy = WebPolicy::new(vec!["http://a.com:80".into()], vec!["good.com".into()]);
    let (port, _down) = listen(&server, Serves::All, policy.clone());
    let (status, head, body) = http(port, "GET /health", "host: evil.com:2379\r\n").await;
    assert!(status == 421 && body.contains("evil.com") && body.contains("--host-whitelist"), "{status} {body}");
    assert!(!head.contains("access-control"), "{head}");
    let body = "content-length: 0\r\n";
    assert_eq!(http(port, "POST /v3/auth/status", &format!("host: evil.com\r\n{body}")).await.0, 421);
    assert_eq!(http(port, "POST /v3/auth/status", &format!("host: good.com\r\n{body}")).await.0, 200);
    let (status, head, _) = http(port, "GET /health", "host: good.com:2379\r\norigin: http://a.com:80\r\n").await;
    assert!(status == 200 && head.contains("access-control-allow-origin: http://a.com:80\r\n"), "{head}");
    let (status, head, _) = http(port, "OPTIONS /any", "host: good.com\r\norigin: http://c.com:80\r\n").await;
    assert!(status == 200 && !head.contains("access-control"), "{head}");
    puts(port).await.expect("gRPC has no pages that a browser could be led to");
    let (port, _down) = listen(&server, Serves::Metrics, policy);
    assert_eq!(http(port, "GET /metrics", "host: evil.com\r\n").await.0, 200, "probes come under any name");
}
