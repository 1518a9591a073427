//! `Output`: framed gRPC messages on their way out, many in one chunk, large events without a copy.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::encode::{Control, HeaderIds, put_control, put_message_start};

/// A chunk is handed on once it has this many bytes: a few HTTP/2 frames.
pub(crate) const CHUNK_BYTES: usize = 64 * 1024;
/// Events from this size on are shared instead of copied.
const SHARE_BYTES: usize = 16 * 1024;

/// Messages written and not yet taken.
#[derive(Debug, Default)]
pub(crate) struct Output {
    buf: BytesMut,
    chunks: VecDeque<Bytes>,
    chunk_bytes: usize,
}

impl Output {
    /// Whether enough is written for now.
    pub(crate) fn is_full(&self) -> bool {
        self.chunk_bytes + self.buf.len() >= CHUNK_BYTES
    }

    /// Whether nothing waits to be taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.buf.is_empty()
    }

    /// Writes a message without events.
    pub(crate) fn control(&mut self, ids: HeaderIds, control: &Control) {
        put_control(&mut self.buf, ids, control);
    }

    /// Writes a message's beginning; `events_len` bytes of events must follow.
    pub(crate) fn start(&mut self, header: &[u8], watch_id: i64, fragment: bool, events_len: usize) {
        let copied = if events_len < SHARE_BYTES { events_len } else { 0 };
        self.make_room(64 + header.len() + copied);
        put_message_start(&mut self.buf, header, watch_id, fragment, events_len);
    }

    /// A lone message gets what it needs, a second one a whole chunk: growing by doubling would copy it all twice.
    fn make_room(&mut self, bytes: usize) {
        if self.buf.capacity() - self.buf.len() < bytes {
            self.buf.reserve(if self.buf.is_empty() { bytes } else { bytes.max(CHUNK_BYTES) });
        }
    }

    /// Writes bytes by copying.
    pub(crate) fn copy(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// Writes bytes that others have too.
    pub(crate) fn share(&mut self, bytes: &Bytes) {
        if bytes.len() < SHARE_BYTES {
            self.copy(bytes);
        } else {
            self.seal();
            self.chunk_bytes += bytes.len();
            self.chunks.push_back(bytes.clone());
        }
    }

    fn seal(&mut self) {
        if !self.buf.is_empty() {
            self.chunk_bytes += self.buf.len();
            self.chunks.push_back(self.buf.split().freeze());
        }
    }

    /// The next bytes to send.
    pub(crate) fn take(&mut self) -> Option<Bytes> {
        match self.chunks.pop_front() {
            Some(chunk) => {
                self.chunk_bytes -= chunk.len();
                Some(chunk)
            }
            None if self.buf.is_empty() => None,
            None => Some(self.buf.split().freeze()),
        }
    }
}
