//! A connection under TLS that tells why the server ended it, if it was for this side's certificate.
//!
//! With TLS 1.3 a handshake is over for the side that dials before the server has judged its certificate: the
//! refusal comes with the first read, where it would pass for a connection that died.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::accept;

/// The connection.
pub struct Telling<S> {
    stream: S,
    tell: Box<dyn Fn(&str) + Send + Sync>,
}

impl<S> fmt::Debug for Telling<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telling").finish_non_exhaustive()
    }
}

impl<S> Telling<S> {
    /// Calls `tell` with the server's reason, in Go's words, each time that a read finds one.
    pub fn new(stream: S, tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { stream, tell: Box::new(tell) }
    }
}

/// What the server said when it refused this one, if that is why a stream failed.
fn refusal(error: &io::Error) -> Option<String> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(accept::told(*alert)),
        _ => None,
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Telling<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, buf);
        if let Poll::Ready(Err(error)) = &polled
            && let Some(why) = refusal(error)
        {
            (self.tell)(&why);
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Telling<S> {
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
