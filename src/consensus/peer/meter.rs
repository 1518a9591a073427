//! What passes between this member and another one, told to whoever counts it.
//!
//! ```text
//! a connection that was dialled ─► Counted: bytes both ways, its begin and its end ─┐
//! a message that came in, or its answer ────────────────────────────────────────────┼─► PeerMeter of that member
//! a heartbeat ─► answered after so long, or not in time ────────────────────────────┘
//! ```
//! Members have meters of their own once they are in the address book: a stranger's id makes none.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::dial::Stream;
use crate::types::MemberId;

/// Counts what passes between this member and one other. Called on every message; must not block.
pub trait PeerMeter: Send + Sync + fmt::Debug {
    /// Bytes to the other member.
    fn sent(&self, bytes: usize);
    /// Bytes from it.
    fn received(&self, bytes: usize);
    /// A message that wasn't delivered, or not in time.
    fn send_failed(&self);
    /// A message of it that can't be read.
    fn receive_failed(&self);
    /// A heartbeat was answered after so long.
    fn heartbeat_answered(&self, after: Duration);
    /// A heartbeat wasn't answered in its time.
    fn heartbeat_missed(&self);
    /// A connection to it was made.
    fn connected(&self);
    /// One ended.
    fn disconnected(&self);
    /// A snapshot's file came in from it whole, and is durable.
    fn snapshot_received(&self, took: Duration);
}

/// Makes the meter of a member; asked once for each.
pub type MeterOf = Box<dyn Fn(MemberId) -> Arc<dyn PeerMeter> + Send + Sync>;

/// The meters of all members.
pub(super) struct Meters {
    make: MeterOf,
    known: Mutex<BTreeMap<MemberId, Arc<dyn PeerMeter>>>,
}

impl Meters {
    pub(super) fn new(make: MeterOf) -> Self {
        Self { make, known: Mutex::default() }
    }

    /// The meter of a member that belongs to the cluster.
    pub(super) fn of(&self, member: MemberId) -> Arc<dyn PeerMeter> {
        Arc::clone(self.known.lock().entry(member).or_insert_with(|| (self.make)(member)))
    }
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meters").field("known", &self.known.lock().len()).finish_non_exhaustive()
    }
}

/// Nobody counts.
#[derive(Debug)]
pub(super) struct Unmetered;

impl PeerMeter for Unmetered {
    fn sent(&self, _: usize) {}
    fn received(&self, _: usize) {}
    fn send_failed(&self) {}
    fn receive_failed(&self) {}
    fn heartbeat_answered(&self, _: Duration) {}
    fn heartbeat_missed(&self) {}
    fn connected(&self) {}
    fn disconnected(&self) {}
    fn snapshot_received(&self, _: Duration) {}
}

/// A connection whose bytes are counted.
pub(super) struct Counted<S> {
    stream: S,
    meter: Arc<dyn PeerMeter>,
}

impl<S> Counted<S> {
    pub(super) fn new(stream: S, meter: Arc<dyn PeerMeter>) -> Self {
        meter.connected();
        Self { stream, meter }
    }

    fn wrote(&self, polled: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(len)) = polled {
            self.meter.sent(*len);
        }
    }
}

impl<S> Drop for Counted<S> {
    fn drop(&mut self) {
        self.meter.disconnected();
    }
}

impl<S: Stream> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buf);
        if polled.is_ready() {
            self.meter.received(buf.filled().len().saturating_sub(before));
        }
        polled
    }
}

impl<S: Stream> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, data);
        self.wrote(&polled);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, data);
        self.wrote(&polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
