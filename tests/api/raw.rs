//! One HTTP/2 request without a gRPC client, which would keep to the rules by itself.

use bytes::Bytes;
use futures::StreamExt;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::server::Server;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    /// HTTP's own status.
    pub(crate) http_status: u16,
    pub(crate) grpc_status: String,
    pub(crate) message: String,
}

/// Sends `frames` as the request's DATA frames; the header `:method` is the method; `open` leaves the request without an end.
pub(crate) async fn call(
    server: &Server,
    path: &str,
    headers: &[(&str, &str)],
    frames: Vec<Bytes>,
    open: bool,
) -> Answer {
    let socket = tokio::net::TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    let frames =
        futures::stream::iter(frames.into_iter().map(|data| Ok::<_, std::convert::Infallible>(Frame::data(data))));
    let tail = if open { futures::stream::pending().boxed() } else { futures::stream::empty().boxed() };
    let mut request = Request::builder()
        .method(headers.iter().find(|(name, _)| *name == ":method").map_or("POST", |(_, method)| *method))
        .uri(format!("http://localhost{path}"))
        .header("te", "trailers");
    if headers.iter().all(|(name, _)| *name != "content-type") {
        request = request.header("content-type", "application/grpc");
    }
    for (name, value) in headers.iter().filter(|(name, _)| *name != ":method") {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(StreamBody::new(frames.chain(tail))).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let trailers = match parts.headers.contains_key("grpc-status") {
        true => parts.headers.clone(),
        false => body.collect().await.ok().and_then(|body| body.trailers().cloned()).unwrap_or_default(),
    };
    let text = |name: &str| trailers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    Answer {
        http_status: parts.status.as_u16(),
        grpc_status: text("grpc-status"),
        message: text("grpc-message").replace("%20", " ").replace("%22", "\""),
    }
}

/// A message with its head.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let len = u32::try_from(message.len()).unwrap();
    [&[0], &len.to_be_bytes()[..], message].concat().into()
}
