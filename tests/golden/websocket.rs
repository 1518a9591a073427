//! WebSockets: how a browser speaks to the JSON gateway.
//!
//! ```text
//! requests ─► text frames ─► server ─► its messages, one line each; the head of the answer is the first
//! ```

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue, Response};
use tokio_tungstenite::tungstenite::{Error, Message};
use tonic::Status;

/// Opens a WebSocket on `path`, says what comes of `requests`, and tells `sink` what is answered.
///
/// The end of `requests` closes it. That it was closed, and by whom, is its end.
pub(crate) async fn run(
    url: String,
    path: String,
    headers: Vec<(String, String)>,
    mut requests: UnboundedReceiver<Bytes>,
    sink: UnboundedSender<Result<Option<Bytes>, Status>>,
) {
    let address = url.trim_start_matches("http://").to_owned();
    let mut request = format!("ws://{address}{path}").into_client_request().expect("a path");
    for (name, value) in headers {
        let name: HeaderName = name.parse().expect("a header's name");
        request.headers_mut().insert(name, HeaderValue::try_from(value).expect("a header's value"));
    }
    let stream = TcpStream::connect(address).await.expect("a serving server accepts connections");
    let opened = tokio_tungstenite::client_async(request, stream).await;
    let first = match &opened {
        Ok((_, head)) => said(head),
        Err(Error::Http(head)) => said(head),
        Err(error) => error.to_string(),
    };
    sink.send(Ok(Some(first.into()))).ok();
    if let Ok((mut socket, _)) = opened {
        let mut is_open = true;
        loop {
            tokio::select! {
                request = requests.recv(), if is_open => match request {
                    Some(text) => {
                        let text = String::from_utf8_lossy(&text).into_owned();
                        socket.send(Message::text(text)).await.ok();
                    }
                    None => {
                        is_open = false;
                        socket.close(None).await.ok();
                    }
                },
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        if sink.send(Ok(Some(Bytes::copy_from_slice(text.as_bytes())))).is_err() {
                            return;
                        }
                    }
                    // etcd cuts the connection where rusd says that it is closed.
                    Some(Ok(Message::Close(_))) | Some(Err(_)) | None => break,
                    Some(Ok(other)) => drop(sink.send(Ok(Some(format!("{other:?}").into())))),
                },
            }
        }
    }
    sink.send(Ok(None)).ok();
}

fn said<B>(head: &Response<B>) -> String {
    let protocol = head.headers().get("sec-websocket-protocol").map(|protocol| protocol.to_str().unwrap_or("?"));
    format!("{} {}", head.status().as_u16(), protocol.unwrap_or_default()).trim_end().to_owned()
}
