//! HTTP/2 by hand: frames that no library would send.
//!
//! ```text
//! Frames::open ─► preface, SETTINGS ─► send(kind, flags, stream, payload)… ─► next() ─► (kind, flags, stream, payload)
//! ```

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, ToSocketAddrs};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const ACK: u8 = 1;

/// A frame: kind, flags, stream, payload.
pub(crate) type Frame = (u8, u8, u32, Vec<u8>);

/// One connection.
pub(crate) struct Frames {
    pub(crate) read: OwnedReadHalf,
    pub(crate) write: OwnedWriteHalf,
}

impl Frames {
    /// With these settings: identifier and value.
    pub(crate) async fn open(address: impl ToSocketAddrs, settings: &[(u16, u32)]) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (read, write) = socket.into_split();
        let mut frames = Self { read, write };
        let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let pairs: Vec<u8> =
            settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        all.extend(frame(SETTINGS, 0, 0, &pairs));
        frames.write.write_all(&all).await.unwrap();
        frames
    }

    /// Whether the server still takes bytes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        self.write.write_all(bytes).await.is_ok()
    }

    /// The next frame; `None` once the server has closed the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        next_frame(&mut self.read).await
    }

    /// Reads until a frame is as wished; `None` if the connection ends before.
    pub(crate) async fn find(&mut self, wished: impl Fn(&Frame) -> bool) -> Option<Frame> {
        let found = async {
            loop {
                match self.next().await {
                    Some(frame) if wished(&frame) => return Some(frame),
                    Some(_) => {}
                    None => return None,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), found).await.expect("a frame or the end")
    }
}

/// The next frame; `None` once there is no more.
pub(crate) async fn next_frame(read: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let mut head = [0; 9];
    read.read_exact(&mut head).await.ok()?;
    let [a, b, c, kind, flags, stream @ ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    read.read_exact(&mut payload).await.ok()?;
    Some((kind, flags, u32::from_be_bytes(stream), payload))
}

/// A frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, len @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The head of a gRPC call.
pub(crate) fn call(stream: u32, path: &str, flags: u8) -> Vec<u8> {
    frame(HEADERS, flags, stream, &head(path))
}

/// The same without a frame around it: literals, none of them indexed.
pub(crate) fn head(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    fields.iter().flat_map(|(name, value)| literal(name, value)).collect()
}

/// One field; both texts are short.
pub(crate) fn literal(name: &str, value: &str) -> Vec<u8> {
    let short = |text: &str| u8::try_from(text.len()).ok().filter(|len| *len < 127).expect("a short text");
    [&[0, short(name)], name.as_bytes(), &[short(value)], value.as_bytes()].concat()
}
