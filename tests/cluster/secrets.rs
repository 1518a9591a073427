//! Nothing secret in the data directories, in the logs, on standard output, on the pages or in the spans of three members:
//! looked for byte by byte. The engine is the one that doesn't compress.
//!
//! ```text
//! root by `rusd pod users` ─► users, logins over gRPC and JSON, good and bad, at a follower ─► slow log of every call, http2debug
//!   ─► one heap: files, logs, pages, spans ─► what is meant to be there is found, passwords, tokens and keys aren't
//! ```

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use rusd_proto::etcdserverpb::auth_client::AuthClient;
use rusd_proto::etcdserverpb::{AuthUserChangePasswordRequest, SnapshotRequest, maintenance_client::MaintenanceClient};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Request, Response, Status};

use crate::cluster::{Cluster, until};
use crate::users::{add_user, get, login, put, with};

const ROOT: &str = "the-first-password";
const USER: &str = "the-second-password";
const WRONG: &str = "the-wrong-password";
const CHANGED: &str = "changed-password";

/// All that was said to it, as text.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<String>>);

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().expect("no panic").push_str(&format!("{request:?}"));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_and_tokens_are_nowhere() {
    search("simple", &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_tokens_and_their_keys_are_nowhere() {
    let key = |name: &str| format!("{}/tests/keys/{name}", env!("CARGO_MANIFEST_DIR"));
    let (public, private) = (key("rsa.pub.pem"), key("rsa.key.pem"));
    let token = format!("jwt,pub-key={public},priv-key={private},sign-method=RS256,ttl=10m");
    // A line of the key in the middle, as whoever dumped it would show it.
    let key = fs::read_to_string(&private).expect("the key of the tests");
    let line = key.lines().nth(5).expect("several lines").to_owned();
    assert!(line.len() > 50);
    search(&token, &[line]).await;
}

async fn search(token: &str, more: &[String]) {
    let spans = Spans::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let collector = listener.local_addr().expect("a port");
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let service = TraceServiceServer::new(spans.clone());
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    let (token, tracing) = (format!("--auth-token={token}"), format!("--distributed-tracing-address={collector}"));
    let flags = [
        token.as_str(),
        "--bcrypt-cost=4",
        "--log-level=debug",
        "--snapshot-count=10",
        "--backend=redb",
        "--warning-unary-request-duration=1ns",
        "--warning-apply-duration=1ns",
        "--enable-distributed-tracing=true",
        tracing.as_str(),
        "--distributed-tracing-sampling-rate=1000000",
    ];
    let mut cluster = Cluster::start_in(3, &flags, &[("GODEBUG", "http2debug=2")]).await;
    let (leader, _) = cluster.leader().await;
    let follower = &cluster.members[(leader + 1) % 3];
    let mut heap = Vec::new();

    // As a chart's job does it, whose log is looked at, too.
    let set_up = Command::new(env!("CARGO_BIN_EXE_rusd"))
        .args(["pod", "users", &format!("--endpoints={}", follower.client)])
        .envs([("ETCDCTL_USER", "root"), ("ETCDCTL_PASSWORD", ROOT)])
        .output()
        .expect("rusd starts");
    assert!(set_up.status.success(), "{set_up:?}");
    heap.extend([set_up.stdout, set_up.stderr].concat());

    let channel = follower.channel().await.expect("it serves");
    login(&channel, "root", WRONG).await.expect_err("the password is wrong");
    login(&channel, WRONG, "x").await.expect_err("some type it where the name belongs");
    let root = login(&channel, "root", ROOT).await.expect("root logs in");
    add_user(&channel, Some(&root), "u", USER).await.expect("a user is added");
    // A change of users ends signed tokens.
    let root = login(&channel, "root", ROOT).await.expect("root logs in");
    let change = AuthUserChangePasswordRequest { name: "u".into(), password: CHANGED.into(), ..Default::default() };
    AuthClient::new(channel.clone()).user_change_password(with(Some(&root), change)).await.expect("it is changed");
    let user = login(&channel, "u", CHANGED).await.expect("the user logs in");
    get(&channel, Some(&user), "a").await.expect_err("it may read nothing");
    let root = login(&channel, "root", ROOT).await.expect("root logs in");
    for at in 0..50 {
        let key = format!("marker-{at}");
        until("root writes", || put(&channel, Some(&root), &key, "v")).await;
    }
    // By the other door.
    for (name, password, code) in [("root", WRONG, 400), ("u", CHANGED, 200), (WRONG, "x", 400)] {
        let body = format!(r#"{{"name":"{name}","password":"{password}"}}"#);
        let (status, _) = http(&follower.client, "POST /v3/auth/authenticate", "", &body).await;
        assert_eq!(status, code, "{name}");
    }
    let body = format!(r#"{{"name":"w","password":"{USER}"}}"#);
    assert_eq!(http(&follower.client, "POST /v3/auth/user/add", &root, &body).await.0, 200);
    let root = login(&channel, "root", ROOT).await.expect("root logs in");
    assert_eq!(http(&follower.client, "POST /v3/kv/range", &root, r#"{"key":"bWFya2VyLTE="}"#).await.0, 200);

    let mut snapshot = MaintenanceClient::new(channel)
        .snapshot(with(Some(&root), SnapshotRequest {}))
        .await
        .expect("a snapshot is taken")
        .into_inner();
    while let Some(part) = snapshot.message().await.expect("it comes whole") {
        heap.extend_from_slice(&part.blob);
    }
    assert!(contains(&heap, b"$2a$04$"), "hashes are in a backup: it has to restore them");
    for member in &cluster.members {
        for path in ["/metrics", "/debug/vars", "/version", "/health", "/readyz?verbose"] {
            heap.extend_from_slice(http(&member.client, &format!("GET {path}"), "", "").await.1.as_bytes());
        }
        heap.extend_from_slice(http(&member.peer, "GET /members", "", "").await.1.as_bytes());
    }
    until("spans", || async {
        let seen = spans.0.lock().expect("no panic").contains("Authenticate");
        if seen { Ok(()) } else { Err("no login yet") }
    })
    .await;
    heap.extend_from_slice(spans.0.lock().expect("no panic").as_bytes());
    for member in &mut cluster.members {
        member.kill();
        let mut own = Vec::new();
        collect(member.dir(), &mut own);
        // The log of the calls, and the log of entries.
        for found in ["marker-49", "$2a$04$"] {
            assert!(contains(&own, found.as_bytes()), "what is there is found: {found} at {}", member.name);
        }
        heap.extend(own);
    }
    for found in ["http2: decoded hpack", "apply request took too long", "cmdline", "slowest", "Authenticate"] {
        assert!(contains(&heap, found.as_bytes()), "what is there is found: {found}");
    }
    // Of a signed token the signature is what nobody can make; of a simple one the letters before its entry.
    let secret_of = |token: &str| {
        let parts: Vec<_> = token.split('.').collect();
        if let [_, _, signature] = parts[..] { signature.to_owned() } else { parts[0].to_owned() }
    };
    let passwords = [ROOT, USER, WRONG, CHANGED].map(str::to_owned);
    for secret in passwords.into_iter().chain([secret_of(&root), secret_of(&user)]).chain(more.iter().cloned()) {
        assert!(!contains(&heap, secret.as_bytes()), "{secret} can be read");
    }
}

/// Nobody but the owner may read what a member makes, whoever makes it: engines open their files by themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_their_owners_alone() {
    for engine in ["sled", "redb"] {
        let backend = format!("--backend={engine}");
        let mut cluster = Cluster::start(1, &[backend.as_str(), "--snapshot-count=10"]).await;
        let member = &mut cluster.members[0];
        for at in 0..50 {
            let key = format!("k{at}");
            until("it writes", || member.put(&key, "v")).await;
        }
        member.kill();
        let mut seen = 0;
        walk(&member.dir().join("data"), &mut |path, mode| {
            assert_eq!(mode & 0o077, 0, "{engine}: {}: {mode:o}", path.display());
            seen += 1;
        });
        assert!(seen > 5, "{engine}: only {seen} files");
    }
}

/// Status and the whole answer.
pub(crate) async fn http(url: &str, request: &str, token: &str, body: &str) -> (u16, String) {
    let address = url.split_once("://").expect("a URL").1;
    let mut socket = tokio::net::TcpStream::connect(address).await.expect("it serves");
    let authorization = if token.is_empty() { String::new() } else { format!("Authorization: {token}\r\n") };
    let head = format!("{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{authorization}");
    let text = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    socket.write_all(text.as_bytes()).await.expect("a request is taken");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("an answer comes");
    (answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default(), answer)
}

/// Each file and directory below one, with its mode.
fn walk(dir: &Path, each: &mut impl FnMut(&Path, u32)) {
    for entry in fs::read_dir(dir).expect("it can be read").flatten() {
        let path = entry.path();
        let metadata = entry.metadata().expect("it is there");
        each(&path, metadata.permissions().mode());
        if metadata.is_dir() {
            walk(&path, each);
        }
    }
}

/// All files below a directory, one after the other.
fn collect(dir: &Path, into: &mut Vec<u8>) {
    walk(dir, &mut |path, _| {
        if path.is_file() {
            into.extend(fs::read(path).expect("a file can be read"));
        }
    });
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    // The first byte is looked for first: there are tens of megabytes.
    bytes.iter().enumerate().any(|(at, byte)| *byte == part[0] && bytes[at..].starts_with(part))
}
