//! The members' network: the shipped peer transport over simulated sockets.
//!
//! ```text
//! member's runtime: dial, listen ── Ask ──► bridge, a host of turmoil's ── sockets ──► other hosts
//!          └════════════════ pipe, which holds what comes while the member stands still ═┘
//! ```

use std::io;
use std::sync::Arc;

use rusd::api::{self, PeerDoor};
use rusd::consensus::PeerNode;
use rusd::consensus::peer::{Dial, Dialing, Stream};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, duplex, split};
use tokio::sync::{mpsc, oneshot, watch};
use turmoil::net::{TcpListener, TcpStream};

use super::Host;

const PORT: u16 = 2380;
/// What a socket's buffers hold.
const PIPE_BYTES: usize = 1 << 20;
/// What is copied at a time.
const COPY_BYTES: usize = 8 << 10;

/// What a member wants of its host's network.
pub(crate) enum Ask {
    Dial { address: String, done: oneshot::Sender<io::Result<DuplexStream>> },
    Listen { accepted: mpsc::UnboundedSender<DuplexStream> },
}

/// A member's way to its host's network.
#[derive(Clone)]
pub(crate) struct Wire(pub(crate) mpsc::UnboundedSender<Ask>);

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wire")
    }
}

fn gone() -> io::Error {
    io::ErrorKind::NetworkDown.into()
}

impl Dial for Wire {
    fn dial(&self, url: &str) -> Dialing {
        let address = url.trim_start_matches("http://").to_owned();
        let (done, answer) = oneshot::channel();
        let sent = self.0.send(Ask::Dial { address, done });
        Box::pin(async move {
            sent.map_err(|_| gone())?;
            let stream = answer.await.map_err(|_| gone())??;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// Serves the other members until the boot ends.
pub(crate) fn serve(wire: &Wire, door: PeerDoor) -> io::Result<()> {
    let (accepted, mut streams) = mpsc::unbounded_channel();
    wire.0.send(Ask::Listen { accepted }).map_err(|_| gone())?;
    tokio::spawn(async move {
        while let Some(stream) = streams.recv().await {
            tokio::spawn(api::serve_peer(stream, door.clone()));
        }
    });
    Ok(())
}

/// The address of a host in the members' URLs.
pub(crate) fn url_of(name: &str) -> String {
    format!("http://{name}:{PORT}")
}

/// What the cluster knows of a host.
pub(crate) fn peer_node(name: &str) -> PeerNode {
    PeerNode { name: name.to_owned(), peer_urls: vec![url_of(name)], client_urls: Vec::new(), ..PeerNode::default() }
}

/// A host of turmoil's: does what its member asks, for as long as the machine runs.
pub(crate) async fn bridge(host: Arc<Host>) -> turmoil::Result {
    let asks = host.asks.lock().take();
    if let Some(mut asks) = asks {
        while let Some(ask) = asks.recv().await {
            match ask {
                Ask::Dial { address, done } => {
                    let host = host.clone();
                    tokio::spawn(async move {
                        let connected = TcpStream::connect(address).await.map(|stream| pipe(&host, stream));
                        // Who asked may have ended.
                        let _ = done.send(connected);
                    });
                }
                Ask::Listen { accepted } => {
                    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
                    let host = host.clone();
                    tokio::spawn(async move {
                        while let Ok((stream, _)) = listener.accept().await {
                            if accepted.send(pipe(&host, stream)).is_err() {
                                return;
                            }
                        }
                    });
                }
            }
        }
    }
    std::future::pending().await
}

/// The member's end of a socket.
fn pipe(host: &Host, stream: TcpStream) -> DuplexStream {
    let (near, far) = duplex(PIPE_BYTES);
    let (from_net, to_net) = stream.into_split();
    let (from_member, to_member) = split(far);
    let (deaf, mute) = (host.is_deaf.subscribe(), host.is_mute.subscribe());
    tokio::spawn(async move {
        // However it ends, both sides notice.
        let _ = tokio::try_join!(copy(from_net, to_member, deaf), copy(from_member, to_net, mute));
    });
    near
}

/// Copies until the end of `from`, and tells it to `to`; not while `held`.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut held: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut bytes = vec![0; COPY_BYTES];
    loop {
        let len = from.read(&mut bytes).await?;
        // The host outlives its sockets.
        held.wait_for(|held| !held).await.map_err(|_| gone())?;
        if len == 0 {
            return to.shutdown().await;
        }
        to.write_all(&bytes[..len]).await?;
    }
}
