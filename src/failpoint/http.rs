//! gofail's protocol: a line for each point, one point's terms, and to change or take them back.
//!
//! ```text
//! GET /  ·  GET /NAME  ·  PUT /NAME with terms ─► 204  ·  DELETE /NAME ─► 204
//! ```
//! One connection at a time, one request each. Nobody needs it faster, and nothing of the server is in its way.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use super::NAMES;
use super::registry::{place, tell, told};
use super::term::Terms;

/// What is told at the start.
const AT_START: &str = "GOFAIL_FAILPOINTS";
/// Where it listens.
const VARIABLE: &str = "GOFAIL_HTTP";
/// The longest head and the longest body of a request.
const HEAD_MAX: u64 = 16 * 1024;
const BODY_MAX: u64 = 16 * 1024;
/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tells the points what `GOFAIL_FAILPOINTS` says (`NAME=TERMS;NAME=TERMS`), and listens at `GOFAIL_HTTP`, if that is
/// set, for as long as the process lives.
///
/// # Errors
/// A point isn't there or its terms can't be read; it can't be listened there.
pub fn serve() -> io::Result<()> {
    let told_at_start = std::env::var(AT_START).unwrap_or_default();
    for one in told_at_start.split(';').filter(|one| !one.trim().is_empty()) {
        let read = one.split_once('=').and_then(|(name, terms)| Some((place(name.trim())?, Terms::parse(terms)?)));
        let (at, terms) = read.ok_or_else(|| io::Error::other(format!("{AT_START}: {one} can't be read")))?;
        tell(&mut told(), at, Some(terms));
    }
    let Ok(address) = std::env::var(VARIABLE) else { return Ok(()) };
    let listener = TcpListener::bind(&address)?;
    let run = move || {
        for stream in listener.incoming().flatten() {
            // Who breaks off hears nothing.
            let _ = answer(stream);
        }
    };
    #[expect(clippy::disallowed_methods, reason = "it must answer whatever the rest of the process is held up by")]
    std::thread::Builder::new().name("failpoints".to_owned()).spawn(run)?;
    Ok(())
}

fn answer(stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new((&stream).take(HEAD_MAX));
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut length = 0_u64;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(u64::MAX);
        }
    }
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    if length > BODY_MAX {
        return say(&stream, "413 Content Too Large", "the terms are too long\n");
    }
    let mut body = Vec::new();
    reader.get_mut().set_limit(length);
    reader.take(length).read_to_end(&mut body)?;
    let name = path.strip_prefix('/').unwrap_or(path);
    let body = String::from_utf8_lossy(&body);
    let mut told = told();
    match (method, name, place(name)) {
        ("GET", "", _) => {
            let mut lines: Vec<String> = NAMES
                .iter()
                .zip(told.iter())
                .map(|(name, terms)| format!("{name}={}\n", terms.as_ref().map_or("", |terms| &terms.text)))
                .collect();
            lines.sort_unstable();
            say(&stream, "200 OK", &lines.concat())
        }
        ("GET" | "PUT" | "DELETE", _, None) => {
            let status = if method == "GET" { "404 Not Found" } else { "400 Bad Request" };
            say(&stream, status, "failpoint: failpoint does not exist\n")
        }
        ("GET", _, Some(at)) => match told[at].as_ref() {
            Some(terms) => say(&stream, "200 OK", &format!("{}\n", terms.text)),
            None => say(&stream, "404 Not Found", "failpoint: failpoint is disabled\n"),
        },
        ("PUT", _, Some(at)) => match Terms::parse(&body) {
            Some(terms) => {
                // Told before it acts: it may be the end of the process.
                let said = say(&stream, "204 No Content", "");
                tell(&mut told, at, Some(terms));
                said
            }
            None => say(&stream, "400 Bad Request", &format!("failed to set failpoint {name}\n")),
        },
        ("DELETE", _, Some(at)) if told[at].is_some() => {
            tell(&mut told, at, None);
            say(&stream, "204 No Content", "")
        }
        ("DELETE", ..) => {
            say(&stream, "400 Bad Request", "failed to delete failpoint failpoint: failpoint is disabled\n")
        }
        _ => say(&stream, "405 Method Not Allowed", "Method not allowed\n"),
    }
}

fn say(mut stream: &TcpStream, status: &str, body: &str) -> io::Result<()> {
    let length = if status.starts_with("204") { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n{length}Connection: close\r\n\r\n{body}"
    )?;
    stream.flush()
}
