//! A connection's socket: it reads in turns and gathers what is written in a turn.
//!
//! ```text
//! turn begins ─► poll_read … up to as many requests as a turn has calls (`heads`): what is behind them waits here
//!                            … until the turn's calls are used up, or (who takes nothing begins no further turn) longer
//!                poll_write … ─► gathered ─┬─ over GATHER_MAX ─► socket
//! turn ends ─────────────────────────────► poll_drain ─► socket
//! ```
//! A protocol library flushes after nearly each answer. One system call for each is two thirds of
//! what a small read costs; one for all answers of a turn is next to nothing. Nothing waits longer
//! than the turn: whoever polls the connection drains afterwards.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::heads::Intake;

/// Bytes that are gathered at most.
const GATHER_MAX: usize = 128 * 1024;
/// Calls that a connection may begin before others get their turn.
pub(super) const CALLS_A_TURN: u32 = 64;
/// A larger buffer isn't kept between turns, so that idle connections hold little.
const KEEP_MAX: usize = 8 * 1024;

/// How a socket stands after a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// It takes nothing now.
    pub(super) is_blocked: bool,
    /// Grows whenever it takes something.
    pub(super) written: u64,
    /// There is no turn left for reading, and the task isn't woken for another one.
    pub(super) read_waits: bool,
}

/// One connection's socket; its clones are the same one.
pub(super) struct Socket<S> {
    /// Never contended: the protocol and the turns are polled by the same task.
    inner: Arc<Mutex<Inner<S>>>,
    turn: Arc<AtomicU32>,
    /// Grows with each read that brings something.
    heard: Arc<AtomicU64>,
}

struct Inner<S> {
    stream: S,
    gathered: Vec<u8>,
    /// Bytes of `gathered` that are on their way already.
    sent: usize,
    /// Whether the stream may hold something back: one with TLS does until it is flushed.
    unflushed: bool,
    /// Whether the stream took nothing when it was last written to.
    blocked: bool,
    /// Whether it didn't bring out what it took before.
    unflushable: bool,
    /// Whether a read waits for the next turn, and nobody will say when that is.
    read_waits: bool,
    /// Grows whenever it takes something.
    written: u64,
    intake: Intake,
}

impl<S> Clone for Socket<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), turn: self.turn.clone(), heard: self.heard.clone() }
    }
}

impl<S: AsyncWrite + Unpin> Socket<S> {
    /// A socket that reads only while `turn` is above 0.
    pub(super) fn new(stream: S, turn: Arc<AtomicU32>) -> Self {
        let inner = Inner {
            stream,
            gathered: Vec::new(),
            sent: 0,
            unflushed: false,
            blocked: false,
            unflushable: false,
            read_waits: false,
            written: 0,
            intake: Intake::new(CALLS_A_TURN),
        };
        Self { inner: Arc::new(Mutex::new(inner)), turn, heard: Arc::default() }
    }

    /// What grows with each read that brings something.
    pub(super) fn heard(&self) -> Arc<AtomicU64> {
        self.heard.clone()
    }

    /// Lets it read on: a turn begins.
    pub(super) fn begin_turn(&self) {
        self.turn.store(CALLS_A_TURN, Ordering::Relaxed);
        self.inner.lock().intake.allow(CALLS_A_TURN);
    }

    /// Whether it takes and brings what it gets, and whom that keeps waiting. A read that waits for nothing but a turn is
    /// told of once: whoever hears of it sees to one.
    pub(super) fn standing(&self) -> Standing {
        let mut inner = self.inner.lock();
        let Inner { written, read_waits, .. } = *inner;
        let is_blocked = inner.is_blocked();
        inner.read_waits &= is_blocked;
        Standing { is_blocked, written, read_waits }
    }

    /// Writes out what was gathered; the end of a turn.
    pub(super) fn poll_drain(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.lock().poll_drain(context)
    }
}

impl<S> Inner<S> {
    fn is_blocked(&self) -> bool {
        self.blocked || self.unflushable
    }
}

impl<S: AsyncWrite + Unpin> Inner<S> {
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gathered.is_empty() && !self.unflushed {
            return Poll::Ready(Ok(()));
        }
        while self.sent < self.gathered.len() {
            let polled = Pin::new(&mut self.stream).poll_write(context, &self.gathered[self.sent..]);
            let written = ready!(self.noted(polled))?;
            self.wrote(written)?;
        }
        self.reset();
        // That what was taken before is out says nothing of a write that still waits.
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.written += u64::from(self.unflushable && polled.is_ready());
        self.unflushable = polled.is_pending();
        ready!(polled)?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn noted<T>(&mut self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.blocked = polled.is_pending();
        self.written += u64::from(polled.is_ready());
        polled
    }

    fn wrote(&mut self, written: usize) -> io::Result<()> {
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.sent += written;
        self.unflushed = true;
        Ok(())
    }

    fn reset(&mut self) {
        self.sent = 0;
        if self.gathered.capacity() > KEEP_MAX {
            self.gathered = Vec::new();
        } else {
            self.gathered.clear();
        }
    }

    /// Gathers `data`, or writes it behind what is gathered if it is too much.
    fn poll_write(&mut self, context: &mut Context<'_>, data: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let len: usize = data.iter().map(|part| part.len()).sum();
        while self.gathered.len() + len > GATHER_MAX {
            let waiting = self.gathered.len() - self.sent;
            if waiting == 0 {
                self.reset();
                self.unflushed = true;
                let polled = Pin::new(&mut self.stream).poll_write_vectored(context, data);
                return self.noted(polled);
            }
            let polled = if self.stream.is_write_vectored() {
                let all: Vec<_> = std::iter::once(&self.gathered[self.sent..])
                    .chain(data.iter().map(|part| &**part))
                    .map(IoSlice::new)
                    .collect();
                Pin::new(&mut self.stream).poll_write_vectored(context, &all)
            } else {
                Pin::new(&mut self.stream).poll_write(context, &self.gathered[self.sent..])
            };
            let written = ready!(self.noted(polled))?;
            self.wrote(written.min(waiting))?;
            if written >= waiting {
                self.reset();
            }
            if written > waiting {
                return Poll::Ready(Ok(written - waiting));
            }
        }
        data.iter().for_each(|part| self.gathered.extend_from_slice(part));
        Poll::Ready(Ok(len))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Socket<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.lock();
        if self.turn.load(Ordering::Relaxed) > 0 {
            let Inner { stream, intake, read_waits, .. } = &mut *inner;
            *read_waits = false;
            let before = buf.filled().len();
            if ready!(intake.poll_read(stream, context, buf))? {
                self.heard.fetch_add(u64::from(buf.filled().len() > before), Ordering::Relaxed);
                return Poll::Ready(Ok(()));
            }
        }
        inner.read_waits = inner.is_blocked();
        if !inner.read_waits {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Socket<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.inner.lock().poll_write(context, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner.lock().poll_write(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Left to the end of the turn.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner.lock();
        ready!(inner.poll_drain(context))?;
        let polled = Pin::new(&mut inner.stream).poll_shutdown(context);
        inner.noted(polled)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes `room` bytes, at most `step` at a time, then waits.
    struct Slow {
        taken: Vec<u8>,
        room: usize,
        step: usize,
        calls: usize,
        vectored: bool,
    }

    impl AsyncWrite for Slow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            let len = data.len().min(self.step).min(self.room);
            if len == 0 {
                return Poll::Pending;
            }
            self.calls += 1;
            self.room -= len;
            self.taken.extend_from_slice(&data[..len]);
            Poll::Ready(Ok(len))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            context: &mut Context<'_>,
            data: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = data.iter().flat_map(|part| part.iter().copied()).collect();
            self.poll_write(context, &all)
        }

        fn is_write_vectored(&self) -> bool {
            self.vectored
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Its end waits for ever.
    struct Endless;

    impl AsyncRead for Endless {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Endless {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(data.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    fn socket(room: usize, step: usize, vectored: bool) -> Socket<Slow> {
        Socket::new(Slow { taken: Vec::new(), room, step, calls: 0, vectored }, Arc::new(AtomicU32::new(1)))
    }

    #[test]
    fn a_turns_answers_go_out_in_one_call() {
        let mut socket = socket(usize::MAX, usize::MAX, true);
        let mut context = Context::from_waker(Waker::noop());
        for part in 0..100_u8 {
            assert!(Pin::new(&mut socket).poll_write(&mut context, &[part; 300]).is_ready());
            assert!(Pin::new(&mut socket).poll_flush(&mut context).is_ready());
        }
        assert_eq!(socket.inner.lock().stream.calls, 0);
        assert!(socket.poll_drain(&mut context).is_ready());
        let inner = socket.inner.lock();
        assert_eq!((inner.stream.calls, inner.stream.taken.len()), (1, 30_000));
        assert!(inner.gathered.capacity() <= KEEP_MAX, "an idle connection holds little");
    }

    #[test]
    fn the_bytes_arrive_in_order_however_the_socket_takes_them() {
        let mut context = Context::from_waker(Waker::noop());
        for (step, vectored) in [(1_000, true), (70_000, true), (200_000, true), (1_000, false), (200_000, false)] {
            let mut socket = socket(0, step, vectored);
            let mut expected = Vec::new();
            for (round, len) in [10, 300_000, 5, GATHER_MAX, 1, 90_000, 90_000, 7].into_iter().enumerate() {
                let data: Vec<u8> = (0..len).map(|at| (at * 7 + round) as u8).collect();
                let (mut done, mut waits) = (0, 0);
                while done < len {
                    let (head, tail) = data[done..].split_at((len - done) / 3);
                    let parts = [IoSlice::new(head), IoSlice::new(tail)];
                    match Pin::new(&mut socket).poll_write_vectored(&mut context, &parts) {
                        Poll::Ready(written) => done += written.unwrap(),
                        Poll::Pending => {
                            waits += 1;
                            assert!(waits < 10_000, "stuck");
                            socket.inner.lock().stream.room += 40_000;
                        }
                    }
                    assert!(socket.inner.lock().gathered.len() <= GATHER_MAX);
                }
                expected.extend_from_slice(&data);
            }
            socket.inner.lock().stream.room = usize::MAX;
            assert!(Pin::new(&mut socket).poll_shutdown(&mut context).is_ready());
            assert!(socket.inner.lock().stream.taken == expected, "step {step}, vectored {vectored}");
        }
    }

    // Cause: a flush that has nothing to bring is always done. Symptom: a socket that had taken nothing of a large write
    // didn't count as full.
    #[test]
    fn a_flush_makes_no_room() {
        let mut socket = socket(0, usize::MAX, true);
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut socket).poll_write(&mut context, &[0; 2 * GATHER_MAX]).is_pending());
        assert!(socket.poll_drain(&mut context).is_ready());
        assert_eq!(socket.standing(), Standing { is_blocked: true, written: 0, read_waits: false });
        socket.inner.lock().stream.room = usize::MAX;
        assert!(Pin::new(&mut socket).poll_write(&mut context, &[0; 2 * GATHER_MAX]).is_ready());
        assert_eq!(socket.standing(), Standing { is_blocked: false, written: 1, read_waits: false });
    }

    #[test]
    fn reading_waits_for_the_next_turn_and_is_called_for_it_unless_nothing_is_taken() {
        struct Wakes(AtomicU32);

        impl std::task::Wake for Wakes {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }

        let turn = Arc::new(AtomicU32::new(0));
        let (near, _far) = tokio::io::duplex(100);
        let mut socket = Socket::new(near, turn.clone());
        let wakes = Arc::new(Wakes(AtomicU32::new(0)));
        let waker = Waker::from(wakes.clone());
        let mut context = Context::from_waker(&waker);
        let mut space = [0; 10];
        let mut read = |socket: &mut Socket<_>| {
            let polled = Pin::new(socket).poll_read(&mut context, &mut ReadBuf::new(&mut space));
            assert!(polled.is_pending());
            wakes.0.swap(0, Ordering::Relaxed)
        };
        assert_eq!((read(&mut socket), socket.standing().read_waits), (1, false));
        socket.inner.lock().blocked = true;
        assert_eq!((read(&mut socket), socket.standing().read_waits), (0, true));
        turn.store(1, Ordering::Relaxed);
        assert_eq!((read(&mut socket), socket.standing().read_waits), (0, false), "pings are read all the same");
    }

    // Cause: a protocol that ends its connection reads no more, and a stream's end wasn't noted as a write. Symptom: the read
    // that once had waited woke the task at each of its polls, and nobody's patience ended that.
    #[test]
    fn an_end_that_waits_is_waited_for_as_a_write() {
        let mut socket = Socket::new(Endless, Arc::new(AtomicU32::new(0)));
        let mut context = Context::from_waker(Waker::noop());
        socket.inner.lock().blocked = true;
        assert!(Pin::new(&mut socket).poll_read(&mut context, &mut ReadBuf::new(&mut [0; 9])).is_pending());
        assert!(socket.standing().read_waits && socket.standing().read_waits, "not before something is taken");
        socket.inner.lock().blocked = false;
        assert!(socket.standing().read_waits && !socket.standing().read_waits, "once");
        assert!(Pin::new(&mut socket).poll_shutdown(&mut context).is_pending());
        assert_eq!(socket.standing(), Standing { is_blocked: true, written: 0, read_waits: false });
    }

    #[test]
    fn a_client_that_takes_nothing_is_waited_for() {
        let mut socket = socket(0, 1, true);
        let mut context = Context::from_waker(Waker::noop());
        let mut taken = 0;
        while let Poll::Ready(written) = Pin::new(&mut socket).poll_write(&mut context, &[0; 1_000]) {
            taken += written.unwrap();
        }
        assert!(taken <= GATHER_MAX);
        assert!(socket.poll_drain(&mut context).is_pending());
    }

    /// As one with TLS does, it takes bytes and sends them when it is flushed, if it can.
    #[derive(Default)]
    struct Holding {
        held: Vec<u8>,
        sent: Vec<u8>,
        is_open: bool,
    }

    impl AsyncWrite for Holding {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            self.held.extend_from_slice(data);
            Poll::Ready(Ok(data.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            if !self.is_open {
                return Poll::Pending;
            }
            let held = std::mem::take(&mut self.held);
            self.sent.extend(held);
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_a_stream_holds_back_is_flushed_by_a_later_turn() {
        let mut context = Context::from_waker(Waker::noop());
        // Gathered, and too much to be gathered.
        for len in [10, 2 * GATHER_MAX] {
            let mut socket = Socket::new(Holding::default(), Arc::new(AtomicU32::new(1)));
            assert!(Pin::new(&mut socket).poll_write(&mut context, &vec![1; len]).is_ready());
            assert!(socket.poll_drain(&mut context).is_pending());
            socket.inner.lock().stream.is_open = true;
            assert!(socket.poll_drain(&mut context).is_ready());
            assert_eq!(socket.inner.lock().stream.sent.len(), len);
        }
    }
}
