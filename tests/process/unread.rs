//! A client that asks over HTTP/1.1 and reads no answer is cut off, and another one is served meanwhile.

use std::time::Duration;

use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

use crate::server::{Kind, Server, ports};

const COMES_MAX: Duration = Duration::from_secs(60);

// Cause: HTTP/1.1 answers waited for a socket that takes nothing for as long as the connection lived. Now it is cut off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_over_http1_of_which_no_answer_is_read() {
    let free = std::net::SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let flags = [format!("--listen-metrics-urls=http://{free}"), "--client-write-timeout=500ms".to_owned()];
    let server = Server::start(Kind::Rusd, &flags, "unread").await.expect("it is built");
    let socket = TcpSocket::new_v4().unwrap();
    // It takes little, so that it is soon full.
    socket.set_recv_buffer_size(4 << 10).unwrap();
    let mut socket = socket.connect(free).await.unwrap();
    let flood = tokio::spawn(async move {
        let some = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(50);
        while socket.write_all(&some).await.is_ok() {}
    });
    let mut kv = KvClient::new(server.connect().await);
    for _ in 0..20 {
        kv.put(pb::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() }).await.unwrap();
    }
    tokio::time::timeout(COMES_MAX, flood).await.expect("it is cut off").unwrap();
}
