//! Calls whose message comes only after authentication was turned on, on a real etcd and on rusd.
//!
//! A client decides when its message comes: a call that was let in before must be looked at when it has come.

use bytes::Bytes;
use futures::StreamExt;
use prost_reflect::DescriptorPool;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Duration, sleep, timeout};
use tonic::{Code, Status};

use crate::needs::{self, Need};
use crate::server::{self, Server};
use crate::users::{add_user, enable, grant_role};
use crate::wire::{CallOptions, Wire, parse, path_of};

/// Until the calls' headers have come to etcd, which counts a call only when its message has.
const HEADERS_MAX: Duration = Duration::from_secs(2);
const ANSWER_MAX: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_late_is_looked_at_when_it_comes() {
    for kind in [server::Kind::Etcd, server::Kind::Rusd] {
        let Some(server) = Server::start(kind, &["--bcrypt-cost=4".to_owned()], "late messages").await else {
            continue;
        };
        let channel = server.connect().await;
        add_user(&channel, None, "root", "pw").await.expect("root is added");
        grant_role(&channel, None, "root", "root").await.expect("root gets its role");
        let (go, gate) = watch::channel(false);
        let pool = DescriptorPool::decode(rusd_proto::FILE_DESCRIPTOR_SET).expect("our own descriptors");
        let methods = pool.services().filter(|service| !service.full_name().starts_with("rusd"));
        let begun = begun_calls(&server).await;
        let mut calls = Vec::new();
        for method in methods.flat_map(|service| service.methods().collect::<Vec<_>>()) {
            let name = format!("{}.{}", method.parent_service().name(), method.name());
            let Some((text, need)) = needs::of(&name).first() else { continue };
            // What is needed of nobody, and what looks at each message of a stream by itself.
            if matches!(need, Need::Nothing | Need::GoodTokenIfAny) || method.is_client_streaming() {
                continue;
            }
            let message = parse(method.input(), &text.replace('\'', "\"")).expect("a message");
            let (path, wire, gate) = (path_of(&method), Wire::new(channel.clone()), gate.clone());
            calls.push((name, tokio::spawn(async move { call(&wire, &path, message, gate).await })));
        }
        assert!(calls.len() > 40, "only {} calls", calls.len());
        match kind {
            server::Kind::Etcd => sleep(HEADERS_MAX).await,
            server::Kind::Rusd => all_begun(&server, begun + calls.len()).await,
        }
        enable(&channel).await.expect("authentication is turned on");
        go.send_replace(true);
        for (name, call) in calls {
            let answer = call.await.expect("no panic");
            // etcd ends this stream without a word to who may not see it.
            if kind == server::Kind::Etcd && name == "Election.Observe" {
                continue;
            }
            let refused = answer.expect_err(&format!("{name} was let in on {kind:?}"));
            assert_eq!(refused.message(), "etcdserver: user name is empty", "{name} on {kind:?}");
        }
    }
}

/// Calls that were begun, by the page of metrics.
async fn begun_calls(server: &Server) -> usize {
    let [url, _] = server.urls();
    let mut socket = TcpStream::connect(url.trim_start_matches("http://")).await.expect("it listens");
    socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.expect("it takes it");
    let mut page = String::new();
    socket.read_to_string(&mut page).await.expect("a page");
    let lines = page.lines().filter(|line| line.starts_with("grpc_server_started_total"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
}

/// Waits until as many calls were begun: what comes after authentication is on would be refused all the same.
async fn all_begun(server: &Server, calls: usize) {
    let begun = async {
        while begun_calls(server).await < calls {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(ANSWER_MAX, begun).await.expect("all calls have come");
}

/// Sends the headers at once, and the message when the gate opens.
async fn call(wire: &Wire, path: &str, message: Bytes, mut gate: watch::Receiver<bool>) -> Result<(), Status> {
    let messages = futures::stream::once(async move {
        let _ = gate.wait_for(|open| *open).await;
        message
    });
    let answer = async {
        let mut answers = wire.streaming(path, messages, &CallOptions::default()).await?;
        answers.next().await.transpose().map(drop)
    };
    timeout(ANSWER_MAX, answer).await.unwrap_or_else(|_| Err(Status::new(Code::DeadlineExceeded, "no answer")))
}

/// A message that never comes doesn't hold its call for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_comes_ends() {
    let flags = ["--request-arrival-timeout=300ms".to_owned()];
    let server = Server::start(server::Kind::Rusd, &flags, "late messages").await.expect("our own server");
    let (_go, gate) = watch::channel(false);
    let wire = Wire::new(server.connect().await);
    let refused = call(&wire, "/etcdserverpb.Maintenance/Status", Bytes::new(), gate).await.expect_err("it never came");
    assert_eq!(refused.code(), Code::DeadlineExceeded);
    assert!(refused.message().contains("did not come"), "{refused}");
}
