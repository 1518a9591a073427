//! The JSON gateway against whatever a client may send: every path × every wrong type, junk, half bodies, slow readers.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rusd::types::Limits;
use rusd_proto::{Kind, Shape, shape, shape_at};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::server::Server;

/// Longest wait for what must come.
const ANSWER_MAX: Duration = Duration::from_secs(60);

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(("127.0.0.1", server.port())).await.unwrap()
}

/// Status and body; the connection is closed after it.
async fn post(server: &Server, path: &str, body: &[u8]) -> (u16, String) {
    let mut socket = connect(server).await;
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    // A refusal may come before all is taken.
    let _ = socket.write_all(&[head.as_bytes(), body].concat()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(ANSWER_MAX, socket.read_to_end(&mut answer)).await.expect("an answer comes");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return (0, answer) };
    (head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0), body.to_owned())
}

async fn is_well(server: &Server) {
    let begun = std::time::Instant::now();
    let (status, body) = loop {
        let answer = post(server, "/v3/kv/range", br#"{"key":"Zm9v"}"#).await;
        // Where bodies have little time, that of a client who is kept waiting for a processor may be over.
        if answer.0 != 504 || begun.elapsed() > ANSWER_MAX {
            break answer;
        }
    };
    assert!(status == 200 && body.contains("header"), "{status} {body}");
}

/// Whether an answer is a refusal of a request that is none, with its words.
fn is_refused((status, body): &(u16, String)) -> bool {
    let Ok(error) = serde_json::from_str::<serde_json::Value>(body) else { return false };
    *status == 400 && error["code"] == 3 && error["message"].as_str().is_some_and(|text| !text.is_empty())
}

/// A JSON text that isn't of that kind.
fn wrong_for(kind: Kind, repeated: bool) -> &'static [&'static str] {
    match kind {
        _ if repeated => &["1", "{}", "\"x\"", "true"],
        Kind::Bool => &["1", "\"true\"", "[]", "{}"],
        Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 => &["true", "1.5", "\"x\"", "[]", "{}", "1e99"],
        Kind::String => &["1", "false", "[]", "{}"],
        Kind::Bytes => &["1", "\"!\"", "\"A\"", "[]", "{}"],
        Kind::Enum(_) => &["true", "1.5", "[]", "{}"],
        Kind::Message(_) => &["1", "\"x\"", "[]", "true"],
    }
}

/// Bodies that have one wrong value each, at most two messages deep.
fn wrong_bodies(shape: &'static Shape, deep: bool) -> Vec<String> {
    let mut bodies = Vec::new();
    for field in shape.fields {
        let wrong = wrong_for(field.kind, field.repeated).iter().map(|text| (*text).to_owned());
        let list = |text: String| if field.repeated { format!("[{text}]") } else { text };
        let mut values: Vec<String> = wrong.collect();
        if field.repeated {
            values.extend(wrong_for(field.kind, false).iter().map(|text| list((*text).to_owned())));
        }
        if let (Kind::Message(inner), true) = (field.kind, deep) {
            values.extend(wrong_bodies(shape_at(inner), false).into_iter().map(list));
        }
        for name in [field.name, field.json_name] {
            bodies.extend(values.iter().map(|value| format!("{{\"x\":0,\"{name}\":{value}}}")));
        }
    }
    bodies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_path_refuses_every_wrong_type() {
    let server = Server::with_limits(Limits::default());
    let mut asked = 0;
    for route in rusd_proto::routes() {
        let request = shape(route.request).unwrap();
        for body in wrong_bodies(request, true) {
            let answer = post(&server, route.path, body.as_bytes()).await;
            assert!(is_refused(&answer), "{} {body}: {answer:?}", route.path);
            asked += 1;
        }
        for body in ["null", "[]", "7", "\"x\"", "{", "{\"a\":", "x", "{\"a\":\"\\ud800\"}"] {
            let answer = post(&server, route.path, body.as_bytes()).await;
            assert!(is_refused(&answer), "{} {body}: {answer:?}", route.path);
        }
    }
    assert!(asked > 500, "only {asked} bodies");
    is_well(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn junk_and_half_texts_are_answered() {
    let server = Server::with_limits(Limits::default());
    let mut random = StdRng::seed_from_u64(7);
    let whole =
        br#"{"compare":[{"key":"YQ==","version":"1"}],"success":[{"request_put":{"key":"YQ==","value":"\u0041A=="}}]}"#;
    for len in 1..whole.len() {
        let answer = post(&server, "/v3/kv/txn", &whole[..len]).await;
        assert!(is_refused(&answer) && answer.1.contains("unexpected EOF"), "{len}: {answer:?}");
    }
    let routes = rusd_proto::routes();
    for round in 0..400 {
        let route = &routes[round % routes.len()];
        let body: Vec<u8> = if round % 2 == 0 {
            (0..random.random_range(1..200)).map(|_| random.random()).collect()
        } else {
            // Bytes of a good text in disorder.
            let mut body = whole.to_vec();
            for _ in 0..random.random_range(1..6) {
                let (at, from) = (random.random_range(0..body.len()), random.random_range(0..body.len()));
                body[at] = body[from];
            }
            body
        };
        if route.request_stream {
            continue;
        }
        let (status, answer) = post(&server, route.path, &body).await;
        assert!(matches!(status, 200 | 400 | 404 | 500), "{} {body:?}: {status} {answer}", route.path);
    }
    is_well(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deep_texts_are_bounded() {
    let server = Server::with_limits(Limits::default());
    let nest =
        |levels: usize| format!("{}{{}}{}", "{\"success\":[{\"request_txn\":".repeat(levels), "}]}".repeat(levels));
    assert_eq!(post(&server, "/v3/kv/txn", nest(50).as_bytes()).await.0, 200);
    for levels in [300, 3_000] {
        let answer = post(&server, "/v3/kv/txn", nest(levels).as_bytes()).await;
        assert!(is_refused(&answer) && answer.1.contains("too many operations"), "{answer:?}");
    }
    let answer = post(&server, "/v3/kv/txn", nest(20_000).as_bytes()).await;
    assert!(is_refused(&answer) && answer.1.contains("exceeded max depth"), "{answer:?}");
    let unknown = format!("{{\"x\":{}{}}}", "[".repeat(9_999), "]".repeat(9_999));
    assert!(post(&server, "/v3/kv/txn", unknown.as_bytes()).await.0 == 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_that_is_too_long_is_refused_before_it_is_whole() {
    let server = Server::with_limits(Limits::default());
    let mut socket = connect(&server).await;
    socket
        .write_all(b"POST /v3/kv/put HTTP/1.1\r\nhost: a\r\ncontent-length: 999999999\r\n\r\n{\"key\":\"")
        .await
        .unwrap();
    let (mut read, mut write) = socket.into_split();
    let endless = tokio::spawn(async move { while write.write_all(&[b'A'; 65_536]).await.is_ok() {} });
    let mut answer = vec![0; 4_096];
    let len = tokio::time::timeout(ANSWER_MAX, read.read(&mut answer)).await.expect("it is refused").unwrap();
    let answer = String::from_utf8_lossy(&answer[..len]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("larger than max"), "{answer}");
    drop(read);
    endless.abort();
    assert_eq!(server.services.budgets.requests.used(), 0);
    is_well(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_does_not_come_has_its_time() {
    let limits = Limits { request_arrival_max: Duration::from_millis(200), ..Limits::default() };
    let server = Server::with_limits(limits);
    let mut socket = connect(&server).await;
    socket.write_all(b"POST /v3/kv/put HTTP/1.1\r\nhost: a\r\ncontent-length: 99\r\n\r\n{\"key\":").await.unwrap();
    await_text(&mut socket, &mut String::new(), "HTTP/1.1 504").await;
    assert_eq!(server.services.budgets.requests.used(), 0);
    is_well(&server).await;
}

/// Calls of a method that were begun, and that are over.
fn calls(server: &Server, method: &str) -> (f64, f64) {
    let text = (server.services.metrics_text)();
    let of = |name: &str| {
        let lines = text.lines().filter(|line| {
            line.starts_with(name)
                && line.contains(&format!("\"{method}\""))
                && (method != "Watch" || line.contains("etcdserverpb.Watch"))
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    (of("grpc_server_started_total"), of("grpc_server_handled_total"))
}

/// A call waits for the end of its body, so that its client is seen to leave.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_while_waiting_for_a_lock_has_no_place() {
    let server = Server::with_limits(Limits::default());
    let count = async || {
        let (_, body) = post(&server, "/v3/kv/range", br#"{"key":"bC8=","range_end":"bDA=","count_only":true}"#).await;
        serde_json::from_str::<serde_json::Value>(&body).unwrap()["count"].as_str().unwrap_or("0").to_owned()
    };
    let (status, body) = post(&server, "/v3/lock/lock", br#"{"name":"bA=="}"#).await;
    assert_eq!(status, 200, "{body}");
    let mut socket = connect(&server).await;
    socket.write_all(b"POST /v3/lock/lock HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    socket.write_all(b"f\r\n{\"name\":\"bA==\"}\r\n").await.unwrap();
    // By then it has come as far as it does.
    for _ in 0..20 {
        is_well(&server).await;
    }
    assert_eq!(calls(&server, "Lock").0, 1.0, "a call without its body's end");
    socket.write_all(b"2\r\n\n\n\r\n0\r\n\r\n").await.unwrap();
    until(|| calls(&server, "Lock").0 > 1.0, "the waiter's call begins").await;
    while count().await != "2" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(socket);
    until(|| calls(&server, "Lock").1 > 1.0, "the waiter's call ends").await;
    let begun = std::time::Instant::now();
    while count().await != "1" {
        assert!(begun.elapsed() < ANSWER_MAX, "its place stays");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_behind_a_value_is_passed_by_up_to_a_bound() {
    let server = Server::with_limits(Limits::default());
    let body = |behind: usize| [br#"{"key":"Zm9v"}"#.to_vec(), vec![b' '; behind]].concat();
    let (status, text) = post(&server, "/v3/kv/range", &body(3_000_000)).await;
    assert!(status == 200 && text.contains("header"), "{status} {text}");
    let mut socket = connect(&server).await;
    socket.write_all(b"POST /v3/kv/range HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999\r\n\r\n").await.unwrap();
    let (mut read, mut write) = socket.into_split();
    let endless = tokio::spawn(async move {
        let mut piece = body(0);
        while write.write_all(&piece).await.is_ok() {
            piece = vec![b' '; 65_536];
        }
    });
    let mut answer = vec![0; 4_096];
    let len = tokio::time::timeout(ANSWER_MAX, read.read(&mut answer)).await.expect("it is refused").unwrap();
    let answer = String::from_utf8_lossy(&answer[..len]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("follow the request"), "{answer}");
    endless.abort();
}

/// A request that breaks off is none, wherever it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_breaks_is_no_request() {
    let server = Server::with_limits(Limits::default());
    for (path, method) in
        [("/v3/lease/grant", "LeaseGrant"), ("/v3/auth/disable", "AuthDisable"), ("/v3/watch", "Watch")]
    {
        for (rest, closes) in [
            ("content-length: 99\r\n\r\n", true),
            ("content-length: 99\r\n\r\n ", true),
            ("transfer-encoding: chunked\r\n\r\nzz\r\n", false),
            ("transfer-encoding: chunked\r\n\r\n5\r\n{", true),
        ] {
            let mut socket = connect(&server).await;
            socket.write_all(format!("POST {path} HTTP/1.1\r\nhost: a\r\n{rest}").as_bytes()).await.unwrap();
            if closes {
                socket.shutdown().await.unwrap();
            }
            let mut answer = String::new();
            let _ = tokio::time::timeout(ANSWER_MAX, socket.read_to_string(&mut answer)).await.expect("it is over");
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{path} {rest}: {answer}");
            assert!(answer.is_empty() || answer.contains("unexpected EOF"), "{path} {rest}: {answer}");
            assert_eq!(calls(&server, method).0, 0.0, "{path} {rest}");
        }
    }
    for whole in ["{\"TTL\":\"9\"}", "{}"] {
        let mut socket = connect(&server).await;
        let head = format!("POST /v3/lease/grant HTTP/1.1\r\nhost: a\r\ncontent-length: 99\r\n\r\n{whole}");
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = String::new();
        let _ = tokio::time::timeout(ANSWER_MAX, socket.read_to_string(&mut answer)).await.expect("it is over");
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(calls(&server, "LeaseGrant").0, 0.0, "a value, and no end");
    }
    is_well(&server).await;
}

/// Half values on streams have their time, whether or not the stream has begun, and hold nothing after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_values_on_streams_have_their_time() {
    let limits = Limits {
        request_arrival_max: Duration::from_millis(500),
        requests_pending_bytes_max: 200_000,
        ..Limits::default()
    };
    let server = Server::with_limits(limits);
    let half = format!("{{\"create_request\":{{\"key\":\"{}", "A".repeat(100_000));
    for (path, first, last) in [
        ("/v3/watch", "", "HTTP/1.1 504"),
        ("/v3/watch", "{\"create_request\":{\"key\":\"YQ==\"}}", "{\"error\":{\"code\":4"),
        ("/v3/lease/keepalive", "{\"ID\":\"7\"}", "{\"error\":{\"code\":4"),
    ] {
        let mut socket = connect(&server).await;
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 999999\r\n\r\n{first}");
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut seen = String::new();
        if !first.is_empty() {
            await_text(&mut socket, &mut seen, "{\"result\":").await;
            // Idle for longer than a value may take.
            tokio::time::sleep(Duration::from_millis(800)).await;
        }
        let method = if path == "/v3/watch" { "Watch" } else { "LeaseKeepAlive" };
        let (begun, over) = calls(&server, method);
        socket.write_all(half.as_bytes()).await.unwrap();
        await_text(&mut socket, &mut seen, last).await;
        until(|| server.services.budgets.requests.used() == 0, "nothing is held").await;
        if !first.is_empty() {
            until(|| calls(&server, method) == (begun, over + 1.0), "the stream ends").await;
        }
    }
    is_well(&server).await;
}

/// The client's time is that of the body, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clients_time_covers_the_body() {
    let server = Server::with_limits(Limits::default());
    for path in ["/v3/kv/put", "/v3/watch", "/v3/election/observe"] {
        let mut socket = connect(&server).await;
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ngrpc-timeout: 200m\r\ncontent-length: 99\r\n\r\n{{\"");
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut seen = String::new();
        await_text(&mut socket, &mut seen, "HTTP/1.1 504").await;
        assert!(seen.contains("context deadline exceeded"), "{seen}");
    }
    assert_eq!(server.services.budgets.requests.used(), 0);
}

/// A watch and a renewal, to and fro on one HTTP/1.1 connection whose body stays open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_stays_open_is_answered_as_it_comes() {
    let server = Server::with_limits(Limits::default());
    let mut socket = connect(&server).await;
    socket.write_all(b"POST /v3/watch HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    let mut seen = String::new();
    for (request, expected) in [
        ("{\"create_request\":{\"key\":\"YQ==\"}}", "\"created\":true"),
        ("{\"create_request\":{\"key\":\"Yg==\"}}\n", "\"watch_id\":\"1\",\"created\":true"),
        ("{\"cancel_request\":{\"watch_id\":1}}", "\"canceled\":true"),
    ] {
        let chunk = format!("{:x}\r\n{request}\r\n", request.len());
        socket.write_all(chunk.as_bytes()).await.unwrap();
        await_text(&mut socket, &mut seen, expected).await;
    }
    assert_eq!(post(&server, "/v3/kv/put", br#"{"key":"YQ==","value":"MQ=="}"#).await.0, 200);
    await_text(&mut socket, &mut seen, "\"events\":[{\"kv\":{\"key\":\"YQ==\"").await;
}

async fn await_text(socket: &mut TcpStream, seen: &mut String, expected: &str) {
    let mut piece = vec![0; 4_096];
    while !seen.contains(expected) {
        let read = tokio::time::timeout(ANSWER_MAX, socket.read(&mut piece)).await;
        let len = read.unwrap_or_else(|_| panic!("{expected} doesn't come: {seen}")).unwrap();
        assert!(len > 0, "the end before {expected}: {seen}");
        seen.push_str(&String::from_utf8_lossy(&piece[..len]));
    }
}

/// Who goes away before a stream has said anything takes it along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_its_client() {
    let server = Server::with_limits(Limits::default());
    let streams = || calls(&server, "Watch");
    for body in ["{}", "{\"create_request\":{\"key\":\"YQ==\"}}"] {
        let mut socket = connect(&server).await;
        let head = format!("POST /v3/watch HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let before = streams();
        socket.write_all(head.as_bytes()).await.unwrap();
        until(|| streams().0 > before.0, "the call begins").await;
        drop(socket);
        until(|| streams().1 > before.1, "the call ends").await;
    }
}

async fn until(mut holds: impl FnMut() -> bool, what: &str) {
    let begun = std::time::Instant::now();
    while !holds() {
        assert!(begun.elapsed() < ANSWER_MAX, "{what}: it doesn't");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Large answers come whole in pieces, and one that isn't read holds what it is, no more than its budget, and nobody up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_answers_and_slow_readers() {
    let server = Server::with_limits(Limits::default());
    let value = vec![0xa5_u8; 600_000];
    // More than sockets take on the way.
    for key in 1..=24_u8 {
        let body = serde_json::json!({ "key": STANDARD.encode([key]), "value": STANDARD.encode(&value) });
        assert_eq!(post(&server, "/v3/kv/put", body.to_string().as_bytes()).await.0, 200);
    }
    let all = br#"{"key":"AA==","range_end":"AA=="}"#;
    let (status, body) = post(&server, "/v3/kv/range", all).await;
    assert_eq!(status, 200);
    let text = dechunked(&body);
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["count"], "24");
    for pair in answer["kvs"].as_array().unwrap() {
        assert_eq!(STANDARD.decode(pair["value"].as_str().unwrap()).unwrap(), value);
    }
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut socket = connect(&server).await;
        let head = format!("POST /v3/kv/range HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", all.len());
        socket.write_all(&[head.as_bytes(), all].concat()).await.unwrap();
        slow.push(socket);
    }
    until(|| server.services.budgets.answers.used() > 4 * 3_000_000, "slow readers' answers are held").await;
    is_well(&server).await;
    drop(slow);
    until(|| server.services.budgets.answers.used() == 0, "they are let go").await;
}

/// A chunked body's content.
fn dechunked(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((len, rest)) = body.split_once("\r\n") {
        let len = usize::from_str_radix(len, 16).unwrap();
        out.push_str(&rest[..len]);
        body = rest[len..].trim_start_matches("\r\n");
        if len == 0 {
            break;
        }
    }
    out
}
