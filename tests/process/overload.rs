//! Far more than the server takes, on a real process: what is too much is refused with etcd's words, memory stays
//! bounded, and nothing that was acknowledged is lost by a kill.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::server::{Kind, Server};
use bytes::Bytes;
use futures::StreamExt;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::Code;

/// Bytes of a value; 400 of them are offered at a time to a server that takes 4 MiB.
const VALUE: usize = 512 * 1024;
const PUTS: usize = 400;
/// What the process may grow by, of the 200 MiB that are offered: the limit three times (received, proposed, in the
/// log), eight connections' windows of 4 MiB as received and as copied, the engine's 16 MiB, slack.
const GROWTH_MAX: f64 = 128.0 * 1024.0 * 1024.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_times_too_much_is_refused_and_holds_no_memory() {
    let flags = ["--pending-requests-mb=4".to_owned(), "--backend-cache-mb=16".to_owned()];
    let mut server = Server::start(Kind::Rusd, &flags, "overload").await.expect("our own is always there");
    let before = resident(&server).await;
    let done = Arc::new(AtomicBool::new(false));
    let peak = async {
        let mut peak = before;
        while !done.load(Ordering::Relaxed) {
            peak = peak.max(resident(&server).await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        peak
    };
    let value = Bytes::from(vec![7; VALUE]);
    let mut channels = Vec::new();
    for _ in 0..8 {
        channels.push(server.connect().await);
    }
    let storm = async {
        let puts = (0..PUTS).map(|number| {
            let mut kv = KvClient::new(channels[number % channels.len()].clone());
            let put = pb::PutRequest { key: key(number), value: value.clone(), ..Default::default() };
            async move { (number, kv.put(put).await) }
        });
        let outcomes: Vec<_> = futures::stream::iter(puts).buffer_unordered(PUTS).collect().await;
        done.store(true, Ordering::Relaxed);
        outcomes
    };
    let (peak, outcomes) = tokio::join!(peak, storm);
    let mut kv = KvClient::new(server.connect().await);
    kv.put(pb::PutRequest { key: "after".into(), value, ..Default::default() }).await.expect("it has recovered");
    server.restart().await;
    let mut kv = KvClient::new(server.connect().await);
    let mut acknowledged = 0;
    for (number, outcome) in outcomes {
        match outcome {
            Ok(_) => {
                let get = pb::RangeRequest { key: key(number), keys_only: true, ..Default::default() };
                assert_eq!(kv.range(get).await.unwrap().get_ref().count, 1, "{number} was acknowledged");
                acknowledged += 1;
            }
            Err(status) => {
                assert_eq!((status.code(), status.message()), (Code::Unknown, "etcdserver: too many requests"));
            }
        }
    }
    assert!(acknowledged > 0 && acknowledged < PUTS, "{acknowledged} of {PUTS} were taken");
    assert!(peak - before < GROWTH_MAX, "from {before} to {peak} bytes with {acknowledged} taken");
}

fn key(number: usize) -> Bytes {
    format!("k{number}").into()
}

async fn resident(server: &Server) -> f64 {
    let [url, _] = server.urls();
    let address = url.strip_prefix("http://").expect("plain HTTP").to_owned();
    let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
    socket.write_all(format!("GET /metrics HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let line = answer.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    line.expect("the figure is there").parse().unwrap()
}
