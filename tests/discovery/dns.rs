//! A name server that knows one name, and answers over UDP that its answer is too long, and over TCP in full.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

/// Serves the SRV records of `name` until the test ends.
pub(crate) async fn serve(name: &str, records: Vec<(String, u16)>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // A port that is free for one is nearly always free for the other.
    let socket = UdpSocket::bind(address).await.unwrap();
    let known = labels(name);
    let answering = known.clone();
    tokio::spawn(async move {
        let mut query = [0; 512];
        loop {
            let (len, from) = socket.recv_from(&mut query).await.unwrap();
            let cut = answer(&query[..len], &answering, &[], true);
            socket.send_to(&cut, from).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut query = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut query).await.unwrap();
            let whole = answer(&query, &known, &records, false);
            stream.write_u16(u16::try_from(whole.len()).unwrap()).await.unwrap();
            stream.write_all(&whole).await.unwrap();
        }
    });
    address
}

fn labels(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn answer(query: &[u8], known: &[u8], records: &[(String, u16)], cut: bool) -> Vec<u8> {
    let is_known = query[12..].starts_with(known);
    let mut answer = query.to_vec();
    answer[2] = if cut && is_known { 0x83 } else { 0x81 };
    answer[3] = if is_known { 0x80 } else { 0x83 };
    if is_known {
        answer[7] = u8::try_from(records.len()).unwrap();
        for (target, port) in records {
            let target = labels(target);
            answer.extend_from_slice(&[192, 12, 0, 33, 0, 1, 0, 0, 0, 9]);
            answer.extend_from_slice(&u16::try_from(6 + target.len()).unwrap().to_be_bytes());
            answer.extend_from_slice(&[0, 0, 0, 0]);
            answer.extend_from_slice(&port.to_be_bytes());
            answer.extend_from_slice(&target);
        }
    }
    answer
}
