//! The log of slow calls: one line with where the time went, and no more lines than a person reads.
//!
//! ```text
//! a unary call has ended ─► took longer than --warning-unary-request-duration, or a read than
//!                           --warning-apply-duration? ─► not too many lines lately? ─► its request, decoded again ─► line
//! ```
//! A call that isn't slow costs two comparisons. Keys are shown up to a length, values and passwords never.

use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use prometheus::IntCounter;
use prost::Message;
use rusd_proto::etcdserverpb as pb;
use time::OffsetDateTime;
use tonic::Code;

use super::grpc::body::ReplyBody;
use super::methods::Method;
use crate::ops::logging::{SLOW_APPLY, SLOW_REQUEST, Sparingly};
use crate::types::stages::{Stage, Stages};

/// Bytes of a key that are shown.
const KEY_MAX: usize = 128;

/// Keeps an eye on how long calls take.
#[derive(Debug)]
pub struct SlowLog {
    /// `--warning-unary-request-duration`
    call: Duration,
    /// `--warning-apply-duration`, which counts for reads here; writes are looked at where they are applied.
    read: Duration,
    /// `etcd_server_slow_apply_total`
    slow_reads: Option<IntCounter>,
    lines: Mutex<Sparingly>,
}

/// A unary call that has ended.
pub(crate) struct Ended<'a> {
    pub(crate) method: Method,
    pub(crate) code: Code,
    pub(crate) took: Duration,
    /// What it waited for; filled in if that is asked for.
    pub(crate) stages: Option<Stages>,
    /// The request as it came, where it is known.
    pub(crate) request: Option<&'a Bytes>,
    pub(crate) answer: Option<&'a ReplyBody>,
}

impl SlowLog {
    /// Logs calls that take longer than `call`, and reads that take longer than `read` once they may read;
    /// `slow_reads` counts the latter.
    pub fn new(call: Duration, read: Duration, slow_reads: IntCounter) -> Self {
        Self { slow_reads: Some(slow_reads), ..Self::within(call, read) }
    }

    /// Logs nothing.
    pub(crate) fn silent() -> Self {
        Self::within(Duration::MAX, Duration::MAX)
    }

    fn within(call: Duration, read: Duration) -> Self {
        Self { call, read, slow_reads: None, lines: Mutex::default() }
    }

    /// Whether a call has to be looked at.
    pub(crate) fn is_slow(&self, took: Duration) -> bool {
        took > self.call || took > self.read
    }

    /// Logs a call if it was slow.
    pub(crate) fn look(&self, now: Instant, begun: SystemTime, ended: &Ended<'_>) {
        let stages = ended.stages.unwrap_or_else(|| Stages::new(now));
        let own = ended.took.saturating_sub(stages.waited());
        // Of one that was given up, that is what it still waited for.
        let read = if is_unfinished(ended.code) { Duration::ZERO } else { own } + stages.took(Stage::Read);
        let slow_read = ended.method == Method::KvRange && read > self.read;
        if slow_read && let Some(slow_reads) = &self.slow_reads {
            slow_reads.inc();
        }
        let slow_call = ended.took > self.call;
        // Those are asked to wait.
        let is_patient = matches!(ended.method, Method::Lock | Method::Campaign);
        if is_patient || (!slow_read && !slow_call) {
            return;
        }
        let Some(unsaid) = self.lines.lock().say(now) else { return };
        let begun = OffsetDateTime::from(begun);
        self.line(ended, begun, &stages, own, unsaid);
    }

    fn line(&self, ended: &Ended<'_>, begun: OffsetDateTime, stages: &Stages, own: Duration, unsaid: u64) {
        let slow_call = ended.took > self.call;
        let (service, method, _) = ended.method.parts();
        let slowest = slowest(ended.code, stages, own);
        let mut times = String::new();
        for (stage, _, took) in stages.each() {
            // Writing to a String can't fail.
            let _ = write!(times, "{}: {took:?}, ", stage.name());
        }
        let _ = write!(times, "own: {own:?}");
        let expected = if slow_call { self.call } else { self.read };
        let request = ended.request.map_or_else(String::new, |request| shown(ended.method, request));
        let (count, size) = ended.answer.map_or((0, 0), |answer| (count(ended.method, answer), answer.message_len()));
        let said = if slow_call { SLOW_REQUEST } else { SLOW_APPLY };
        tracing::warn!(
            "start time" = %begun,
            "time spent" = ?ended.took,
            "expected-duration" = ?expected,
            "slowest stage" = slowest,
            stages = times,
            "response type" = %format_args!("/{service}/{method}"),
            code = ?ended.code,
            "request size" = ended.request.map_or(0, Bytes::len),
            "request content" = request,
            "response count" = count,
            "response size" = size,
            "not-logged-before" = unsaid,
            "{said}"
        );
    }
}

/// What took the most time.
fn slowest(code: Code, stages: &Stages, own: Duration) -> &'static str {
    let rest = if is_unfinished(code) { "unfinished" } else { "own" };
    let waits = stages.each().map(|(stage, _, took)| (took, stage.name()));
    waits.chain([(own, rest)]).max_by_key(|(took, _)| *took).map_or(rest, |(_, name)| name)
}

/// Whether a call was given up while it waited: for what isn't known, since what it waited for never came.
fn is_unfinished(code: Code) -> bool {
    matches!(code, Code::DeadlineExceeded | Code::Cancelled)
}

/// A request in words; nothing for those that hold a secret, or say nothing.
fn shown(method: Method, request: &Bytes) -> String {
    let decoded = match method {
        Method::KvRange => pb::RangeRequest::decode(request.clone()).map(|range| {
            let pb::RangeRequest { limit, revision, serializable, keys_only, count_only, .. } = range;
            let mut text = keys(&range.key, &range.range_end);
            let _ = write!(text, " limit:{limit} revision:{revision}");
            for (is_set, name) in [(serializable, "serializable"), (keys_only, "keys_only"), (count_only, "count_only")]
            {
                if is_set {
                    let _ = write!(text, " {name}:true");
                }
            }
            text
        }),
        Method::KvPut => pb::PutRequest::decode(request.clone())
            .map(|put| format!("{} value_size:{} lease:{}", keys(&put.key, &[]), put.value.len(), put.lease)),
        Method::KvDeleteRange => {
            pb::DeleteRangeRequest::decode(request.clone()).map(|delete| keys(&delete.key, &delete.range_end))
        }
        Method::KvTxn => pb::TxnRequest::decode(request.clone()).map(|txn| {
            let first = txn.success.iter().chain(&txn.failure).find_map(|op| match op.request.as_ref()? {
                pb::request_op::Request::RequestRange(range) => Some(keys(&range.key, &range.range_end)),
                pb::request_op::Request::RequestPut(put) => Some(keys(&put.key, &[])),
                pb::request_op::Request::RequestDeleteRange(delete) => Some(keys(&delete.key, &delete.range_end)),
                pb::request_op::Request::RequestTxn(_) => None,
            });
            let (compares, success, failure) = (txn.compare.len(), txn.success.len(), txn.failure.len());
            format!("compare:{compares} success:{success} failure:{failure} first:<{}>", first.unwrap_or_default())
        }),
        Method::KvCompact => pb::CompactionRequest::decode(request.clone())
            .map(|compact| format!("revision:{} physical:{}", compact.revision, compact.physical)),
        Method::LeaseGrant => {
            pb::LeaseGrantRequest::decode(request.clone()).map(|grant| format!("id:{} ttl:{}", grant.id, grant.ttl))
        }
        Method::LeaseRevoke => {
            pb::LeaseRevokeRequest::decode(request.clone()).map(|revoke| format!("id:{}", revoke.id))
        }
        Method::LeaseTimeToLive => {
            pb::LeaseTimeToLiveRequest::decode(request.clone()).map(|left| format!("id:{} keys:{}", left.id, left.keys))
        }
        _ => Ok(String::new()),
    };
    decoded.unwrap_or_default()
}

fn keys(key: &[u8], end: &[u8]) -> String {
    let mut text = format!("key:\"{}\"", bounded(key));
    if !end.is_empty() {
        let _ = write!(text, " range_end:\"{}\"", bounded(end));
    }
    text
}

fn bounded(key: &[u8]) -> String {
    let mut text = key[..key.len().min(KEY_MAX)].escape_ascii().to_string();
    if key.len() > KEY_MAX {
        let _ = write!(text, "… of {} bytes", key.len());
    }
    text
}

/// How many things an answer holds.
fn count(method: Method, answer: &ReplyBody) -> usize {
    let message = match answer.content() {
        Ok(message) => message,
        Err(pairs) => return pairs,
    };
    match method {
        Method::KvRange => pb::RangeResponse::decode(message).map_or(0, |range| range.kvs.len()),
        Method::KvTxn => pb::TxnResponse::decode(message).map_or(0, |txn| txn.responses.len()),
        Method::KvDeleteRange => {
            pb::DeleteRangeResponse::decode(message).map_or(0, |delete| usize::try_from(delete.deleted).unwrap_or(0))
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{Clock as _, ManualClock};

    #[test]
    fn a_request_is_shown_without_its_values_and_secrets() {
        let put = pb::PutRequest { key: vec![b'k'; 200].into(), value: "secret".into(), ..Default::default() };
        let text = shown(Method::KvPut, &put.encode_to_vec().into());
        assert!(text.contains("of 200 bytes") && text.contains("value_size:6") && !text.contains("secret"), "{text}");
        assert!(text.len() < 300);
        let login = pb::AuthenticateRequest { name: "root".into(), password: "secret".into() };
        assert_eq!(shown(Method::Authenticate, &login.encode_to_vec().into()), "");
        let range = pb::RangeRequest { key: "a\n".into(), range_end: "b".into(), limit: 5, ..Default::default() };
        let text = shown(Method::KvRange, &range.encode_to_vec().into());
        assert_eq!(text, "key:\"a\\n\" range_end:\"b\" limit:5 revision:0");
        assert_eq!(shown(Method::KvPut, &Bytes::from_static(&[0xff])), "", "what can't be read is left out");
    }

    #[test]
    fn what_took_the_most_is_named() {
        let clock = ManualClock::new();
        let begun = clock.now();
        let mut stages = Stages::new(begun);
        let at = |ms| begun + Duration::from_millis(ms);
        stages.note(Stage::Queue, at(0), at(10));
        stages.note(Stage::Fsync, at(10), at(400));
        assert_eq!(slowest(Code::Ok, &stages, Duration::from_millis(50)), "fsync");
        assert_eq!(slowest(Code::Ok, &stages, Duration::from_secs(1)), "own");
        for code in [Code::DeadlineExceeded, Code::Cancelled] {
            assert_eq!(slowest(code, &stages, Duration::from_secs(1)), "unfinished");
        }
    }

    #[test]
    fn what_was_given_up_was_no_slow_read() {
        let clock = ManualClock::new();
        let slow_reads = IntCounter::new("slow", "slow").expect("a name");
        let log = SlowLog::new(Duration::MAX, Duration::from_millis(100), slow_reads.clone());
        for (code, counted) in [(Code::Cancelled, 0), (Code::DeadlineExceeded, 0), (Code::Ok, 1)] {
            let ended = Ended {
                method: Method::KvRange,
                code,
                took: Duration::from_secs(5),
                stages: None,
                request: None,
                answer: None,
            };
            log.look(clock.now(), SystemTime::UNIX_EPOCH, &ended);
            assert_eq!(slow_reads.get(), counted, "{code:?}");
        }
    }
}
