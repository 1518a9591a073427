//! A fresh server of one member for one probe, ended at drop.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::ports;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const READY_MAX: Duration = Duration::from_secs(30);

/// A server that serves.
pub(super) struct Server {
    port: u16,
    child: Child,
}

impl Server {
    /// Starts `program` on an empty directory and waits until it is well.
    pub(super) fn start(program: &Path, dir: &Path, flags: &[&str]) -> Result<Self> {
        if dir.exists() {
            fs::remove_dir_all(dir)?;
        }
        fs::create_dir_all(dir)?;
        let free = ports::free(2)?;
        let (port, peer) = (free[0], free[1]);
        let log = File::create(dir.join("log"))?;
        let child = Command::new(program)
            .arg("--name=default")
            .arg(format!("--data-dir={}", dir.join("data").display()))
            .arg(format!("--listen-client-urls=http://127.0.0.1:{port}"))
            .arg(format!("--advertise-client-urls=http://127.0.0.1:{port}"))
            .arg(format!("--listen-peer-urls=http://127.0.0.1:{peer}"))
            .arg(format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"))
            .arg(format!("--initial-cluster=default=http://127.0.0.1:{peer}"))
            .args(flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{} does not start: {error}", program.display()))?;
        let server = Self { port, child };
        let begun = Instant::now();
        while !server.is_well() {
            if begun.elapsed() > READY_MAX {
                let log = dir.join("log");
                return Err(format!("{} doesn't serve; its log is {}", program.display(), log.display()).into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// Where clients reach it.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Makes a call through the JSON gateway.
    pub(super) fn post(&self, path: &str, body: &str) -> Result<()> {
        let answer = self.ask("POST", path, body)?;
        if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(format!("{path}: {answer}").into()) }
    }

    fn is_well(&self) -> bool {
        self.ask("GET", "/health", "").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> std::io::Result<String> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let len = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len}");
        socket.write_all(format!("{head}\r\n\r\n{body}").as_bytes())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
