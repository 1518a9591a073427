//! The service that clients use: a connection goes to one of the pods that are ready, and stays there.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub(super) const CLIENT_PORT: u16 = 2379;
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// It takes connections until it is dropped.
pub(super) struct Service {
    ready: Arc<Mutex<Vec<Ipv4Addr>>>,
    server: JoinHandle<()>,
}

impl Service {
    pub(super) async fn serve(at: Ipv4Addr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from((at, CLIENT_PORT))).await?;
        let ready: Arc<Mutex<Vec<Ipv4Addr>>> = Arc::default();
        let pods = ready.clone();
        let server = tokio::spawn(async move {
            let turn = AtomicUsize::new(0);
            loop {
                let Ok((client, _)) = listener.accept().await else { continue };
                let pods = pods.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let pod = pods.get(turn.fetch_add(1, Ordering::Relaxed) % pods.len().max(1)).copied();
                tokio::spawn(pass(client, pod));
            }
        });
        Ok(Self { ready, server })
    }

    /// Where connections go from now on; those that there are stay.
    pub(super) fn set(&self, ready: Vec<Ipv4Addr>) {
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = ready;
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Nobody ready is a connection that is closed at once.
async fn pass(mut client: TcpStream, pod: Option<Ipv4Addr>) {
    let Some(pod) = pod else { return };
    let connect = TcpStream::connect(SocketAddr::from((pod, CLIENT_PORT)));
    let Ok(Ok(mut server)) = tokio::time::timeout(CONNECT_MAX, connect).await else { return };
    // Small messages are the rule; that this fails is no reason not to pass them.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    // Either side may break off; the other one is told by the end of its connection.
    let _ = copy_bidirectional(&mut client, &mut server).await;
}
