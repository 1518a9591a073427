//! One GET over HTTP/1.0, as little as a first start needs: a bounded answer, no redirects, no chunks.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use crate::ops::config::Url;
use crate::tls::Connector;

/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// An answer with status 200.
#[derive(Debug)]
pub(super) struct Answer {
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// A header's value, by its name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Asks for a page.
///
/// # Errors
/// Those of the connection; `InvalidData` for an answer that is none, is too long or has another status.
pub(super) async fn get(url: &Url, path: &str, connector: Option<&Connector>) -> io::Result<Answer> {
    if url.is_unix() {
        secured(UnixStream::connect(url.address()).await?, url, path, connector).await
    } else {
        secured(TcpStream::connect(url.address()).await?, url, path, connector).await
    }
}

async fn secured(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    url: &Url,
    path: &str,
    connector: Option<&Connector>,
) -> io::Result<Answer> {
    match connector {
        Some(connector) if url.is_tls() => ask(connector.connect(url.address(), stream).await?, url, path).await,
        None if url.is_tls() => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "it needs TLS, and there are no --peer-…-file flags"))
        }
        _ => ask(stream, url, path).await,
    }
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, url: &Url, path: &str) -> io::Result<Answer> {
    // With 1.0 nobody answers in chunks.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\nConnection: close\r\n\r\n", url.address());
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).await?;
    parse(&bytes).map_err(|what| io::Error::new(io::ErrorKind::InvalidData, what))
}

fn parse(bytes: &[u8]) -> Result<Answer, String> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").ok_or("the answer is no HTTP")?;
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.") || status.split(' ').nth(1) != Some("200") {
        return Err(format!("it answers {status:?}"));
    }
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut body = bytes[end + 4..].to_vec();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    if let Some(length) = length.and_then(|(_, length)| length.parse::<usize>().ok()) {
        if body.len() < length {
            return Err("the answer was cut short".to_owned());
        }
        body.truncate(length);
    }
    Ok(Answer { headers, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        let answer = parse(b"HTTP/1.1 200 OK\r\nX-A: b \r\nContent-Length: 2\r\n\r\nokX").expect("an answer");
        assert_eq!((answer.header("x-a"), &answer.body[..]), (Some("b"), &b"ok"[..]));
        for bytes in [
            &b""[..],
            b"HTTP/1.1 404 Not Found\r\n\r\n",
            b"SSH-2.0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
        ] {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        bolero::check!().with_iterations(10_000).for_each(|bytes: &[u8]| {
            let _ = parse(bytes);
        });
    }
}
