//! Traces as a collector gets them, of the real etcd and of rusd: a request's span has the same name, attributes and
//! parent; rusd's stages are below it.
//!
//! ```text
//! put, range with a traceparent ─► etcd, rusd ─► OTLP over gRPC ─► the collector in this test
//! ```

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use rusd_proto::etcdserverpb as pb;
use rusd_proto::etcdserverpb::kv_client::KvClient;
use tonic::{Request, Response, Status};

use crate::server::{Kind, Server};

/// The spans that came.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ResourceSpans>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().extend(request.into_inner().resource_spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Serves; where.
    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let service = TraceServiceServer::new(self.clone());
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        address
    }

    fn spans(&self) -> Vec<Span> {
        let all = self.0.lock().unwrap();
        all.iter().flat_map(|one| &one.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
    }

    /// The span of a request with this parent, once it has come.
    async fn span(&self, name: &str, parent: [u8; 8]) -> Span {
        let begun = Instant::now();
        loop {
            let spans = self.spans();
            if let Some(span) = spans.iter().find(|span| span.name == name && span.parent_span_id == parent) {
                return span.clone();
            }
            let names: Vec<_> = spans.iter().map(|span| (&span.name, &span.parent_span_id)).collect();
            assert!(begun.elapsed() < Duration::from_secs(30), "{name} never came: {names:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => Some(format!("{other:?}")),
    }
}

/// A request that belongs to a trace.
fn traced<T>(message: T, parent: u8) -> Request<T> {
    let mut request = Request::new(message);
    let header = format!("00-{:032x}-{:016x}-01", 0xABCD, u64::from(parent));
    request.metadata_mut().insert("traceparent", header.parse().unwrap());
    request
}

const SERVICE: &str = "etcdserverpb.KV";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_come_to_the_collector_as_etcds_do() {
    for kind in [Kind::Rusd, Kind::Etcd] {
        let collector = Collector::default();
        let address = collector.start().await;
        // Nothing is sampled but what comes with a trace that is.
        let flags = [
            "--enable-distributed-tracing=true".to_owned(),
            format!("--distributed-tracing-address={address}"),
            "--distributed-tracing-service-name=the-service".to_owned(),
            "--distributed-tracing-instance-id=the-instance".to_owned(),
        ];
        let Some(server) = Server::start(kind, &flags, "traces").await else { continue };
        let mut kv = KvClient::new(server.connect().await);
        let put = |key: &str| pb::PutRequest { key: key.to_owned().into(), value: "v".into(), ..Default::default() };
        let range = |revision| pb::RangeRequest { key: "a".into(), revision, ..Default::default() };
        kv.put(put("not traced")).await.unwrap();
        kv.put(traced(put("a"), 1)).await.unwrap();
        kv.range(traced(range(0), 2)).await.unwrap();
        kv.range(traced(range(99), 3)).await.unwrap_err();
        for (parent, method, code) in [(1, "Put", "OK"), (2, "Range", "OK"), (3, "Range", "OUT_OF_RANGE")] {
            let span = collector.span(&format!("{SERVICE}/{method}"), [0, 0, 0, 0, 0, 0, 0, parent]).await;
            assert_eq!(span.trace_id[14..], [0xAB, 0xCD], "{kind:?}: {span:?}");
            assert_eq!(span.kind, 2, "{kind:?}: a server's: {span:?}");
            let attribute = |key| text(&span.attributes, key);
            assert_eq!(attribute("rpc.system.name").as_deref(), Some("grpc"), "{kind:?}: {span:?}");
            assert_eq!(attribute("rpc.method"), Some(format!("{SERVICE}/{method}")), "{kind:?}: {span:?}");
            assert_eq!(attribute("rpc.response.status_code").as_deref(), Some(code), "{kind:?}: {span:?}");
            assert!(span.end_time_unix_nano > span.start_time_unix_nano, "{kind:?}: {span:?}");
            if kind == Kind::Rusd && method == "Put" {
                below(&collector, &span);
            }
        }
        assert!(collector.spans().iter().all(|span| span.trace_id[14..] == [0xAB, 0xCD]), "{kind:?}: not asked for");
        let all = collector.0.lock().unwrap();
        let resource = &all.first().and_then(|one| one.resource.clone()).unwrap().attributes;
        assert_eq!(text(resource, "service.name").as_deref(), Some("the-service"), "{kind:?}");
        assert_eq!(text(resource, "service.instance.id").as_deref(), Some("the-instance"), "{kind:?}");
    }
}

/// A put's stages lie within it, one after the other.
fn below(collector: &Collector, put: &Span) {
    let mut stages: Vec<Span> = collector.spans();
    stages.retain(|span| span.parent_span_id == put.span_id);
    stages.sort_by_key(|span| span.start_time_unix_nano);
    assert!(stages.iter().any(|span| span.name == "fsync"), "it waits for its log at least: {stages:?}");
    for stage in &stages {
        // The wall clock is looked at once, at the end, and stages are counted in whole microseconds.
        assert!(stage.start_time_unix_nano >= put.start_time_unix_nano, "{stage:?} in {put:?}");
        assert!(stage.end_time_unix_nano <= put.end_time_unix_nano + 10_000, "{stage:?} in {put:?}");
    }
}

/// Every request is sampled and nobody takes the spans: one line, and the requests are answered as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_not_there_is_said_once() {
    let flags = [
        "--enable-distributed-tracing=true".to_owned(),
        "--distributed-tracing-address=127.0.0.1:1".to_owned(),
        "--distributed-tracing-sampling-rate=1000000".to_owned(),
    ];
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let flags: Vec<_> = flags.into_iter().chain([format!("--log-outputs={}", log.display())]).collect();
    let server = Server::start(Kind::Rusd, &flags, "traces").await.expect("our own is always there");
    let mut kv = KvClient::new(server.connect().await);
    let log = || std::fs::read_to_string(&log).unwrap();
    let said = || log().lines().filter(|line| line.contains("traces can't be delivered")).count();
    let begun = Instant::now();
    // Several batches, of which each fails.
    while said() == 0 || begun.elapsed() < Duration::from_secs(4) {
        for _ in 0..100 {
            kv.put(pb::PutRequest { key: "k".into(), ..Default::default() }).await.unwrap();
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing was said");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(said(), 1, "{}", log());
}
