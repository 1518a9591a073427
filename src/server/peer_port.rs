//! The peer port of a running member: open from the moment Raft runs until after it has ended.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::answers::Answers;
use crate::api::{self, Connections, Listener, PeerDoor};
use crate::consensus::Node;
use crate::consensus::peer::{Peers, Service};

/// The listeners for other members, and their end.
pub(super) struct PeerPort {
    down: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl PeerPort {
    /// Begins to serve, with at most so many connections.
    pub(super) fn open(
        listeners: Vec<Listener>,
        connections: usize,
        node: &Node,
        peers: &Peers,
        answers: Answers,
    ) -> Self {
        let service = Service::new(node.clone(), peers.clone(), Arc::new(answers));
        let (cluster, known) = (peers.cluster(), node.clone());
        let door = PeerDoor::new(service.routes(), cluster, Arc::new(move || known.members()));
        let down = watch::Sender::new(false);
        let connections = Connections::new("connections of members", connections);
        let serving = tokio::spawn(api::serve_peers(listeners, door, connections, down.subscribe()));
        Self { down, serving }
    }

    /// Ends it.
    pub(super) async fn close(self) {
        self.down.send_replace(true);
        if self.serving.await.is_err() {
            tracing::warn!("the peer port ended with a panic");
        }
    }
}
