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
use tokio::io::{DuplexStream, copy_bidirectional, duplex};
use tokio::sync::{mpsc, oneshot};
use turmoil::net::{TcpListener, TcpStream};

use super::Host;

const PORT: u16 = 2380;
/// What a socket's buffers hold.
const PIPE_BYTES: usize = 1 << 20;

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
                Ask::Dial { address, done } => drop(tokio::spawn(async move {
                    let connected = TcpStream::connect(address).await.map(pipe);
                    // Who asked may have ended.
                    let _ = done.send(connected);
                })),
                Ask::Listen { accepted } => {
                    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
                    tokio::spawn(async move {
                        while let Ok((stream, _)) = listener.accept().await {
                            if accepted.send(pipe(stream)).is_err() {
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
fn pipe(mut stream: TcpStream) -> DuplexStream {
    let (near, mut far) = duplex(PIPE_BYTES);
    tokio::spawn(async move {
        // However it ends, both sides notice.
        let _ = copy_bidirectional(&mut stream, &mut far).await;
    });
    near
}
