//! What a client gives up is looked back at as what has ended otherwise.
//!
//! Cause: only a call that had an answer came to the slow log and to the traces. Symptom: a put that hung on a slow disk until
//! its client went away left no line, where etcd has one.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusd::types::Limits;
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use tracing_subscriber::fmt::MakeWriter;

use crate::server::Server;

/// The log of this process.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_its_client_gives_up_is_in_the_slow_log() {
    let lines = Lines::default();
    let log =
        tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_ansi(false).with_writer(lines.clone());
    log.init();
    let server = Server::with_limits(Limits::default());
    server.member.front.mute.store(true, Ordering::Relaxed);
    let mut kv = KvClient::new(server.connect().await);
    let put = pb::PutRequest { key: "given-up".into(), ..Default::default() };
    let call = tokio::spawn(async move { kv.put(put).await });
    // The time that makes it slow begins when it is there.
    let begun = r#"grpc_server_started_total{grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1"#;
    let is_there = async {
        while !(server.services.metrics_text)().lines().any(|line| line == begun) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), is_there).await.expect("it comes");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!call.is_finished());
    call.abort();
    let said = async {
        loop {
            let log = String::from_utf8_lossy(&lines.0.lock().unwrap()).into_owned();
            if let Some(line) = log.lines().find(|line| line.contains("given-up")) {
                return line.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let line = tokio::time::timeout(Duration::from_secs(60), said).await.expect("a line");
    for part in ["request stats", "Cancelled", "unfinished", "/etcdserverpb.KV/Put"] {
        assert!(line.contains(part), "{line}");
    }
    assert_eq!(line.matches("given-up").count(), 1);
}
