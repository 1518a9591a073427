//! The seam through which members reach each other: from a URL to a stream of bytes.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use crate::tls::{Connector, Telling};

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

/// Between two lines of the log about members that aren't trusted, or don't trust this one.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Real sockets.
#[derive(Clone, Debug, Default)]
pub struct SocketDial {
    connector: Option<Connector>,
    failures: Arc<Failures>,
}

impl SocketDial {
    /// Reaches members at `https` and `unixs` URLs by `connector`; without it not at all.
    pub fn new(connector: Option<Connector>) -> Self {
        Self { connector, failures: Arc::default() }
    }
}

/// When the last failure of each URL was logged.
#[derive(Debug, Default)]
struct Failures(Mutex<HashMap<String, Instant>>);

impl Failures {
    /// Logs that there is no TLS: a wrong certificate mends itself less often than a dead connection.
    fn log(&self, url: &str, error: &str) {
        let (mut logged, now) = (self.0.lock(), Instant::now());
        logged.retain(|_, last| now.saturating_duration_since(*last) < LOG_EVERY);
        if !logged.contains_key(url) {
            logged.insert(url.to_owned(), now);
            tracing::warn!(url, error, "no TLS with this member");
        }
    }
}

impl Dial for SocketDial {
    fn dial(&self, url: &str) -> Dialing {
        let (url, connector, failures) = (url.to_owned(), self.connector.clone(), self.failures.clone());
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
                secured(UnixStream::connect(address).await?, address, connector, &url, failures).await
            } else {
                let stream = TcpStream::connect(address).await?;
                // Small messages must not wait for each other.
                stream.set_nodelay(true)?;
                secured(stream, address, connector, &url, failures).await
            }
        })
    }
}

async fn secured<S: Stream>(
    stream: S,
    address: &str,
    connector: Option<Connector>,
    url: &str,
    failures: Arc<Failures>,
) -> io::Result<Box<dyn Stream>> {
    let Some(connector) = connector else { return Ok(Box::new(stream)) };
    let secured = connector.connect(address, stream).await;
    let stream = secured.inspect_err(|error| failures.log(url, &error.to_string()))?;
    let url = url.to_owned();
    Ok(Box::new(Telling::new(stream, move |why| failures.log(&url, why))))
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
