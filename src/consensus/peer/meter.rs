//! What passes between this member and another one, told to whoever counts it.
//!
//! ```text
//! a connection that was dialled ─► Counted: bytes both ways, its begin and its end ─┐
//! a message that came in, or its answer ────────────────────────────────────────────┼─► PeerMeter of that member
//! a heartbeat ─► answered after so long, or not in time ────────────────────────────┤
//! a snapshot ─► Transfer: its begin and its end ────────────────────────────────────┘
//! ```
//! Members have meters of their own once they are in the address book: a stranger's id makes none.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::dial::Stream;
use crate::env::Clock;
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
    /// The fsyncs of a snapshot's file that came from it took so long.
    fn snapshot_synced(&self, took: Duration);
    /// A snapshot's file came in from it whole, and is durable.
    fn snapshot_saved(&self, took: Duration);
    /// A snapshot begins to go to it, or to come from it.
    fn snapshot_begun(&self, way: Way);
    /// That has ended: after so long if the receiver has taken it in, else `None`.
    fn snapshot_ended(&self, way: Way, whole_after: Option<Duration>);
}

/// Which way a snapshot goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the other member.
    Send,
    /// From it.
    Receive,
}

/// A snapshot under way, counted from its making on. It has failed unless [`Transfer::done`] says otherwise, also if
/// its call is dropped.
pub(super) struct Transfer {
    meter: Arc<dyn PeerMeter>,
    clock: Arc<dyn Clock>,
    begun: Instant,
    way: Way,
    whole_after: Option<Duration>,
}

impl Transfer {
    pub(super) fn begin(meter: Arc<dyn PeerMeter>, clock: Arc<dyn Clock>, way: Way) -> Self {
        meter.snapshot_begun(way);
        let begun = clock.now();
        Self { meter, clock, begun, way, whole_after: None }
    }

    /// How long it is under way.
    pub(super) fn took(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.begun)
    }

    /// The receiver has taken it in.
    pub(super) fn done(mut self) {
        self.whole_after = Some(self.took());
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.meter.snapshot_ended(self.way, self.whole_after);
    }
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
    fn snapshot_synced(&self, _: Duration) {}
    fn snapshot_saved(&self, _: Duration) {}
    fn snapshot_begun(&self, _: Way) {}
    fn snapshot_ended(&self, _: Way, _: Option<Duration>) {}
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
