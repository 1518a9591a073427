//! The members' network: the shipped peer transport over simulated sockets.

use std::io;

use rusd::api::{self, PeerDoor};
use rusd::consensus::PeerNode;
use rusd::consensus::peer::{Dial, Dialing, Stream};
use turmoil::net::{TcpListener, TcpStream};

const PORT: u16 = 2380;

/// Dials over turmoil.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SimDial;

impl Dial for SimDial {
    fn dial(&self, url: &str) -> Dialing {
        let address = url.trim_start_matches("http://").to_owned();
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// What the cluster knows of a host.
pub(crate) fn peer_node(name: &str) -> PeerNode {
    PeerNode {
        name: name.to_owned(),
        peer_urls: vec![format!("http://{name}:{PORT}")],
        client_urls: Vec::new(),
        ..PeerNode::default()
    }
}

/// Serves the other members until the boot ends.
pub(crate) async fn serve(door: PeerDoor) -> io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(api::serve_peer(stream, door.clone()));
        }
    });
    Ok(())
}
