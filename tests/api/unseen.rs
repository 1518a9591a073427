//! What a client could leave in this process where no budget and no patience sees it.
//!
//! ```text
//! a refused page, its window shut ─► a head alone
//! bytes behind a call's message    ─► let go while the call waits
//! ```

use std::time::Duration;

use prost::Message;
use rusd::types::Limits;
use rusd_proto::v3lockpb as pb;

use crate::frames::{
    ACK, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, PING, SETTINGS, WINDOW_UPDATE, call, frame, literal,
};
use crate::raw::framed;
use crate::server::Server;

const PUT: &str = "/etcdserverpb.KV/Put";
const LOCK: &str = "/v3lockpb.Lock/Lock";
/// HTTP/2's number of the setting for a stream's first window.
const INITIAL_WINDOW: u16 = 4;
/// How long anything that has to come may take.
const COMES_MAX: Duration = Duration::from_secs(60);

fn get(stream: u32, path: &str) -> Vec<u8> {
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "localhost")];
    let head: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(name, value)).collect();
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &head)
}

// Cause: the refusal of a page had a text. Symptom: with a window of nothing each kept a stream and a task, and as refusals
// have no place there was no end to them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_pages_leave_nothing_that_waits_for_a_window() {
    let limits = Limits { requests_open_max: 64, request_arrival_max: COMES_MAX, ..Limits::default() };
    let server = Server::with_limits(limits);
    let mut frames = Frames::open(server.address(), &[(INITIAL_WINDOW, 0)]).await;
    let mut streams = (1..).step_by(2);
    for stream in streams.by_ref().take(100) {
        assert!(frames.send(&call(stream, PUT, END_HEADERS)).await);
    }
    let full = async {
        while server.services.budgets.open.refused() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(COMES_MAX, full).await.expect("all places are taken");
    for path in ["/version", "/v3/x", "/v3/kv/range"] {
        for stream in streams.by_ref().take(5) {
            assert!(frames.send(&get(stream, path)).await);
            let answer = frames.find(|(kind, _, of, _)| (*kind, *of) == (HEADERS, stream)).await;
            let (_, flags, ..) = answer.expect("a refusal");
            assert_eq!(flags & END_STREAM, END_STREAM, "{path}");
        }
    }
}

// Cause: a call's body lived as long as the call, though nobody read on behind its message. Symptom: whoever waited for a
// lock kept as much as a connection's windows let him send, uncounted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_behind_a_message_is_let_go_while_its_call_waits() {
    const WAITERS: u32 = 4;
    let server = Server::with_limits(Limits::default());
    let mut frames = Frames::open(server.address(), &[]).await;
    let lock = framed(&pb::LockRequest { name: "one".into(), lease: 0 }.encode_to_vec());
    let ask = |stream| [call(stream, LOCK, END_HEADERS), frame(DATA, 0, stream, &lock)].concat();
    assert!(frames.send(&[ask(1), frame(DATA, END_STREAM, 1, &[])].concat()).await);
    assert!(frames.find(|(kind, flags, ..)| (*kind, flags & END_STREAM) == (HEADERS, END_STREAM)).await.is_some());
    assert!(frames.send(&frame(SETTINGS, ACK, 0, &[])).await);
    // The windows that the server begins with are known when it answers this.
    assert!(frames.send(&frame(PING, 0, 0, b"12345678")).await);
    assert!(frames.find(|(kind, flags, ..)| (*kind, *flags) == (PING, ACK)).await.is_some());
    for waiter in 1..=WAITERS {
        let stream = 2 * waiter + 1;
        assert!(frames.send(&ask(stream)).await);
        for _ in 0..15 {
            assert!(frames.send(&frame(DATA, 0, stream, &[7; 16_000])).await);
        }
    }
    // The connection's window is given back, but for a part of it that isn't worth the word.
    let mut back = 0;
    while back < WAITERS * 15 * 16_000 / 2 {
        let update = frames.find(|(kind, _, stream, _)| (*kind, *stream) == (WINDOW_UPDATE, 0)).await;
        let (.., bytes) = update.expect("the connection isn't cut off for it");
        back += u32::from_be_bytes(bytes.try_into().unwrap());
    }
    assert_eq!(server.services.budgets.open.taken(), WAITERS as usize, "they wait");
}
