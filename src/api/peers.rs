//! The peer port: what other members say to this one, and the pages that anyone may ask for.
//!
//! ```text
//! socket ─► hyper (h2 or HTTP/1.1) ─┬► /rusdpeer.Peer/… ─► consensus's peer service
//!                                   └► /version · /members ─► 404
//! ```
//! It is served before this member is ready: the others must be heard for it to become so.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt;

use super::connections::Connections;
use super::entrance::Caller;
use super::http::peer as pages;
use super::listen::{self, Listener, Serving};
use super::seams::MemberInfo;
use crate::types::ClusterId;

/// Where consensus's service is.
const SERVICE: &str = "/rusdpeer.Peer/";
/// How long the head of an HTTP/1.1 request may take.
const HEADER_MAX: Duration = Duration::from_secs(30);
/// Bytes that another member may have under way in one call and on one connection.
const WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// How often a silent member is pinged, and how long it may take to answer.
const PING: Duration = Duration::from_secs(5);

/// What is behind the peer port. Cheap to clone.
#[derive(Clone)]
pub struct PeerDoor {
    routes: Routes,
    cluster: ClusterId,
    members: Arc<dyn Fn() -> Vec<MemberInfo> + Send + Sync>,
}

impl PeerDoor {
    /// Serves `routes`, and `members` of `cluster` as a page.
    pub fn new(routes: Routes, cluster: ClusterId, members: Arc<dyn Fn() -> Vec<MemberInfo> + Send + Sync>) -> Self {
        Self { routes, cluster, members }
    }

    fn call(&self, request: Request<Incoming>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> {
        if request.uri().path().starts_with(SERVICE) {
            let routes = self.routes.clone();
            let answer = async move {
                match routes.oneshot(request.map(Body::new)).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            };
            // What openraft spawns for a call has a seed there, too.
            #[cfg(rusd_sim)]
            let answer = crate::consensus::seeded(0, answer);
            return Box::pin(answer);
        }
        let (cluster, members) = (self.cluster, self.members.clone());
        Box::pin(async move { pages::route(cluster, &*members, request.method(), request.uri().path()).map(Body::new) })
    }
}

impl Serving for PeerDoor {
    const WHOM: &'static str = "peer";

    async fn serve<S>(self, stream: S, caller: Caller, shutdown: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING);
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            // The pages are for anybody, so that asking for them makes nobody a member.
            if let Some(asks) = caller.asks.as_ref().filter(|_| request.uri().path().starts_with(SERVICE)) {
                asks.asks();
            }
            let answer = self.call(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = listen::ended(shutdown) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a member's connection ended early");
        }
    }
}

/// Serves `listeners` until `shutdown` is true.
pub async fn serve_peers(
    listeners: Vec<Listener>,
    door: PeerDoor,
    connections: Arc<Connections>,
    shutdown: watch::Receiver<bool>,
) {
    let listeners = listeners.into_iter().map(|listener| (listener, door.clone())).collect();
    listen::serve_each(listeners, connections, shutdown).await;
}

/// Serves one connection, whatever it came over, until it ends.
#[cfg(rusd_sim)]
pub async fn serve_peer(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, door: PeerDoor) {
    let (_up, shutdown) = watch::channel(false);
    door.serve(stream, Caller::default(), shutdown).await;
}
