//! The failpoints' port, as a test speaks to it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// As a Go program that panicked.
pub(crate) const PANICKED: i32 = 2;

/// Status and body of a request to the points' port.
pub(crate) fn ask(port: u16, method: &str, name: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    let length = body.len();
    write!(stream, "{method} /{name} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    // The process may be gone once it has answered.
    let _ = stream.read_to_string(&mut answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned())
}
