//! Clients that take their time, against a peer port with short patience: who hurries isn't held up.

use std::sync::Arc;
use std::time::Duration;

use rusd::api::{self, Address, Connections, Listener, Patience, PeerDoor, Security, SocketOptions};
use rusd::env::{Env, RealDisk};
use rusd::tls::{Acceptor, Connector, Pair, Settings};
use rusd::types::ClusterId;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::authority::{Authority, Wanted};
use crate::process::COMES_MAX;

struct Port {
    address: String,
    connector: Connector,
    _dir: TempDir,
    _up: watch::Sender<bool>,
}

/// A peer port that takes so many connections.
fn port(connections: usize, patience: Patience, is_either: bool) -> Port {
    let (dir, authority) = (TempDir::new().expect("a directory"), Authority::new("authority"));
    let ca = authority.write(dir.path(), "ca");
    let server = authority.issue(dir.path(), "server", &Wanted::default());
    let settings = Settings { pair: Some(Pair { cert: server.cert, key: server.key }), ..Settings::default() };
    let acceptor = Acceptor::new("test", settings, Env::real()).expect("good files");
    let security = if is_either { Security::Either(acceptor) } else { Security::Tls(acceptor) };
    let listener =
        Listener::bind(&Address::Tcp("127.0.0.1:0".into()), SocketOptions::default(), &RealDisk).expect("a port");
    let address = listener.local_addr().expect("a TCP port").to_string();
    let listener = listener.secured(security).with_patience(patience);
    let door = PeerDoor::new(tonic::service::Routes::default(), ClusterId(1), Arc::new(Vec::new));
    let (up, shutdown) = watch::channel(false);
    tokio::spawn(api::serve_peers(vec![listener], door, Connections::new("max-connections", connections), shutdown));
    let trusts = Settings { trusted_ca: Some(ca), ..Settings::default() };
    let connector = Connector::new("test", trusts, Env::real()).expect("good files");
    Port { address, connector, _dir: dir, _up: up }
}

impl Port {
    async fn socket(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.expect("a connection")
    }

    /// An honest request.
    async fn asks(&self) {
        self.asks_by(self.socket().await).await;
    }

    async fn asks_by(&self, stream: TcpStream) {
        let answered = tokio::time::timeout(COMES_MAX, self.answered(stream));
        answered.await.expect("an honest client comes in");
    }

    async fn answered(&self, stream: TcpStream) {
        let mut stream = self.connector.connect(&self.address, stream).await.expect("a handshake");
        stream.write_all(b"GET /members HTTP/1.0\r\n\r\n").await.expect("sent");
        stream.flush().await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.contains("200 OK"), "{answer}");
    }
}

/// Whether the other side ends the connection.
async fn is_cut(mut socket: impl tokio::io::AsyncRead + Unpin) -> bool {
    let ended = async { while !matches!(socket.read(&mut [0; 256]).await, Ok(0) | Err(_)) {} };
    tokio::time::timeout(Duration::from_secs(30), ended).await.is_ok()
}

const LONG: Duration = Duration::from_secs(3_600);
/// Long enough for an honest client whose own thread isn't let run for a while.
const SHORT: Duration = Duration::from_secs(3);

#[tokio::test]
async fn ghsa_6vch_q96h_7gc3_stalled_handshakes_push_out_each_other() {
    let patience = Patience { handshake: LONG, first_bytes: LONG, handshakes_max: 8, hangs_after: Duration::ZERO };
    let port = port(40, patience, false);
    let mut stalled = Vec::new();
    // Far more than there may be connections; half of them begin to speak.
    for at in 0..100 {
        let mut socket = port.socket().await;
        if at % 2 == 0 {
            socket.write_all(b"\x16\x03\x01\x02").await.expect("sent");
        }
        stalled.push(socket);
        if at % 10 == 0 {
            port.asks().await;
        }
    }
    port.asks().await;
    assert!(is_cut(stalled.swap_remove(0)).await);
}

#[tokio::test]
async fn a_herd_of_honest_clients_is_let_in() {
    let patience = Patience { handshake: LONG, first_bytes: LONG, handshakes_max: 4, hangs_after: LONG };
    let port = port(200, patience, false);
    // All have connected, and many have said something, before the first one may end.
    let sockets = futures::future::join_all((0..90).map(|_| port.socket())).await;
    futures::future::join_all(sockets.into_iter().map(|socket| port.asks_by(socket))).await;
}

#[tokio::test]
async fn silent_ones_never_keep_honest_clients_out() {
    let patience = Patience { handshake: LONG, first_bytes: LONG, handshakes_max: 4, hangs_after: LONG };
    let port = port(40, patience, false);
    let mut silent = Vec::new();
    for _ in 0..60 {
        silent.push(port.socket().await);
    }
    port.asks().await;
    assert!(is_cut(silent.swap_remove(0)).await);
}

#[tokio::test]
async fn a_handshake_has_its_time() {
    let patience = Patience { handshake: SHORT, first_bytes: LONG, ..Patience::default() };
    for is_either in [false, true] {
        let port = port(8, patience, is_either);
        let (silent, mut begun) = (port.socket().await, port.socket().await);
        begun.write_all(b"\x16\x03\x01").await.expect("sent");
        port.asks().await;
        assert!(is_cut(silent).await && is_cut(begun).await);
    }
}

#[tokio::test]
async fn whoever_says_nothing_after_the_handshake_is_cut() {
    let patience = Patience { first_bytes: SHORT, ..Patience::default() };
    let port = port(1, patience, true);
    let silent = port.connector.connect(&port.address, port.socket().await).await.expect("a handshake");
    assert!(is_cut(silent).await);
    // A plain one that says one letter at a time, and too few.
    let mut slow = port.socket().await;
    slow.write_all(b"GE").await.expect("sent");
    port.asks().await;
    assert!(is_cut(slow).await);
}

#[tokio::test]
async fn junk_in_the_place_of_a_handshake_ends_the_connection() {
    let port = port(4, Patience::default(), false);
    for junk in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\xff\xff\xff\xff", b"\x00\x00\x00", &[0xff; 600]] {
        let mut socket = port.socket().await;
        socket.write_all(junk).await.expect("sent");
        assert!(is_cut(socket).await, "{junk:?}");
    }
    port.asks().await;
}
