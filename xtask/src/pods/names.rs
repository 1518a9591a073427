//! The cluster's names: a server of DNS that knows services and the pods behind them, as they are now.
//!
//! A name that a Service would give resolves to what it would resolve to: the headless one to all pods, `POD.HEADLESS…` to one
//! pod as long as it exists, the other one to its own address. Everything else doesn't exist.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

const MESSAGE_BYTES_MAX: usize = 512;
const HEADER_BYTES: usize = 12;
/// Types of records: an address of IPv4.
const ADDRESS: u16 = 1;
/// As the DNS of a cluster has it.
const TTL_SECS: u32 = 5;
const NO_SUCH_NAME: u8 = 3;

type Table = Arc<Mutex<BTreeMap<String, Vec<Ipv4Addr>>>>;

/// The names; the server ends at drop.
pub(super) struct Names {
    table: Table,
    server: JoinHandle<()>,
}

impl Names {
    /// Serves at port 53 of an address.
    pub(super) async fn serve(at: Ipv4Addr) -> std::io::Result<Self> {
        let socket = UdpSocket::bind(SocketAddr::from((at, 53))).await?;
        let table = Table::default();
        let known = table.clone();
        let server = tokio::spawn(async move {
            let mut message = [0; MESSAGE_BYTES_MAX];
            loop {
                let Ok((length, from)) = socket.recv_from(&mut message).await else { continue };
                let looked_up = |name: &str| known.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
                if let Some(answer) = answer(&message[..length], looked_up) {
                    // Whoever asked asks again if it is lost.
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        Ok(Self { table, server })
    }

    /// From now on a name leads there.
    pub(super) fn set(&self, name: &str, to: Vec<Ipv4Addr>) {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), to);
    }

    /// From now on there is no such name.
    pub(super) fn remove(&self, name: &str) {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The answer to a query; none to what isn't one.
fn answer(query: &[u8], look_up: impl Fn(&str) -> Option<Vec<Ipv4Addr>>) -> Option<Vec<u8>> {
    let mut at = HEADER_BYTES;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        // Above that it is a pointer, which a question has no use for.
        let label = query.get(at..at + length).filter(|_| length < 64)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*query.get(at)?, *query.get(at + 1)?]);
    let question = query.get(HEADER_BYTES..at + 4)?;
    let found = look_up(&labels.join("."));
    let code = if found.is_some() { 0 } else { NO_SUCH_NAME };
    let addresses = found.filter(|_| kind == ADDRESS).unwrap_or_default();
    let mut answer = query[..2].to_vec();
    // An answer of whoever decides, to one who asked for recursion, who gets it.
    answer.extend([0x84 | (query[2] & 1), 0x80 | code, 0, 1]);
    answer.extend(u16::try_from(addresses.len()).ok()?.to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(question);
    for address in addresses {
        // The name that was asked for.
        answer.extend([0xc0, HEADER_BYTES as u8]);
        answer.extend(ADDRESS.to_be_bytes());
        answer.extend([0, 1]);
        answer.extend(TTL_SECS.to_be_bytes());
        answer.extend([0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u8) -> Vec<u8> {
        let mut query = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(label.len() as u8);
            query.extend(label.as_bytes());
        }
        query.extend([0, 0, kind, 0, 1]);
        query
    }

    #[test]
    fn a_name_is_answered_with_its_addresses_or_with_nothing() {
        let known = |name: &str| (name == "a.b").then(|| vec![Ipv4Addr::new(198, 18, 3, 4)]);
        let said = answer(&query("A.b", 1), known).expect("an answer");
        assert_eq!(&said[..12], [7, 9, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert!(said.ends_with(&[0, 4, 198, 18, 3, 4]));
        // Known, but not of that kind; and not known.
        assert_eq!(&answer(&query("a.b", 28), known).expect("an answer")[2..8], [0x85, 0x80, 0, 1, 0, 0]);
        assert_eq!(&answer(&query("a.c", 1), known).expect("an answer")[2..8], [0x85, 0x83, 0, 1, 0, 0]);
        for length in 0..query("a.b", 1).len() {
            assert_eq!(answer(&query("a.b", 1)[..length], known), None);
        }
        assert_eq!(answer(&[0xc0; 40], known), None, "a pointer");
    }
}
