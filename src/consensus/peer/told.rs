//! A connection under TLS that logs why the other member ended it, if it was for this one's certificate.
//!
//! With TLS 1.3 a handshake is over for the side that dials before the other has judged its certificate: the
//! refusal comes with the first read, where it would pass for a connection that died.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::dial::{Failures, Stream};
use crate::tls;

/// The connection.
pub(super) struct Told<S> {
    stream: S,
    url: String,
    failures: Arc<Failures>,
}

impl<S> Told<S> {
    pub(super) fn new(stream: S, url: String, failures: Arc<Failures>) -> Self {
        Self { stream, url, failures }
    }
}

impl<S: Stream> AsyncRead for Told<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(context, buf);
        if let Poll::Ready(Err(error)) = &polled
            && let Some(why) = tls::refusal(error)
        {
            self.failures.log(&self.url, &why);
        }
        polled
    }
}

impl<S: Stream> AsyncWrite for Told<S> {
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
