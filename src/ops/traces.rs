//! Traces by OpenTelemetry: calls and the stages they waited in, as spans.
//!
//! ```text
//! a call that has ended ─► sampled? ─► its span, one for each stage ─► bounded queue ─► a thread ─► OTLP collector
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
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, SpanData, SpanExporter,
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
const MILLION: f64 = 1e6;

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
        // Who comes with a trace has decided already.
        let rate = match tracing.sampling_rate {
            0 => Sampler::AlwaysOff,
            rate => Sampler::TraceIdRatioBased(f64::from(rate) / MILLION),
        };
        let mut resource = vec![
            KeyValue::new("service.name", tracing.service_name.clone()),
            KeyValue::new("service.version", version),
        ];
        if !tracing.instance_id.is_empty() {
            resource.push(KeyValue::new("service.instance.id", tracing.instance_id.clone()));
        }
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_sampler(Sampler::ParentBased(Box::new(rate)))
            .with_resource(Resource::builder_empty().with_attributes(resource).build())
            .build();
        Ok(Some(Self { tracer: provider.tracer("rusd"), provider }))
    }

    /// Makes the spans of a call, if it is sampled. Never blocks.
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
        if !span.is_recording() {
            return;
        }
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
