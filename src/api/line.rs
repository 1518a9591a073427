//! One connection's bytes, whatever they come over, and whether anything has come yet.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes by which it is known which protocol a client speaks: the length of HTTP/2's preface.
const TELLING_BYTES: usize = 24;

/// Bytes in both directions.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Duplex for T {}

/// A connection.
pub(super) struct Line {
    stream: Box<dyn Duplex>,
    heard: Arc<AtomicUsize>,
}

/// How much a client has said, up to [`TELLING_BYTES`].
pub(super) struct Heard(Arc<AtomicUsize>);

impl Line {
    pub(super) fn new(stream: Box<dyn Duplex>) -> (Self, Heard) {
        let heard = Arc::new(AtomicUsize::new(0));
        (Self { stream, heard: heard.clone() }, Heard(heard))
    }
}

impl Heard {
    /// Ends when the client has not even said within `patience` which protocol it speaks.
    pub(super) async fn too_little(self, patience: Duration) {
        tokio::time::sleep(patience).await;
        if self.0.load(Ordering::Relaxed) >= TELLING_BYTES {
            std::future::pending::<()>().await;
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buf);
        let heard = self.heard.load(Ordering::Relaxed);
        if heard < TELLING_BYTES {
            // Only the connection's task comes here.
            self.heard.store(heard + (buf.filled().len() - before), Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Line {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, data)
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

/// A stream of which the first byte was read already.
pub(super) struct Begun<S> {
    first: Option<u8>,
    stream: S,
}

impl<S> Begun<S> {
    pub(super) fn new(first: u8, stream: S) -> Self {
        Self { first: Some(first), stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() > 0
            && let Some(first) = self.first.take()
        {
            buf.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, data)
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn the_first_byte_comes_first() {
        let (mut there, here) = tokio::io::duplex(64);
        there.write_all(b"bc").await.expect("room");
        drop(there);
        let mut all = Vec::new();
        Begun::new(b'a', here).read_to_end(&mut all).await.expect("read");
        assert_eq!(all, b"abc");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_says_too_little_is_noticed() {
        let patience = Duration::from_secs(30);
        for (bytes, is_noticed) in [(0, true), (23, true), (24, false), (60, false)] {
            let (mut there, here) = tokio::io::duplex(64);
            let (mut line, heard) = Line::new(Box::new(here));
            there.write_all(&vec![b'x'; bytes]).await.expect("room");
            drop(there);
            line.read_to_end(&mut Vec::new()).await.expect("read");
            let noticed = tokio::time::timeout(2 * patience, heard.too_little(patience)).await;
            assert_eq!(noticed.is_ok(), is_noticed, "{bytes}");
        }
    }
}
