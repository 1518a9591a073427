//! The gateway over WebSockets: what a client that is no friend can do with one, and that nothing is left of it.
//! (What is said and answered: `gateway_sockets` in `tests/golden`, on etcd as well.)

use std::time::Duration;

use futures::{SinkExt, Stream, StreamExt};
use rusd::api::ConnOptions;
use rusd::types::Limits;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::server::Server;

/// How long anything that has to come may take.
const COMES_MAX: Duration = Duration::from_secs(60);
const CREATE: &str = r#"{"create_request":{"key":"YQ=="}}"#;
const CREATED: &str = r#""created":true"#;
/// A masked frame's mask: none of it changes anything.
const MASK: [u8; 4] = [0; 4];

async fn open(server: &Server, path: &str) -> Result<WebSocketStream<TcpStream>, Error> {
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let request = format!("ws://127.0.0.1:{}{path}", server.port());
    tokio_tungstenite::client_async(request, stream).await.map(|(socket, _)| socket)
}

async fn next(socket: &mut (impl Stream<Item = Result<Message, Error>> + Unpin)) -> Option<Message> {
    tokio::time::timeout(COMES_MAX, socket.next()).await.expect("it comes").and_then(Result::ok)
}

async fn text(socket: &mut (impl Stream<Item = Result<Message, Error>> + Unpin)) -> String {
    match next(socket).await {
        Some(Message::Text(text)) => text.to_string(),
        other => panic!("{other:?}"),
    }
}

/// A watch over a WebSocket that was answered.
async fn watch(server: &Server) -> WebSocketStream<TcpStream> {
    let mut socket = open(server, "/v3/watch").await.unwrap();
    socket.send(Message::text(CREATE)).await.unwrap();
    let first = text(&mut socket).await;
    assert!(first.contains(CREATED), "{first}");
    socket
}

async fn put(server: &Server, key: &'static str, len: usize) {
    let put = pb::PutRequest { key: key.into(), value: vec![b'v'; len].into(), ..Default::default() };
    KvClient::new(server.connect().await).put(put).await.unwrap();
}

/// Waits until nothing is left of any socket.
async fn is_clean(server: &Server) {
    let clean = async {
        while server.services.budgets.open.taken() > 0 || server.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(COMES_MAX, clean).await.expect("nothing is left");
    let held = server.services.budgets.requests.used() + server.services.budgets.answers.used();
    assert_eq!(held, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_to_and_fro_and_ends_with_its_client() {
    let server = Server::with_limits(Limits::default());
    let mut socket = watch(&server).await;
    assert_eq!(server.services.budgets.open.taken(), 1, "it holds its place");
    put(&server, "a", 1).await;
    assert!(text(&mut socket).await.contains(r#""value":"dg==""#));
    socket.send(Message::Ping(vec![1, 2, 3].into())).await.unwrap();
    assert_eq!(next(&mut socket).await, Some(Message::Pong(vec![1, 2, 3].into())));
    // More than one read, and more than one frame, of an answer.
    put(&server, "a", 1 << 20).await;
    assert!(text(&mut socket).await.len() > 1 << 20);
    let reason = CloseFrame { code: CloseCode::Normal, reason: "bye".into() };
    socket.close(Some(reason)).await.unwrap();
    match next(&mut socket).await {
        Some(Message::Close(Some(close))) => assert_eq!(close.code, CloseCode::Normal),
        other => panic!("{other:?}"),
    }
    assert!(next(&mut socket).await.is_none());
    is_clean(&server).await;
    // And without a word.
    let socket = watch(&server).await;
    drop(socket);
    is_clean(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_request_is_told_and_closed() {
    let limits = Limits { request_bytes_max: 10_000, ..Limits::default() };
    let server = Server::with_limits(limits);
    for (path, said, expected) in [
        ("/v3/watch", "nonsense".to_owned(), r#""code":3"#),
        ("/v3/watch", format!(r#"{{"create_request":{{"key":"{}"}}}}"#, "a".repeat(1_500_000)), r#""code":8"#),
        ("/v3/nothing", String::new(), r#""code":5"#),
        ("/v3/kv/range", r#"{"key":"YQ=="}"#.to_owned(), r#""header""#),
    ] {
        let (mut says, mut hears) = open(&server, path).await.unwrap().split();
        // It may be refused before all is said, and who says the rest is not heard for long.
        let said = async { says.send(Message::text(said)).await.ok() };
        let heard = async { (text(&mut hears).await, next(&mut hears).await) };
        let (_, (answer, end)) = tokio::join!(said, heard);
        assert!(answer.contains(expected), "{path}: {answer}");
        assert!(matches!(&end, Some(Message::Close(Some(close))) if close.code == CloseCode::Normal), "{end:?}");
        drop((says, hears));
        is_clean(&server).await;
    }
}

/// The bytes of an answer to what is said without a library in between.
async fn raw(server: &Server, said: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let head = "GET /v3/watch HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(&[head.as_bytes(), said].concat()).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(COMES_MAX, stream.read_to_end(&mut answer)).await;
    read.expect("the server closes it").unwrap();
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head") + 4;
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    answer.split_off(end)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_breaks_the_protocol_is_told_so() {
    let server = Server::with_limits(Limits::default());
    for (said, why) in [
        (&[0x81, 1, b'x'][..], "a frame without a mask"),
        (&[&[0xc1, 0x80][..], &MASK].concat(), "a reserved bit is set"),
        (&[&[0x80, 0x80][..], &MASK].concat(), "a continuation of nothing"),
        (&[0x89, 0xfe, 0, 126], "a control frame that is too long"),
        (&[&[0x81, 0xff][..], &[0xff; 8], &MASK].concat(), "a frame without end"),
    ] {
        let expected = [&[0x88, why.len() as u8 + 2, 3, 0xea][..], why.as_bytes()].concat();
        assert_eq!(raw(&server, said).await, expected);
    }
    is_clean(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_have_their_places_and_their_memory() {
    let limits = Limits {
        requests_open_max: 2,
        requests_pending_bytes_max: 100_000,
        // Long enough for what is held to be seen.
        request_arrival_max: Duration::from_secs(8),
        ..Limits::default()
    };
    let server = Server::with_limits(limits);
    let (one, mut other) = (watch(&server).await, watch(&server).await);
    match open(&server, "/v3/watch").await {
        Err(Error::Http(refused)) => assert_eq!(refused.status(), 500, "as the gateway says it"),
        other => panic!("{:?}", other.map(drop)),
    }
    drop(one);
    // A message of which the end never comes holds what it has, up to the budget, and not for ever.
    let mut frames = vec![0x01, 0xff];
    frames.extend([&1_000_000_u64.to_be_bytes()[..], &MASK].concat());
    frames.extend(b"{\"create_request\":{\"key\":\"");
    frames.resize(60_000, b'a');
    other.get_mut().write_all(&frames).await.unwrap();
    let held = async {
        while server.services.budgets.requests.used() < 50_000 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(COMES_MAX, held).await.expect("it is held");
    let refused = text(&mut other).await;
    assert!(refused.contains(r#"{"error":{"code":4"#), "{refused}");
    assert!(matches!(next(&mut other).await, Some(Message::Close(_))));
    drop(other);
    is_clean(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_takes_nothing_is_cut_off() {
    let conn = ConnOptions { write_timeout: Duration::from_millis(500), ..ConnOptions::default() };
    let server = Server::with_options(Limits::default(), conn);
    let socket = watch(&server).await;
    // More than all that is on the way takes.
    let cut = async {
        while server.services.budgets.open.taken() > 0 {
            put(&server, "a", 1 << 20).await;
        }
    };
    tokio::time::timeout(COMES_MAX, cut).await.expect("it is cut off");
    drop(socket);
    is_clean(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_end_with_the_server() {
    let mut server = Server::with_limits(Limits::default());
    let (mut busy, mut idle) =
        (open(&server, "/v3/lease/keepalive").await.unwrap(), open(&server, "/v3/watch").await.unwrap());
    busy.send(Message::text(r#"{"ID":"7"}"#)).await.unwrap();
    assert!(text(&mut busy).await.contains(r#""ID":"7""#));
    tokio::time::timeout(COMES_MAX, server.stop()).await.expect("nobody is waited for");
    for socket in [&mut busy, &mut idle] {
        let end = loop {
            match next(socket).await {
                Some(Message::Text(_)) => {}
                other => break other,
            }
        };
        assert!(matches!(&end, Some(Message::Close(Some(close))) if close.code == CloseCode::Away), "{end:?}");
    }
}

// Cause: while a single call waited, nobody read what came behind its value, and so nothing after that either. Symptom: a
// client that said one word more and went away kept its connection and its place in the queue, and then got the lock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_while_a_single_call_waits_is_seen_to() {
    const LOCK: &str = r#"{"name":"bA==","lease":"2"}"#;
    let server = Server::with_limits(Limits::default());
    let mut leases = LeaseClient::new(server.connect().await);
    for id in [1, 2] {
        leases.lease_grant(pb::LeaseGrantRequest { id, ttl: 10_000 }).await.unwrap();
    }
    drop(leases);
    let mut holder = open(&server, "/v3/lock/lock").await.unwrap();
    holder.send(Message::text(r#"{"name":"bA==","lease":"1"}"#)).await.unwrap();
    let held = text(&mut holder).await;
    assert!(held.contains(r#""key":"#), "{held}");
    drop(holder);
    let mut waits = open(&server, "/v3/lock/lock").await.unwrap();
    waits.send(Message::text(LOCK)).await.unwrap();
    let taken = |count| {
        let waiters = &server.services.budgets.lock_waiters;
        tokio::time::timeout(COMES_MAX, async move {
            while waiters.taken() != count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    };
    taken(1).await.expect("it waits");
    // Two, so that what can be read at once is not all.
    for _ in 0..2 {
        waits.send(Message::text(LOCK)).await.unwrap();
    }
    waits.send(Message::Ping(vec![7].into())).await.unwrap();
    assert_eq!(next(&mut waits).await, Some(Message::Pong(vec![7].into())));
    drop(waits);
    taken(0).await.expect("nobody waits");
    is_clean(&server).await;
}
