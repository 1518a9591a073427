//! The seam through which members reach each other: from a URL to a stream of bytes.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// A connection, whatever it runs over.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// A connection to come.
pub type Dialing = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// Makes connections to other members.
pub trait Dial: fmt::Debug + Send + Sync + 'static {
    /// Connects to a peer URL (`http://host:port`, `unix://path`).
    fn dial(&self, url: &str) -> Dialing;
}

/// Real sockets.
#[derive(Clone, Copy, Debug, Default)]
pub struct SocketDial;

impl Dial for SocketDial {
    fn dial(&self, url: &str) -> Dialing {
        let url = url.to_owned();
        Box::pin(async move {
            match url.split_once("://") {
                Some(("http", address)) => {
                    let stream = TcpStream::connect(address.trim_end_matches('/')).await?;
                    // Small messages must not wait for each other.
                    stream.set_nodelay(true)?;
                    Ok(Box::new(stream) as Box<dyn Stream>)
                }
                Some(("unix", path)) => Ok(Box::new(UnixStream::connect(path).await?) as Box<dyn Stream>),
                _ => Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    format!("the peer URL {url} is of a scheme that can't be dialled"),
                )),
            }
        })
    }
}

/// Reaches nobody: for a member that is alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDial;

impl Dial for NoDial {
    fn dial(&self, _: &str) -> Dialing {
        Box::pin(std::future::ready(Err(io::Error::new(io::ErrorKind::NotConnected, "there is no peer transport"))))
    }
}
