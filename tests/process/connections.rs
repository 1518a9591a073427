//! As many connections that say nothing as a member takes at all: probes and honest clients are answered all the same.

use std::time::Duration;

use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Endpoint;

use crate::server::{Kind, Server, ports};

/// Not a limit on speed: what is never answered ends the test here.
const COMES_MAX: Duration = Duration::from_secs(60);

/// HTTP/2 that has begun, and asks for nothing.
const IDLE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// The same with half a head: HEADERS without END_HEADERS.
const HALF: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\0\0\0\0\x01\x82";
/// And half a head of HTTP/1.1.
const HALF_1: &[u8] = b"GET /livez HTTP/1.1\r\nhost: loc";

async fn page(address: &str, path: &str) -> String {
    let asked = async {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer
    };
    tokio::time::timeout(COMES_MAX, asked).await.unwrap_or_else(|_| panic!("{path} is never answered"))
}

async fn hold(address: &str, says: &[&[u8]]) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for says in says {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(says).await.unwrap();
        held.push(socket);
    }
    held
}

// Cause: clients and the port for probes shared one bound on connections, first come first served, and who said nothing
// kept its place. Symptom: with the bound used up by idle connections a healthy member was killed for its `/livez`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_say_nothing_harm_nobody() {
    let free = format!("127.0.0.1:{}", ports::free());
    let flags = ["--max-connections=8".to_owned(), format!("--listen-metrics-urls=http://{free}")];
    let server = Server::start(Kind::Rusd, &flags, "connections").await.expect("our own is always there");
    let [url, _] = server.urls();
    let client = url.trim_start_matches("http://").to_owned();
    let _idle = hold(&client, &[IDLE; 20]).await;
    let _half = hold(&client, &[HALF; 20]).await;
    // More of them than this port takes, too.
    let mut probes = hold(&free, &[IDLE; 40]).await;
    probes.extend(hold(&free, &[HALF_1; 40]).await);
    for _ in 0..50 {
        assert!(page(&free, "/livez").await.starts_with("HTTP/1.0 200 OK"));
    }
    let put = async {
        let channel = Endpoint::from_shared(url.clone()).unwrap().connect().await.unwrap();
        let put = pb::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        let mut kv = KvClient::new(channel);
        kv.put(put.clone()).await.unwrap();
        // It has asked for something, so that it stays whoever comes.
        let more = hold(&client, &[IDLE; 20]).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        kv.put(put).await.unwrap();
        (kv, more)
    };
    let _held = tokio::time::timeout(COMES_MAX, put).await.expect("an honest client comes in");
    let metrics = page(&free, "/metrics").await;
    let figure = |name: &str| -> f64 {
        let series = format!("{name}{{limit=\"max-connections\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(series.as_str()));
        line.unwrap_or_else(|| panic!("{name} is shown")).parse().unwrap()
    };
    assert_eq!((figure("rusd_limit"), figure("rusd_limit_used")), (8.0, 8.0));
    assert!(figure("rusd_limit_refused_total") >= 30.0, "who had to wait is counted");
}

/// Of an address that has too many, probes are still answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bound_of_an_address_leaves_probes_alone() {
    let free = format!("127.0.0.1:{}", ports::free());
    let flags = ["--max-connections-per-address=3".to_owned(), format!("--listen-metrics-urls=http://{free}")];
    let server = Server::start(Kind::Rusd, &flags, "connections").await.expect("our own is always there");
    let [url, _] = server.urls();
    let client = url.trim_start_matches("http://").to_owned();
    let mut held = hold(&client, &[IDLE; 12]).await;
    assert!(page(&free, "/livez").await.contains("ok"));
    // Until all but those that are held were told so, none is looked at: a socket may be in the line of the kernel still.
    let refused = async {
        let series = "rusd_limit_refused_total{limit=\"max-connections-per-address\"} ";
        loop {
            let metrics = page(&free, "/metrics").await;
            let line = metrics.lines().find_map(|line| line.strip_prefix(series)).expect("it is shown");
            if line.parse::<usize>().unwrap() >= 9 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(COMES_MAX, refused).await.expect("those beyond are closed");
    let mut closed = 0;
    for socket in &mut held {
        let mut all = Vec::new();
        // Those that are held say SETTINGS and no more; the others are closed.
        let read = tokio::time::timeout(Duration::from_millis(500), socket.read_to_end(&mut all)).await;
        closed += usize::from(read.is_ok());
    }
    assert!((9..12).contains(&closed), "{closed} of 12 were closed; one of three may be the test's own");
    let metrics = page(&free, "/metrics").await;
    let series = "rusd_limit_refused_total{limit=\"max-connections-per-address\"} ";
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)).expect("it is shown");
    // Perhaps also one of those that waited for the server.
    assert!(line.parse::<usize>().unwrap() >= closed, "{line} of {closed} are counted");
}
