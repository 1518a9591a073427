//! Connections that mean harm: each is tried while another client works, which must be served, and what it held must
//! be given back. (Handshakes that stall: `tests/tls/entrance.rs`.)
//!
//! ```text
//! hostile connection ─┐
//! another client ─────┴─► served all the while ─► the hostile one cut off, or harmless ─► nothing is held
//! ```

use std::future::Future;
use std::time::Duration;

use prost::Message;
use rusd::api::ConnOptions;
use rusd::types::Limits;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Status;

use crate::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, call, frame, head, literal, next_frame,
};
use crate::raw::framed;
use crate::server::Server;

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const RANGE_STREAM: &str = "/etcdserverpb.KV/RangeStream";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
/// HTTP/2's number for a peer that is told to calm down.
const ENHANCE_YOUR_CALM: [u8; 4] = [0, 0, 0, 0xb];
/// HTTP/2's number of the setting for a stream's first window.
const INITIAL_WINDOW: u16 = 4;
/// How long anything that has to come may take.
const COMES_MAX: Duration = Duration::from_secs(60);
/// Pieces of answers that may wait for another turn to begin, and calls of a turn.
const UNSENT_MAX: usize = 512;
const CALLS_A_TURN: usize = 64;
/// What such a client may make the process grow by; tests beside this one grow it, too.
const GROWTH_MAX: u64 = 256 << 20;

/// Waits are short here.
fn server() -> Server {
    let conn = ConnOptions {
        write_timeout: Duration::from_millis(500),
        header_timeout: Duration::from_millis(500),
        ..ConnOptions::default()
    };
    Server::with_options(Limits { request_arrival_max: Duration::from_millis(500), ..Limits::default() }, conn)
}

/// The answer to a call whose message came in time: where that is short, one who is kept waiting for a processor may be late.
async fn in_time<T>(ask: impl AsyncFn() -> Result<T, Status>) -> T {
    loop {
        match ask().await {
            Err(late) if late.message().contains("message did not come") => {}
            answer => return answer.unwrap(),
        }
    }
}

/// Runs `hostile` while another client writes and reads, for a few rounds more at least.
async fn beside<T>(server: &Server, hostile: impl Future<Output = T>) -> T {
    let mut hostile = std::pin::pin!(hostile);
    let kv = KvClient::new(server.connect().await);
    let mut done = None;
    let mut served = 0;
    while done.is_none() || served < 20 {
        let ask = async {
            let put = pb::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
            in_time(async || kv.clone().put(put.clone()).await).await;
            let range = pb::RangeRequest { key: "k".into(), ..Default::default() };
            let found = in_time(async || kv.clone().range(range.clone()).await).await;
            assert_eq!(found.get_ref().count, 1);
        };
        let ask = tokio::time::timeout(COMES_MAX, ask);
        if done.is_some() {
            ask.await.expect("others are served");
        } else {
            let mut ask = std::pin::pin!(ask);
            tokio::select! {
                ended = &mut hostile => {
                    done = Some(ended);
                    ask.await.expect("others are served");
                }
                asked = &mut ask => asked.expect("others are served"),
            }
        }
        served += 1;
    }
    done.expect("it has ended")
}

/// Waits until all requests and connections are gone.
async fn is_clean(server: &Server) {
    let begun = tokio::time::Instant::now();
    loop {
        let (open, connections) = (server.services.budgets.open.taken(), server.connections());
        let held = server.services.budgets.requests.used() + server.services.budgets.answers.used();
        if (open, connections, held) == (0, 0, 0) {
            return;
        }
        assert!(begun.elapsed() < COMES_MAX, "{open} requests on {connections} connections hold {held} bytes");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap() * 4096
}

fn put() -> Vec<u8> {
    let put = pb::PutRequest { key: "hostile".into(), value: "v".into(), ..Default::default() };
    framed(&put.encode_to_vec()).to_vec()
}

fn range() -> Vec<u8> {
    framed(&pb::RangeRequest { key: "k".into(), ..Default::default() }.encode_to_vec()).to_vec()
}

/// Stream numbers of a client.
fn streams() -> impl Iterator<Item = u32> {
    (1..).step_by(2)
}

// CVE-2023-44487. Cause: a stream that is reset makes room for the next at once, so that the bound on streams bounds
// nothing. What holds: such a connection is told to calm down and closed, or its calls are dropped as fast as they come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_reset_at_once() {
    let _memory = crate::MEMORY.lock().await;
    let server = server();
    let before = resident_bytes();
    for path in [RANGE, PUT, WATCH] {
        let mut frames = Frames::open(server.address(), &[]).await;
        let calmed = beside(&server, async {
            let message = if path == PUT { put() } else { range() };
            for stream in streams().take(40_000) {
                let all = [
                    call(stream, path, END_HEADERS),
                    frame(DATA, END_STREAM, stream, &message),
                    frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]),
                ];
                if !frames.send(&all.concat()).await {
                    break;
                }
            }
            // Unless it was cut, it is there and answers.
            frames.send(&frame(PING, 0, 0, b"12345678")).await;
            let last = frames.find(|(kind, flags, ..)| *kind == GOAWAY || (*kind, *flags) == (PING, ACK)).await;
            last.is_none_or(|(kind, .., payload)| kind == GOAWAY && payload[4..8] == ENHANCE_YOUR_CALM)
        })
        .await;
        println!("{path}: {}", if calmed { "told to calm down" } else { "borne" });
        drop(frames);
        is_clean(&server).await;
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_streams_than_all_clients_may_have() {
    const OPEN: usize = 500;
    // What belongs to a connection itself counts as requests of it.
    const FEW: usize = 4;
    let limits = Limits { requests_open_max: OPEN, request_arrival_max: COMES_MAX, ..Limits::default() };
    let server = Server::with_limits(limits);
    let mut frames = Frames::open(server.address(), &[]).await;
    // Calls of which the message never comes.
    for stream in streams().take(20 * OPEN) {
        assert!(frames.send(&call(stream, PUT, END_HEADERS)).await);
    }
    let refused = async {
        while server.services.budgets.open.refused() < 19 * OPEN as u64 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(COMES_MAX, refused).await.expect("those beyond are refused");
    // One connection leaves half of them to others.
    let taken = server.services.budgets.open.taken();
    assert!((OPEN / 2 - FEW..=OPEN / 2).contains(&taken), "{taken} of {OPEN}");
    let mut other = Frames::open(server.address(), &[]).await;
    for stream in streams().take(OPEN) {
        assert!(other.send(&call(stream, PUT, END_HEADERS)).await);
    }
    let filled = async {
        while server.services.budgets.open.taken() < OPEN - 2 * FEW {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(COMES_MAX, filled).await.expect("who gets them");
    drop((frames, other));
    is_clean(&server).await;
    beside(&server, async {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_and_bodies_that_come_byte_by_byte() {
    let server = server();
    // A head over HTTP/1.1, which has its time as a whole.
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    beside(&server, async {
        socket.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: ").await.unwrap();
        let drip = async {
            while socket.write_all(b"a").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(COMES_MAX, drip).await.expect("it is cut off");
    })
    .await;
    // A body over HTTP/1.1.
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    let begun = "POST /v3/kv/put HTTP/1.1\r\nhost: a\r\ncontent-length: 999999\r\n\r\n{\"key\":\"";
    let answer = beside(&server, async {
        socket.write_all(begun.as_bytes()).await.unwrap();
        let mut answer = vec![0; 12];
        let (mut read, mut write) = socket.split();
        let drip = async {
            loop {
                let _ = write.write_all(b"a").await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = drip => {}
            read = read.read_exact(&mut answer) => drop(read.unwrap()),
        }
        answer
    })
    .await;
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 504");
    drop(socket);
    // A message over HTTP/2.
    let mut frames = Frames::open(server.address(), &[]).await;
    let ended = beside(&server, async {
        frames.send(&call(1, PUT, END_HEADERS)).await;
        let message = put();
        for byte in &message[..message.len() - 1] {
            frames.send(&frame(DATA, 0, 1, std::slice::from_ref(byte))).await;
        }
        frames.find(|(kind, _, stream, _)| (*kind, *stream) == (HEADERS, 1)).await
    })
    .await;
    let (_, flags, ..) = ended.expect("an answer");
    assert_eq!(flags & END_STREAM, END_STREAM, "it is only a refusal");
    // A head over HTTP/2 that isn't finished: such a connection is as an idle one, and holds nothing.
    let mut half = Frames::open(server.address(), &[]).await;
    half.send(&frame(HEADERS, 0, 1, &head(PUT)[..20])).await;
    beside(&server, tokio::time::sleep(Duration::from_millis(600))).await;
    assert_eq!(server.services.budgets.open.taken(), 0);
    drop((frames, half));
    is_clean(&server).await;
}

// Cause: a head's time began when the head was waited for. Symptom: a client of the gateway that rested between two requests
// was cut off, where etcd lets it rest. Now: it begins with the head's first byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_rest_between_two_heads() {
    let server = server();
    let mut socket = TcpStream::connect(server.address()).await.unwrap();
    for rest in [Duration::ZERO, Duration::from_secs(2)] {
        tokio::time::sleep(rest).await;
        socket.write_all(b"GET /version HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            let read = tokio::time::timeout(COMES_MAX, socket.read_buf(&mut answer)).await.expect("an answer").unwrap();
            assert!(read > 0, "cut off after a rest of {rest:?}: {}", String::from_utf8_lossy(&answer));
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    }
    // A head that has begun has its time as ever.
    socket.write_all(b"GET /version HTTP/1.1\r\nhost: lo").await.unwrap();
    let ended = tokio::time::timeout(COMES_MAX, socket.read_to_end(&mut Vec::new())).await;
    // With an error or not.
    let _ = ended.expect("it is cut off");
    is_clean(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_for_which_no_window_is_ever_opened() {
    let server = server();
    let mut shut = Frames::open(server.address(), &[(INITIAL_WINDOW, 0)]).await;
    let mut watcher = Frames::open(server.address(), &[(INITIAL_WINDOW, 0)]).await;
    let create = pb::WatchCreateRequest { key: "k".into(), ..Default::default() };
    let create = pb::WatchRequest { request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)) };
    beside(&server, async {
        watcher.send(&call(1, WATCH, END_HEADERS)).await;
        watcher.send(&frame(DATA, 0, 1, &framed(&create.encode_to_vec()))).await;
        for stream in streams().take(300) {
            shut.send(&[call(stream, RANGE, END_HEADERS), frame(DATA, END_STREAM, stream, &range())].concat()).await;
        }
        // It is alive and says so, which doesn't help it.
        let pings = async {
            while shut.write.write_all(&frame(PING, 0, 0, b"12345678")).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let mut answers = Vec::new();
        let cut = async { tokio::join!(pings, shut.read.read_to_end(&mut answers)) };
        drop(tokio::time::timeout(COMES_MAX, cut).await.expect("it is cut off"));
    })
    .await;
    // A watcher that reads nothing is no fault.
    assert_eq!(server.services.budgets.open.taken(), 1);
    watcher.send(&frame(PING, 0, 0, b"12345678")).await;
    assert!(watcher.find(|(kind, flags, ..)| (*kind, *flags) == (PING, ACK)).await.is_some());
    watcher.send(&frame(WINDOW_UPDATE, 0, 1, &65_535_u32.to_be_bytes())).await;
    assert!(watcher.find(|(kind, ..)| *kind == DATA).await.is_some(), "it gets its events once it wants them");
    drop(watcher);
    is_clean(&server).await;
}

/// A call, or a page, of which the whole request is there.
fn ask(stream: u32, path: &str) -> Vec<u8> {
    if path.starts_with("/etcdserverpb") {
        let range = pb::RangeRequest { key: "big".into(), ..Default::default() };
        let message = framed(&range.encode_to_vec());
        return [call(stream, path, END_HEADERS), frame(DATA, END_STREAM, stream, &message)].concat();
    }
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "localhost")];
    let head: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(name, value)).collect();
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &head)
}

/// A server that holds a value of 10 KiB.
async fn with_value(server: Server) -> Server {
    let put = pb::PutRequest { key: "big".into(), value: vec![7; 10 << 10].into(), ..Default::default() };
    KvClient::new(server.connect().await).put(put).await.unwrap();
    server
}

// Cause: HTTP/2 asks for all of an answer before there is any window, and takes it for one byte of it. Symptom: the places
// were free, and the patience had no end, while the answers filled the memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_which_one_byte_is_taken() {
    const CALLS: usize = 100;
    for (window, path) in [(1, RANGE), (0, RANGE), (1, "/metrics"), (0, RANGE_STREAM)] {
        // Of a window of nothing nothing is ever taken: all calls have to be answered before the time is over, which is
        // longer where that was too much.
        let mut write_timeout = Duration::from_secs(3);
        let held = loop {
            match unread(CALLS, window, path, write_timeout).await {
                Some(held) => break held,
                None => write_timeout *= 4,
            }
            assert!(write_timeout < COMES_MAX, "window {window}, {path}: it is cut off at once");
        };
        assert!(held >= CALLS, "window {window}, {path}: {held} places for {CALLS} answers");
    }
}

/// The places that so many answers hold of which no more is taken than `window` bytes each; `None` if their connection was cut
/// off before all were there.
async fn unread(calls: usize, window: u32, path: &str, write_timeout: Duration) -> Option<usize> {
    let conn = ConnOptions { write_timeout, ..ConnOptions::default() };
    let server = with_value(Server::with_options(Limits::default(), conn)).await;
    let mut frames = Frames::open(server.address(), &[(INITIAL_WINDOW, window)]).await;
    let mut all = streams();
    let held = beside(&server, async {
        for stream in all.by_ref().take(calls) {
            if !frames.send(&ask(stream, path)).await {
                return None;
            }
        }
        let answered = async {
            let mut heads = 0;
            while heads < calls {
                let (kind, ..) = frames.next().await?;
                heads += usize::from(kind == HEADERS);
            }
            Some(())
        };
        tokio::time::timeout(COMES_MAX, answered).await.expect("the heads need no window")?;
        let held = server.services.budgets.open.taken();
        // It takes a byte of a new answer each time, or asks for one at least.
        let cut = async {
            for stream in all {
                if frames.write.write_all(&ask(stream, path)).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        };
        tokio::time::timeout(20 * write_timeout, cut).await.expect("it is cut off");
        Some(held)
    })
    .await;
    drop(frames);
    is_clean(&server).await;
    held
}

// Cause: whether a socket takes anything was no reason not to read from it. Symptom: with all windows open the answers to as
// many calls as a client can send piled up here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_which_no_answer_is_read() {
    const CALLS: usize = 20_000;
    let _memory = crate::MEMORY.lock().await;
    let server = with_value(Server::with_limits(Limits::default())).await;
    let mut frames = Frames::open(server.address(), &[(INITIAL_WINDOW, i32::MAX as u32)]).await;
    let window = (i32::MAX as u32 - 65_535).to_be_bytes();
    assert!(frames.send(&frame(WINDOW_UPDATE, 0, 0, &window)).await);
    let waiting = || server.services.budgets.open.taken();
    let Frames { read, mut write } = frames;
    // The kernel takes these, whether they are read or not, or most of them.
    let sending = tokio::spawn(async move {
        for stream in streams().take(CALLS) {
            write.write_all(&ask(stream, RANGE)).await.unwrap();
        }
        write
    });
    let mut read = tokio::io::BufReader::new(read);
    beside(&server, async {
        let mut before = usize::MAX;
        while waiting() != before || before == 0 {
            before = waiting();
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        // Reading stops by turns, and none brings more calls than it has: what waits is what may wait, a turn, and
        // what the protocol library has of the last one. Without an end all that the kernel doesn't take wait.
        println!("{before} answers wait");
        assert!(before <= UNSENT_MAX + 2 * CALLS_A_TURN, "{before} answers wait here");
    })
    .await;
    // Once it reads, it gets them all.
    let mut ended = 0;
    let all = async {
        while ended < CALLS {
            let (kind, flags, ..) = next_frame(&mut read).await.expect("it isn't cut off");
            ended += usize::from(kind == HEADERS && flags & END_STREAM != 0);
        }
    };
    tokio::time::timeout(5 * COMES_MAX, all).await.expect("all answers");
    drop((read, sending.await.expect("all calls")));
    is_clean(&server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_that_are_answered() {
    let _memory = crate::MEMORY.lock().await;
    let server = server();
    let before = resident_bytes();
    for one in [frame(PING, 0, 0, b"12345678"), frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9])] {
        let mut frames = Frames::open(server.address(), &[]).await;
        let some = one.repeat(1_000);
        beside(&server, async {
            // None of the answers is read. What the server has to say is bounded, so it stops reading.
            let flood = async { while frames.send(&some).await {} };
            tokio::time::timeout(COMES_MAX, flood).await.expect("it is cut off");
        })
        .await;
        is_clean(&server).await;
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_without_an_end() {
    let _memory = crate::MEMORY.lock().await;
    let server = server();
    let before = resident_bytes();
    let field = literal("x-long", &"a".repeat(100)).repeat(100);
    for (first, rest) in [
        // Continued for ever; with fields, and with nothing at all.
        (frame(HEADERS, 0, 1, &head(PUT)), frame(CONTINUATION, 0, 1, &field)),
        (frame(HEADERS, 0, 1, &head(PUT)), frame(CONTINUATION, 0, 1, &[])),
        // Data of no length, windows of no width.
        (call(1, PUT, END_HEADERS), frame(DATA, 0, 1, &[])),
    ] {
        let mut frames = Frames::open(server.address(), &[]).await;
        beside(&server, async {
            assert!(frames.send(&first).await);
            let endless = async { while frames.send(&rest).await {} };
            tokio::time::timeout(COMES_MAX, endless).await.expect("it is cut off");
        })
        .await;
        drop(frames);
        is_clean(&server).await;
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes more");
}
