//! Who is nobody while there are many requests and authentication is on: what it is told, and how much it may hold.
//!
//! ```text
//! root's streams take an eighth of all places ─► a stranger's call, login, page ─► told why · a few · a few
//!                                             └► somebody's call, by whichever door ─► served
//! ```

use std::time::Duration;

use rusd::types::Limits;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::auth_client::AuthClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::Channel;

use crate::frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, frame, head, literal};
use crate::raw::{self, framed};
use crate::server::Server;
use crate::users::{add_user, enable, get, grant_role, login, put, with};

const TOO_MANY: &str = "etcdserver: too many requests";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
/// Places of all, and how many are taken when strangers get no more of them.
const OPEN: usize = 512;
const STRANGERS: usize = OPEN / 8;
/// What strangers get all the same: of all of them together, and of one connection.
const BEYOND: usize = STRANGERS / 2;
const BEYOND_OF_ONE: usize = BEYOND / 4;
/// What one connection asks for.
const ASKED: usize = 200;
/// HTTP/2's number of the setting for a stream's first window.
const INITIAL_WINDOW: u16 = 4;
/// How long anything that has to come may take.
const COMES_MAX: Duration = Duration::from_secs(60);

/// A server on which root has as many streams open as make it careful.
struct Busy {
    server: Server,
    channel: Channel,
    root: String,
    _streams: Frames,
}

impl Busy {
    async fn start() -> Self {
        let server = Server::with_limits(Limits { requests_open_max: OPEN, ..Limits::default() });
        let channel = server.connect().await;
        for name in ["root", "u"] {
            add_user(&channel, None, name, "pw").await.unwrap();
            grant_role(&channel, None, name, "root").await.unwrap();
        }
        enable(&channel).await.unwrap();
        let root = login(&channel, "root", "pw").await.unwrap();
        let mut streams = Frames::open(server.address(), &[]).await;
        for stream in (1..).step_by(2).take(STRANGERS) {
            let head = [head(WATCH), literal("token", &root)].concat();
            assert!(streams.send(&frame(HEADERS, END_HEADERS, stream, &head)).await);
        }
        let taken = async {
            while server.services.budgets.open.taken() < STRANGERS {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(COMES_MAX, taken).await.expect("they are open");
        Self { server, channel, root, _streams: streams }
    }

    /// The answer to an HTTP/1.1 request, up to its head's end at least.
    async fn ask(&self, first: &str, headers: &[(&str, &str)], body: &str) -> String {
        let mut socket = TcpStream::connect(self.server.address()).await.unwrap();
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!("{first} HTTP/1.1\r\nhost: a\r\n{headers}content-length: {}\r\n\r\n{body}", body.len());
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
            let read = tokio::time::timeout(COMES_MAX, socket.read_buf(&mut answer)).await.expect("an answer");
            assert!(read.unwrap() > 0, "it ends with {}", String::from_utf8_lossy(&answer));
        }
        String::from_utf8_lossy(&answer).into_owned()
    }
}

// Cause: whoever wasn't known was told that there were too many requests, before anybody looked at why. Symptom: a client whose
// token had ended got no other answer for as long as others had their streams open, and so never logged in again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_token_is_over_is_told_so_and_logs_in_again() {
    let busy = Busy::start().await;
    let (server, channel) = (&busy.server, &busy.channel);
    let over = login(channel, "u", "pw").await.unwrap();
    put(channel, Some(&over), "k", "v").await.unwrap();
    let change = pb::AuthUserChangePasswordRequest { name: "u".into(), password: "new".into(), ..Default::default() };
    AuthClient::new(channel.clone()).user_change_password(with(Some(&busy.root), change)).await.unwrap();
    let refused = get(channel, Some(&over), "k").await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, "etcdserver: invalid auth token"));
    // Authentication may have been turned on since it came.
    let refused = get(channel, None, "k").await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "etcdserver: user name is empty"));
    let range = async |token: &str| {
        let answer = busy.ask("POST /v3/kv/range", &[("authorization", token)], r#"{"key":"aw=="}"#).await;
        answer.lines().next().unwrap().to_owned()
    };
    assert_eq!(range(&over).await, "HTTP/1.1 401 Unauthorized");
    // Who is nobody may ask for this, where there is room.
    for token in [&[][..], &[("token", over.as_str())]] {
        let answer = raw::call(server, "/grpc.health.v1.Health/Watch", token, vec![framed(&[])], false).await;
        assert_eq!((answer.grpc_status.as_str(), answer.message.as_str()), ("2", TOO_MANY));
    }
    let fresh = login(channel, "u", "new").await.unwrap();
    assert_eq!(get(channel, Some(&fresh), "k").await.unwrap().as_deref(), Some("v"));
    assert_eq!(range(&fresh).await, "HTTP/1.1 200 OK");
}

// Cause: pages for probes, and logins, had places like any other call's, and answers that nobody takes keep theirs. Symptom:
// three connections without windows, and every user's call was refused, and then the probes themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_and_logins_of_strangers_leave_most_places_to_others() {
    let busy = Busy::start().await;
    let (server, channel) = (&busy.server, &busy.channel);
    let page = |path: &str| {
        let fields = [(":method", "GET"), (":scheme", "http"), (":path", path), (":authority", "localhost")];
        fields.iter().flat_map(|(name, value)| literal(name, value)).collect::<Vec<u8>>()
    };
    let fields =
        [(":method", "POST"), (":scheme", "http"), (":path", "/v3/auth/authenticate"), (":authority", "localhost")];
    let login_head: Vec<u8> = fields.iter().flat_map(|(name, value)| literal(name, value)).collect();
    let mut idle = Vec::new();
    for (path, most) in [("/health", BEYOND_OF_ONE), ("/livezz", 0), ("login", BEYOND_OF_ONE)] {
        let open = &server.services.budgets.open;
        let (before, refused) = (open.taken(), open.refused());
        // No answer's body is ever taken.
        let mut frames = Frames::open(server.address(), &[(INITIAL_WINDOW, 0)]).await;
        for stream in (1..).step_by(2).take(ASKED) {
            let asked = match path {
                "login" => {
                    [frame(HEADERS, END_HEADERS, stream, &login_head), frame(DATA, END_STREAM, stream, b"{")].concat()
                }
                path => frame(HEADERS, END_HEADERS | END_STREAM, stream, &page(path)),
            };
            assert!(frames.send(&asked).await);
        }
        let all = async {
            while open.refused() < refused + (ASKED - most) as u64 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let all = tokio::time::timeout(COMES_MAX, all).await;
        let taken = open.taken().saturating_sub(before);
        assert!(all.is_ok() && taken <= most, "{taken} places for {path}");
        idle.push(frames);
    }
    put(channel, Some(&busy.root), "k", "v").await.expect("room for who is somebody");
    login(channel, "u", "pw").await.expect("and for one more who wants to be");
    for path in ["/health", "/livez", "/readyz/ping", "/metrics"] {
        let answer = busy.ask(&format!("GET {path}"), &[], "").await;
        assert!(!answer.starts_with("HTTP/1.1 503"), "{path}: {answer}");
    }
}

// Cause: who asks was looked for where gRPC has it. Symptom: browsers, and whoever names a token as the gateway has it, were
// refused though they had logged in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_through_the_gateway_is_known_there() {
    let busy = Busy::start().await;
    let bearer = format!("Bearer {}", busy.root);
    for (name, token) in
        [("grpc-metadata-token", &busy.root), ("grpc-metadata-authorization", &busy.root), ("authorization", &bearer)]
    {
        let answer = busy.ask("POST /v3/kv/range", &[(name, token)], r#"{"key":"aw=="}"#).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{name}: {answer}");
    }
    let upgrade = async |name: &str, token: &str| {
        let headers = [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            (name, token),
        ];
        let answer = busy.ask("GET /v3/watch", &headers, "").await;
        answer.lines().next().unwrap().to_owned()
    };
    let switched = "HTTP/1.1 101 Switching Protocols";
    assert_eq!(upgrade("sec-websocket-protocol", &format!("Bearer, {}", busy.root)).await, switched);
    assert_eq!(upgrade("cookie", &format!("token={}", busy.root)).await, switched);
    // The gateway doesn't go by this one.
    assert_eq!(upgrade("token", &busy.root).await, "HTTP/1.1 400 Bad Request");
}

// Cause: a browser asks whether it may before it asks, and says nothing of who it is; and what was refused named no origin.
// Symptom: while there were many requests, pages that had logged in were shut out, and couldn't read why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_may_ask_whether_it_may() {
    let busy = Busy::start().await;
    let origin = ("origin", "http://a.b");
    let answer = busy.ask("OPTIONS /v3/kv/range", &[origin], "").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let refused = busy.ask("POST /v3/kv/range", &[origin, ("authorization", "x.1")], r#"{"key":"aw=="}"#).await;
    assert!(refused.starts_with("HTTP/1.1 401 "), "{refused}");
    assert!(refused.contains("access-control-allow-origin: *"), "{refused}");
}
