//! Counting a call from its start to its end, however it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::Frame;
use tonic::Code;

use super::frame::HEAD_LEN;
use crate::api::methods::Method;
use crate::api::metrics::RpcMetrics;

/// A call under way. Dropped without [`CallGuard::finish`], it was cancelled by its client.
pub(crate) struct CallGuard {
    metrics: Arc<RpcMetrics>,
    method: Method,
    begun: Instant,
    code: Option<Code>,
    /// It was counted already.
    ended: bool,
    counter: MessageCounter,
}

impl CallGuard {
    /// Counts a call as started.
    pub(crate) fn start(metrics: &Arc<RpcMetrics>, method: Method) -> Self {
        metrics.of(method).started.inc();
        Self {
            metrics: metrics.clone(),
            method,
            begun: metrics.now(),
            code: None,
            ended: false,
            counter: MessageCounter::default(),
        }
    }

    /// Counts a message of `len` bytes from the client.
    pub(crate) fn received(&self, len: usize) {
        self.metrics.received(self.method, len);
    }

    /// Counts a message of `len` bytes to the client.
    pub(crate) fn sent(&self, len: usize) {
        self.metrics.of(self.method).sent.inc();
        self.metrics.sent_bytes.inc_by(len as u64);
    }

    /// Counts what a frame of a streaming call holds; a message may begin in one and end in another.
    pub(crate) fn saw(&mut self, frame: &Frame<Bytes>) {
        if let Some(trailers) = frame.trailers_ref() {
            let code = trailers.get("grpc-status").map_or(Code::Unknown, |code| Code::from_bytes(code.as_bytes()));
            self.code = Some(code);
        } else if let Some(data) = frame.data_ref() {
            let messages = self.counter.count(data);
            self.metrics.of(self.method).sent.inc_by(messages);
            self.metrics.sent_bytes.inc_by(data.len() as u64);
        }
    }

    /// What is called.
    pub(crate) fn method(&self) -> Method {
        self.method
    }

    /// Whether [`CallGuard::end`] was said.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// When the call began.
    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    /// Says how the call ended, now; how long it took.
    pub(crate) fn end(&mut self, code: Code) -> Duration {
        self.ended = true;
        self.metrics.ended(self.method, code, self.begun)
    }

    /// Says how the call ended.
    pub(crate) fn finish(&mut self, code: Code) {
        self.code = Some(code);
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        if !self.ended {
            self.metrics.ended(self.method, self.code.unwrap_or(Code::Cancelled), self.begun);
        }
    }
}

/// Counts messages in a stream of bytes that is cut anywhere.
#[derive(Default)]
struct MessageCounter {
    head: [u8; HEAD_LEN],
    head_len: usize,
    body_left: usize,
}

impl MessageCounter {
    /// How many messages begin (with a whole head) in `data`.
    fn count(&mut self, mut data: &[u8]) -> u64 {
        let mut messages = 0;
        loop {
            let skipped = self.body_left.min(data.len());
            self.body_left -= skipped;
            data = &data[skipped..];
            if data.is_empty() {
                return messages;
            }
            let wanted = (HEAD_LEN - self.head_len).min(data.len());
            self.head[self.head_len..self.head_len + wanted].copy_from_slice(&data[..wanted]);
            self.head_len += wanted;
            data = &data[wanted..];
            if self.head_len == HEAD_LEN {
                let [_, len @ ..] = self.head;
                self.body_left = u32::from_be_bytes(len) as usize;
                self.head_len = 0;
                messages += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let mut bytes = Vec::new();
        for len in [0_u32, 3, 300, 0, 1] {
            bytes.push(0);
            bytes.extend_from_slice(&len.to_be_bytes());
            bytes.resize(bytes.len() + len as usize, 7);
        }
        for step in 1..=bytes.len() {
            let mut counter = MessageCounter::default();
            let messages: u64 = bytes.chunks(step).map(|part| counter.count(part)).sum();
            assert_eq!(messages, 5, "step {step}");
        }
    }
}
