//! Traces by OpenTelemetry: calls and the stages they waited in, as spans.
//!
//! ```text
//! a call that has ended ─► wanted? ─► its span, one for each stage ─► bounded queue ─► a thread ─► OTLP collector
//! ```
//! Spans are made when a call is over, of times that were noted anyway: a call knows nothing of it, and where traces
//! are off nothing is done at all. A full queue drops spans; a collector that isn't there is said once.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter as Otlp, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, IdGenerator as _, RandomIdGenerator, Sampler, SdkTracer, SdkTracerProvider,
    SpanData, SpanExporter,
};

use super::config::Tracing;

/// Spans that wait for the collector; further ones are dropped.
const QUEUE_MAX: usize = 4_096;
/// Spans that are sent together.
const BATCH_MAX: usize = 512;
/// How long spans wait for others to be sent with them.
const DELAY: Duration = Duration::from_secs(1);
/// How long the collector may take.
const EXPORT_MAX: Duration = Duration::from_secs(5);
/// How long the end of the server waits for what is queued.
const END_MAX: Duration = Duration::from_secs(2);
/// `--distributed-tracing-sampling-rate` is of so many.
const MILLION: u64 = 1_000_000;

/// gRPC's codes as traces have them, by number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Codes of gRPC for which the server is to blame.
const SERVER_FAULTS: [i32; 6] = [2, 4, 12, 13, 14, 15];

/// A call that has ended.
#[derive(Debug)]
pub struct TracedCall<'a, S> {
    /// The gRPC service.
    pub service: &'static str,
    /// Its method.
    pub method: &'static str,
    /// The number of the code it ended with.
    pub code: i32,
    /// The request's `traceparent` (W3C).
    pub parent: Option<&'a str>,
    /// The request's `tracestate`.
    pub state: Option<&'a str>,
    /// When it began.
    pub begun: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// The stages it waited in: name, begin since the call's, length.
    pub stages: S,
}

/// Where calls are traced to. Cheap to clone.
#[derive(Clone)]
pub struct Traces {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
    /// Of [`MILLION`] calls that come without a trace.
    rate: u64,
}

/// Why traces can't be made.
#[derive(Debug, thiserror::Error)]
#[error("--distributed-tracing-address: {0}")]
pub struct TracesError(String);

impl Traces {
    /// Begins to trace if the flags say so; `version` is the program's. To be called on a runtime, which the
    /// connection to the collector lives on.
    ///
    /// # Errors
    /// An address that is none. That nobody is there is no error.
    pub fn start(tracing: &Tracing, version: &'static str) -> Result<Option<Self>, TracesError> {
        if !tracing.enabled {
            return Ok(None);
        }
        let address = &tracing.address;
        let endpoint = if address.contains("://") { address.clone() } else { format!("http://{address}") };
        let exporter = Otlp::builder().with_tonic().with_endpoint(&endpoint).with_timeout(EXPORT_MAX).build();
        let exporter = exporter.map_err(|error| TracesError(error.to_string()))?;
        let exporter = Told { exporter, endpoint, failing: AtomicBool::new(false) };
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_MAX)
            .with_max_export_batch_size(BATCH_MAX)
            .with_scheduled_delay(DELAY)
            .build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
        let mut resource = vec![
            KeyValue::new("service.name", tracing.service_name.clone()),
            KeyValue::new("service.version", version),
        ];
        if !tracing.instance_id.is_empty() {
            resource.push(KeyValue::new("service.instance.id", tracing.instance_id.clone()));
        }
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            // Whether a call is traced was decided before its spans are made.
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(Resource::builder_empty().with_attributes(resource).build())
            .build();
        Ok(Some(Self { tracer: provider.tracer("rusd"), provider, rate: tracing.sampling_rate.into() }))
    }

    /// Whether a call with this `traceparent` is to be recorded: who comes with a trace has decided already, of the
    /// others it is as many as the flag says. Nothing is made for one that isn't.
    pub fn wants(&self, parent: Option<&str>) -> bool {
        match parent.and_then(is_sampled) {
            Some(is_sampled) => is_sampled,
            None if self.rate == 0 => false,
            None => u64::from_be_bytes(RandomIdGenerator::default().new_span_id().to_bytes()) % MILLION < self.rate,
        }
    }

    /// Makes the spans of a call that is wanted. Never blocks.
    pub fn record<S>(&self, call: TracedCall<'_, S>)
    where
        S: Iterator<Item = (&'static str, Duration, Duration)>,
    {
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &Carried(&call));
        let status = if SERVER_FAULTS.contains(&call.code) { Status::error("") } else { Status::Unset };
        let method = format!("{}/{}", call.service, call.method);
        let code = usize::try_from(call.code).ok().and_then(|code| CODES.get(code)).copied().unwrap_or("UNKNOWN");
        let builder = SpanBuilder::from_name(method.clone())
            .with_kind(SpanKind::Server)
            .with_start_time(call.begun)
            .with_attributes([
                KeyValue::new("rpc.system.name", "grpc"),
                KeyValue::new("rpc.method", method),
                KeyValue::new("rpc.response.status_code", code),
            ]);
        let mut span = self.tracer.build_with_context(builder, &parent);
        span.set_status(status);
        let within = Context::new().with_remote_span_context(span.span_context().clone());
        for (name, from, took) in call.stages {
            let begun = call.begun + from;
            let builder = SpanBuilder::from_name(Cow::Borrowed(name)).with_kind(SpanKind::Internal);
            let mut stage = self.tracer.build_with_context(builder.with_start_time(begun), &within);
            stage.end_with_timestamp(begun + took);
        }
        span.end_with_timestamp(call.begun + call.took);
    }

    /// Sends what is queued, in bearable time. Blocks.
    pub fn end(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(END_MAX) {
            tracing::debug!(%error, "the last traces were not delivered");
        }
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Traces")
    }
}

/// Whether the trace that a `traceparent` (W3C) names is sampled; `None` if it names none.
fn is_sampled(parent: &str) -> Option<bool> {
    let mut parts = parent.trim().split('-');
    let mut next = |len: usize| {
        let part = parts.next().filter(|part| part.len() == len)?;
        part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).then_some(part)
    };
    let (version, trace, span, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
    // Later versions may say more behind it.
    let is_known = version != "ff" && (version != "00" || parts.next().is_none());
    let is_one = |id: &str| id.bytes().any(|byte| byte != b'0');
    let flags = u8::from_str_radix(flags, 16).ok()?;
    (is_known && is_one(trace) && is_one(span)).then_some(flags & 1 == 1)
}

/// What a request carries of the trace that it belongs to.
struct Carried<'a, 'b, S>(&'a TracedCall<'b, S>);

impl<S> Extractor for Carried<'_, '_, S> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => self.0.parent,
            "tracestate" => self.0.state,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

/// The exporter, which says when it begins to fail, and when that is over.
#[derive(Debug)]
struct Told {
    exporter: Otlp,
    endpoint: String,
    failing: AtomicBool,
}

impl SpanExporter for Told {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.exporter.export(batch).await;
        match (&result, self.failing.swap(result.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => tracing::warn!(
                collector = self.endpoint,
                %error,
                "traces can't be delivered and are dropped until they can"
            ),
            (Ok(()), true) => tracing::info!(collector = self.endpoint, "traces are delivered again"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    #[test]
    fn a_trace_says_whether_it_is_sampled_and_what_is_none_says_nothing() {
        let is = |text: &str| is_sampled(&text.replace('T', TRACE));
        for sampled in ["00-T-b7ad6b7169203331-01", " 00-T-b7ad6b7169203331-ff ", "01-T-b7ad6b7169203331-03-more"] {
            assert_eq!(is(sampled), Some(true), "{sampled}");
        }
        for unsampled in ["00-T-b7ad6b7169203331-00", "00-T-b7ad6b7169203331-fe", "cc-T-b7ad6b7169203331-02"] {
            assert_eq!(is(unsampled), Some(false), "{unsampled}");
        }
        for none in [
            "",
            "-",
            "00-T-b7ad6b7169203331",
            "00-T-b7ad6b7169203331-",
            "00-T-b7ad6b7169203331-1",
            "00-T-b7ad6b7169203331-0g",
            "00-T-b7ad6b7169203331-0\u{e9}",
            "00-T-B7AD6B7169203331-01",
            "00-T-b7ad6b7169203331-01-more",
            "ff-T-b7ad6b7169203331-01",
            "00-T-0000000000000000-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-T1-b7ad6b7169203331-01",
        ] {
            assert_eq!(is(none), None, "{none}");
        }
    }

    #[tokio::test]
    async fn who_comes_with_a_trace_has_decided_and_of_the_others_so_many_are_recorded() {
        let (sampled, unsampled) =
            (format!("00-{TRACE}-b7ad6b7169203331-01"), format!("00-{TRACE}-b7ad6b7169203331-00"));
        for (sampling_rate, from, to) in [(0, 0, 0), (250_000, 2_000, 3_000), (1_000_000, 10_000, 10_000)] {
            let address = "127.0.0.1:1".to_owned();
            let tracing = Tracing { enabled: true, address, sampling_rate, ..Tracing::default() };
            let traces = Traces::start(&tracing, "0").unwrap().expect("it is on");
            assert!(traces.wants(Some(&sampled)) && !traces.wants(Some(&unsampled)), "{sampling_rate}");
            for parent in [None, Some("junk")] {
                let wanted = (0..10_000).filter(|_| traces.wants(parent)).count();
                assert!((from..=to).contains(&wanted), "{wanted} at {sampling_rate}");
            }
        }
    }
}
