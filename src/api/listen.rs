//! Sockets: from an address to connections, and an orderly end of all of them.
//!
//! ```text
//! Address ─► bind ─► Listener ─► accept ─► entrance (TLS) ─► conn::serve, or peers (one task a connection)
//! no place left ─► who asked for nothing goes (`connections`)
//! shutdown ─► no new connections ─► GOAWAY on each ─► grace ─► the rest is cut
//! ```

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::addresses::{Addresses, Taken, client};
use super::conn::{self, ConnOptions, Serves};
use super::connections::{Connections, Seat};
use super::entrance::{Caller, Entrance, Patience, Security};
use super::line::{Duplex, Line};
use super::services::Services;
use crate::env::Disk;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4_096;

/// How long accepting rests after an error such as "too many open files".
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long connections get to end their calls after `shutdown`. Streams are told to end at once; what
/// is left is a write that waits for the disk, or a client that takes nothing.
const GRACE: Duration = Duration::from_millis(500);

/// Connections at a time on a listener that is for probes and metrics alone.
pub const PROBES_MAX: usize = 64;

/// How often the kernel asks a silent TCP client whether it is there.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `host:port`; the host is an IP address or `localhost`.
    Tcp(String),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// `--socket-reuse-port` and `--socket-reuse-address`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// Several sockets may listen on one port.
    pub reuse_port: bool,
    /// A port in TIME_WAIT may be taken (always so, as in Go).
    pub reuse_address: bool,
}

/// Why an address can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("can't listen on {address}: {source}")]
pub struct ListenError {
    /// The address as it was given.
    pub address: String,
    /// The system's answer.
    pub source: io::Error,
}

/// A bound socket. Clients may connect from here on; they are served once [`serve`] runs.
#[derive(Debug)]
pub struct Listener {
    socket: Bound,
    security: Security,
    patience: Patience,
    addresses: Arc<Addresses>,
}

#[derive(Debug)]
enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    /// Binds `address`. A Unix socket's file that is there already is replaced, as in etcd.
    ///
    /// # Errors
    /// The address is malformed, taken, or not of this machine.
    pub fn bind(address: &Address, options: SocketOptions, disk: &dyn Disk) -> Result<Self, ListenError> {
        let (name, bound) = match address {
            Address::Tcp(name) => (name.clone(), bind_tcp(name, options).map(Bound::Tcp)),
            Address::Unix(path) => {
                let bound = match disk.remove(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => UnixListener::bind(path),
                };
                (path.display().to_string(), bound.map(Bound::Unix))
            }
        };
        let socket = bound.map_err(|source| ListenError { address: name, source })?;
        Ok(Self { socket, security: Security::Plain, patience: Patience::default(), addresses: Addresses::new(0) })
    }

    /// Protects what comes over it.
    #[must_use]
    pub fn secured(self, security: Security) -> Self {
        Self { security, ..self }
    }

    /// Counts the connections of each address together with what else is counted in `addresses`.
    #[must_use]
    pub fn counted(self, addresses: Arc<Addresses>) -> Self {
        Self { addresses, ..self }
    }

    /// Waits for other times than the usual ones.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// The address of a TCP listener; tells the port where port 0 was asked for.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Bound::Tcp(listener) => listener.local_addr().ok(),
            Bound::Unix(_) => None,
        }
    }
}

fn bind_tcp(name: &str, options: SocketOptions) -> io::Result<TcpListener> {
    let address = match name.strip_prefix("localhost:") {
        Some(port) => (Ipv4Addr::LOCALHOST, port.parse().map_err(io::Error::other)?).into(),
        None => name.parse::<SocketAddr>().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?,
    };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Serves `listeners` until `shutdown` is true and all connections are done.
///
/// `connections` bounds how many there are at a time; further ones wait in the kernel. Listeners for probes have a
/// bound of their own, so that clients can't silence them.
pub async fn serve(
    listeners: Vec<(Listener, ConnOptions)>,
    services: Arc<Services>,
    connections: Arc<Connections>,
    shutdown: watch::Receiver<bool>,
) {
    let clients = |(listener, options)| (listener, Clients { services: services.clone(), options });
    let (probes, clients): (Vec<_>, Vec<_>) =
        listeners.into_iter().map(clients).partition(|(_, clients)| clients.options.serves == Serves::Metrics);
    tokio::join!(
        serve_each(clients, connections, shutdown.clone()),
        serve_each(probes, Connections::of_probes("connections of the metrics port", PROBES_MAX), shutdown),
    );
}

/// What is behind a listener.
pub(super) trait Serving: Clone + Send + 'static {
    /// For whom it is, in logs.
    const WHOM: &'static str;

    /// Serves one connection until it ends, or until `shutdown` and its calls are done.
    fn serve<S>(self, stream: S, caller: Caller, shutdown: watch::Receiver<bool>) -> impl Future<Output = ()> + Send
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static;
}

/// A listener for clients.
#[derive(Clone)]
struct Clients {
    services: Arc<Services>,
    options: ConnOptions,
}

impl Serving for Clients {
    const WHOM: &'static str = "client";

    async fn serve<S>(self, stream: S, caller: Caller, shutdown: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        conn::serve(stream, caller, self.services, self.options, shutdown).await;
    }
}

/// Serves each listener with what is behind it.
pub(super) async fn serve_each<D: Serving>(
    listeners: Vec<(Listener, D)>,
    connections: Arc<Connections>,
    shutdown: watch::Receiver<bool>,
) {
    let mut doors = JoinSet::new();
    for (listener, door) in listeners {
        doors.spawn(accept(listener, door, connections.clone(), shutdown.clone()));
    }
    while doors.join_next().await.is_some() {}
}

async fn accept<D: Serving>(
    listener: Listener,
    door: D,
    connections: Arc<Connections>,
    shutdown: watch::Receiver<bool>,
) {
    let Listener { socket, security, patience, addresses } = listener;
    let entrance = Arc::new(Entrance::new(security, patience, connections.max(), D::WHOM));
    let mut open = JoinSet::new();
    let mut ending = std::pin::pin!(ended(shutdown.clone()));
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut ending => break,
            _ = open.join_next(), if !open.is_empty() => continue,
            accepted = accept_one(&socket, &addresses) => accepted,
        };
        let accepted = match accepted {
            Ok(Some(accepted)) => accepted,
            // Closed already.
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let seat = tokio::select! {
            biased;
            () = &mut ending => break,
            seat = connections.enter() => seat,
        };
        let visit = Visit {
            entrance: entrance.clone(),
            first_bytes_max: patience.first_bytes,
            door: door.clone(),
            ending: shutdown.clone(),
            seat,
        };
        match accepted {
            Accepted::Tcp(stream, from, taken) => open.spawn(async move {
                visit.run(stream, Some(from)).await;
                drop(taken);
            }),
            Accepted::Unix(stream) => open.spawn(visit.run(stream, None)),
        };
    }
    drop(socket);
    let all_done = async { while open.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all_done).await.is_err() {
        open.shutdown().await;
    }
}

/// A connection that nobody serves yet.
enum Accepted {
    /// With its address, and that it is counted there.
    Tcp(TcpStream, IpAddr, Option<Taken>),
    Unix(UnixStream),
}

/// The next connection; `None` is one of an address that has too many.
async fn accept_one(socket: &Bound, addresses: &Arc<Addresses>) -> io::Result<Option<Accepted>> {
    Ok(match socket {
        Bound::Tcp(listener) => {
            let (stream, from) = listener.accept().await?;
            let Ok(taken) = addresses.take(from.ip()) else { return Ok(None) };
            prepare(&stream);
            Some(Accepted::Tcp(stream, from.ip(), taken))
        }
        Bound::Unix(listener) => Some(Accepted::Unix(listener.accept().await?.0)),
    })
}

/// What a connection needs from the socket to its end.
struct Visit<D> {
    entrance: Arc<Entrance>,
    first_bytes_max: Duration,
    door: D,
    ending: watch::Receiver<bool>,
    seat: Seat,
}

impl<D: Serving> Visit<D> {
    async fn run<S: Duplex>(self, stream: S, address: Option<IpAddr>) {
        let Self { entrance, first_bytes_max, door, ending, mut seat } = self;
        let asks = seat.asks();
        let served = async move {
            let opened = tokio::select! {
                biased;
                opened = entrance.open(stream, address) => opened,
                () = ended(ending.clone()) => None,
            };
            let Some((stream, caller)) = opened else { return };
            let caller = Caller { asks: Some(asks), address: address.map(client), ..caller };
            let (line, heard) = Line::new(stream);
            tokio::select! {
                biased;
                () = door.serve(line, caller, ending) => {}
                () = heard.too_little(first_bytes_max) => {
                    tracing::debug!("a connection on the {} endpoint said nothing for too long", D::WHOM);
                }
            }
        };
        tokio::select! {
            biased;
            () = served => {}
            () = seat.told_to_go() => {
                tracing::debug!("a connection on the {} endpoint that asked for nothing made room", D::WHOM);
            }
        }
    }
}

/// Answers go out at once, and a dead client is noticed. Neither is worth refusing a connection for.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new().with_time(TCP_KEEPALIVE).with_interval(TCP_KEEPALIVE);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

pub(super) async fn ended(mut shutdown: watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = shutdown.wait_for(|down| *down).await;
}
