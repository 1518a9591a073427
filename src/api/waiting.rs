//! The pages of a process that isn't a member yet, or no longer: alive, not ready, and what it waits for.
//!
//! ```text
//! peer URL, metrics URL ─► /rusd/pod (who waits, for what) · /livez 200 · /readyz, /health, /members 503 ─► 404
//! ```

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::connections::Connections;
use super::entrance::Caller;
use super::grpc::body::ReplyBody;
use super::http::{JSON, TEXT, plain};
use super::listen::{self, Listener, Serving};

/// Where it says who waits.
pub const WAITING_PAGE: &str = "/rusd/pod";
/// How long the head of a request may take.
const HEADER_MAX: Duration = Duration::from_secs(10);

/// What is behind the ports of a process that waits. Cheap to clone.
#[derive(Clone)]
pub struct WaitingDoor {
    notice: Arc<dyn Fn() -> String + Send + Sync>,
}

impl fmt::Debug for WaitingDoor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitingDoor").finish_non_exhaustive()
    }
}

impl WaitingDoor {
    /// `notice` is JSON.
    pub fn new(notice: Arc<dyn Fn() -> String + Send + Sync>) -> Self {
        Self { notice }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<ReplyBody> {
        if method != Method::GET && method != Method::HEAD {
            return plain(StatusCode::METHOD_NOT_ALLOWED, Some(TEXT), String::new());
        }
        match path {
            WAITING_PAGE => plain(StatusCode::OK, Some(JSON), (self.notice)()),
            "/livez" => plain(StatusCode::OK, Some(TEXT), "ok\n".to_owned()),
            "/readyz" | "/health" | "/members" => {
                plain(StatusCode::SERVICE_UNAVAILABLE, Some(TEXT), format!("waiting: {}\n", (self.notice)()))
            }
            _ => plain(StatusCode::NOT_FOUND, Some(TEXT), String::new()),
        }
    }
}

impl Serving for WaitingDoor {
    const WHOM: &'static str = "waiting";

    async fn serve<S>(self, stream: S, _: Caller, shutdown: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_MAX);
        builder.http2().timer(TokioTimer::new());
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let answer = self.answer(request.method(), request.uri().path());
            std::future::ready(Ok::<_, Infallible>(answer))
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
            tracing::debug!(%error, "a connection of somebody who asked ended early");
        }
    }
}

/// Serves `listeners` until `shutdown` is true.
pub async fn serve_waiting(
    listeners: Vec<Listener>,
    door: WaitingDoor,
    connections: Arc<Connections>,
    shutdown: watch::Receiver<bool>,
) {
    let listeners = listeners.into_iter().map(|listener| (listener, door.clone())).collect();
    listen::serve_each(listeners, connections, shutdown).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lives_and_is_not_ready() {
        let door = WaitingDoor::new(Arc::new(|| "{}".to_owned()));
        let status = |method: Method, path: &str| door.answer(&method, path).status().as_u16();
        assert_eq!(status(Method::GET, "/livez"), 200);
        assert_eq!(status(Method::GET, WAITING_PAGE), 200);
        // Whoever asks for members must not take it for one.
        assert_eq!(["/readyz", "/health", "/members"].map(|path| status(Method::GET, path)), [503; 3]);
        assert_eq!((status(Method::GET, "/x"), status(Method::POST, "/livez")), (404, 405));
    }
}
