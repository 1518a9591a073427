//! The seam through which members reach each other: from a URL to a stream of bytes.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::tls::Connector;

/// A connection, whatever it runs over.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for T {}

/// A connection to come.
pub type Dialing = Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// Makes connections to other members.
pub trait Dial: fmt::Debug + Send + Sync + 'static {
    /// Connects to a peer URL (`http://host:port`, `https://host:port`, `unix://path`, `unixs://path`).
    fn dial(&self, url: &str) -> Dialing;
}

/// Real sockets.
#[derive(Clone, Debug, Default)]
pub struct SocketDial {
    connector: Option<Connector>,
}

impl SocketDial {
    /// Reaches members at `https` and `unixs` URLs by `connector`; without it not at all.
    pub fn new(connector: Option<Connector>) -> Self {
        Self { connector }
    }
}

impl Dial for SocketDial {
    fn dial(&self, url: &str) -> Dialing {
        let (url, connector) = (url.to_owned(), self.connector.clone());
        Box::pin(async move {
            let (scheme, address) = url.split_once("://").unwrap_or(("", &url));
            let address = address.trim_end_matches('/');
            let connector = match scheme {
                "http" | "unix" => None,
                "https" | "unixs" => Some(connector.ok_or_else(|| {
                    unsupported(format!(
                        "the peer URL {url} needs TLS: type --peer-trusted-ca-file, or --peer-auto-tls"
                    ))
                })?),
                _ => return Err(unsupported(format!("the peer URL {url} is of a scheme that can't be dialled"))),
            };
            if scheme.starts_with("unix") {
                let stream = UnixStream::connect(address).await?;
                return secured(stream, address, connector).await;
            }
            let stream = TcpStream::connect(address).await?;
            // Small messages must not wait for each other.
            stream.set_nodelay(true)?;
            secured(stream, address, connector).await
        })
    }
}

async fn secured<S: Stream>(stream: S, address: &str, connector: Option<Connector>) -> io::Result<Box<dyn Stream>> {
    Ok(match connector {
        Some(connector) => Box::new(connector.connect(address, stream).await?),
        None => Box::new(stream),
    })
}

fn unsupported(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, what)
}

/// Reaches nobody: for a member that is alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDial;

impl Dial for NoDial {
    fn dial(&self, _: &str) -> Dialing {
        Box::pin(std::future::ready(Err(io::Error::new(io::ErrorKind::NotConnected, "there is no peer transport"))))
    }
}
