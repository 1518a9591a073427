//! Questions for SRV records: as much of DNS as two questions before the first start need.
//!
//! ```text
//! name ─► UDP to each server in turn ─► answer (cut short? ─► the same over TCP) ─► the records
//! ```
//! Every length in an answer is checked; names are followed through as many pointers as a name can have labels.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

/// The type of an SRV record.
const SRV: u16 = 33;
/// The class of the internet.
const INTERNET: u16 = 1;
/// How long a server may take.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How often each is asked.
const ROUNDS: usize = 2;
/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// Where a server listens.
const PORT: u16 = 53;

/// An SRV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) priority: u16,
    /// Without the dot at its end.
    pub(super) target: String,
    pub(super) port: u16,
}

/// The servers that `/etc/resolv.conf` names, or this machine, as without that file.
pub(super) fn servers(resolv_conf: &str) -> Vec<SocketAddr> {
    let address = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let address = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        let ip: IpAddr = address.split('%').next()?.parse().ok()?;
        Some(SocketAddr::new(ip, PORT))
    };
    let servers: Vec<_> = resolv_conf.lines().filter_map(address).take(3).collect();
    if servers.is_empty() { vec![(Ipv4Addr::LOCALHOST, PORT).into()] } else { servers }
}

/// The SRV records of a name, those of the lowest priority first.
///
/// # Errors
/// `NotFound` if there are none; otherwise what the last server answered, or that none did.
pub(super) async fn services(name: &str, servers: &[SocketAddr], id: u16) -> io::Result<Vec<Service>> {
    let query = query(name, id)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "there is no DNS server");
    for server in std::iter::repeat_n(servers, ROUNDS).flatten() {
        match tokio::time::timeout(ANSWER_MAX, ask(&query, *server)).await {
            Ok(Ok(mut services)) => {
                if services.is_empty() {
                    return Err(io::Error::new(io::ErrorKind::NotFound, "no such host"));
                }
                services.sort_by_key(|service| service.priority);
                return Ok(services);
            }
            Ok(Err(error)) => last = io::Error::new(error.kind(), format!("{server}: {error}")),
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{server}: no answer in time")),
        }
    }
    Err(last)
}

async fn ask(query: &[u8], server: SocketAddr) -> io::Result<Vec<Service>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let len = socket.recv(&mut buffer).await?;
        // What isn't the answer may be somebody's guess: the right one may still come.
        let Ok(answer) = Answer::new(&buffer[..len], query) else { continue };
        if !answer.is_cut() {
            return answer.services();
        }
        let mut stream = TcpStream::connect(server).await?;
        let len = u16::try_from(query.len()).map_err(io::Error::other)?;
        stream.write_all(&[&len.to_be_bytes(), query].concat()).await?;
        let len = stream.read_u16().await?;
        let mut whole = vec![0; usize::from(len)];
        stream.read_exact(&mut whole).await?;
        return Answer::new(&whole, query)?.services();
    }
}

/// A question for the SRV records of a name.
fn query(name: &str, id: u16) -> io::Result<Vec<u8>> {
    // One question; recursion is wanted.
    let mut query = [id.to_be_bytes(), [1, 0], [0, 1], [0, 0], [0, 0], [0, 0]].concat();
    for label in name.trim_end_matches('.').split('.') {
        let len = u8::try_from(label.len()).ok().filter(|len| (1..=63).contains(len));
        query.push(len.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is no DNS name")))?);
        query.extend_from_slice(label.as_bytes());
    }
    if query.len() + 1 - HEAD > NAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is too long for a DNS name")));
    }
    query.push(0);
    query.extend_from_slice(&SRV.to_be_bytes());
    query.extend_from_slice(&INTERNET.to_be_bytes());
    Ok(query)
}

/// Bytes before the question.
const HEAD: usize = 12;

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a DNS answer that is none: {what}"))
}

/// An answer to a question.
struct Answer<'a> {
    bytes: &'a [u8],
    /// Where its records begin.
    records: usize,
}

impl<'a> Answer<'a> {
    /// Fails if it isn't one to this question.
    fn new(bytes: &'a [u8], query: &[u8]) -> io::Result<Self> {
        let is_answer = bytes.len() >= query.len()
            && bytes[..2] == query[..2]
            && bytes[2] & 0x80 != 0
            && bytes[4..6] == [0, 1]
            && bytes[HEAD..query.len()].eq_ignore_ascii_case(&query[HEAD..]);
        if is_answer { Ok(Self { bytes, records: query.len() }) } else { Err(malformed("of another question")) }
    }

    fn is_cut(&self) -> bool {
        self.bytes[2] & 0x02 != 0
    }

    fn u16_at(&self, at: usize) -> io::Result<u16> {
        let two = self.bytes.get(at..at + 2).ok_or_else(|| malformed("it ends early"))?;
        Ok(u16::from_be_bytes([two[0], two[1]]))
    }

    fn services(&self) -> io::Result<Vec<Service>> {
        match self.bytes[3] & 0x0f {
            0 => {}
            // There is no such name.
            3 => return Ok(Vec::new()),
            code => return Err(io::Error::other(format!("the DNS server refuses with code {code}"))),
        }
        let count = self.u16_at(6)?;
        let mut services = Vec::new();
        let mut at = self.records;
        for _ in 0..count {
            at = self.name(at)?.1;
            let (kind, class, len) = (self.u16_at(at)?, self.u16_at(at + 2)?, self.u16_at(at + 8)?);
            let data = at + 10;
            if kind == SRV && class == INTERNET {
                let (priority, port) = (self.u16_at(data)?, self.u16_at(data + 4)?);
                let target = self.name(data + 6)?.0;
                // A dot alone: the service is decidedly not there.
                if !target.is_empty() {
                    services.push(Service { priority, target, port });
                }
            }
            at = data + usize::from(len);
        }
        Ok(services)
    }

    /// The name at a place, and the place after it.
    fn name(&self, mut at: usize) -> io::Result<(String, usize)> {
        let mut name = String::new();
        let mut after = None;
        let mut steps = 0;
        loop {
            let byte = *self.bytes.get(at).ok_or_else(|| malformed("it ends in a name"))?;
            steps += 1;
            if steps > NAME_BYTES_MAX {
                return Err(malformed("a name without an end"));
            }
            match byte {
                0 => return Ok((name, after.unwrap_or(at + 1))),
                1..64 => {
                    let end = at + 1 + usize::from(byte);
                    let label = self.bytes.get(at + 1..end).ok_or_else(|| malformed("it ends in a name"))?;
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.push_str(std::str::from_utf8(label).map_err(|_| malformed("a name that is no text"))?);
                    if name.len() > NAME_BYTES_MAX {
                        return Err(malformed("a name that is too long"));
                    }
                    at = end;
                }
                192.. => {
                    after.get_or_insert(at + 2);
                    at = usize::from(self.u16_at(at)? & 0x3fff);
                }
                _ => return Err(malformed("a label of an unknown kind")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "_etcd-server._tcp.example.com";

    /// An answer with records whose targets are given as bytes.
    fn answer(flags: [u8; 2], targets: &[(&[u8], u16)]) -> (Vec<u8>, Vec<u8>) {
        let query = query(NAME, 7).unwrap();
        let mut answer = query.clone();
        answer[2..4].copy_from_slice(&flags);
        answer[6..8].copy_from_slice(&u16::try_from(targets.len()).unwrap().to_be_bytes());
        for (at, (target, port)) in targets.iter().enumerate() {
            answer.extend_from_slice(&[192, 12]);
            answer.extend_from_slice(&[0, 33, 0, 1, 0, 0, 0, 9]);
            answer.extend_from_slice(&u16::try_from(6 + target.len()).unwrap().to_be_bytes());
            answer.extend_from_slice(&u16::try_from(9 - at).unwrap().to_be_bytes());
            answer.extend_from_slice(&[0, 0]);
            answer.extend_from_slice(&port.to_be_bytes());
            answer.extend_from_slice(target);
        }
        (answer, query)
    }

    fn read(bytes: &[u8], query: &[u8]) -> io::Result<Vec<Service>> {
        Answer::new(bytes, query)?.services()
    }

    #[test]
    fn records_are_read_with_and_without_pointers() {
        // "m1" and then the question's name after "_etcd-server" and "_tcp".
        let (bytes, query) = answer([0x81, 0x80], &[(b"\x02m1\xc0\x1e", 2380), (b"\x01h\x02de\x00", 1)]);
        let found = read(&bytes, &query).unwrap();
        assert_eq!(found[0], Service { priority: 9, target: "m1.example.com".into(), port: 2380 });
        assert_eq!(found[1], Service { priority: 8, target: "h.de".into(), port: 1 });
        let (bytes, query) = answer([0x81, 0x83], &[]);
        assert_eq!(read(&bytes, &query).unwrap(), [], "there is no such name");
        let (bytes, query) = answer([0x81, 0x82], &[]);
        assert!(read(&bytes, &query).is_err(), "the server failed");
    }

    #[test]
    fn answers_to_other_questions_are_none() {
        let (bytes, query) = answer([0x81, 0x80], &[(b"\x01h\x00", 1)]);
        let mut other = bytes.clone();
        other[1] ^= 1;
        assert!(read(&other, &query).is_err(), "another id");
        let mut other = bytes.clone();
        other[15] ^= 1;
        assert!(read(&other, &query).is_err(), "another name");
        assert!(read(&query, &query).is_err(), "a question");
    }

    #[test]
    fn no_bytes_make_it_fail_otherwise_than_by_an_error() {
        let (bytes, query) = answer([0x81, 0x80], &[(b"\x02m1\xc0\x1e", 2380), (b"\x01h\x02de\x00", 1)]);
        for len in 0..bytes.len() {
            let _ = read(&bytes[..len], &query);
        }
        for at in 0..bytes.len() {
            for byte in [0, 1, 63, 64, 192, 255] {
                let mut changed = bytes.clone();
                changed[at] = byte;
                let _ = read(&changed, &query);
            }
        }
        let (bytes, query) = answer([0x81, 0x80], &[(b"\xc0\x45", 1), (b"\xc0\x45", 1)]);
        let at_itself = bytes.len() - 2;
        let mut endless = bytes.clone();
        endless[at_itself + 1] = u8::try_from(at_itself).unwrap();
        assert!(read(&endless, &query).is_err(), "a name that points to itself");
    }

    #[test]
    fn names_that_are_none_are_not_asked_for() {
        for name in ["", "a..b", &"x".repeat(64), &["abc"; 70].join(".")] {
            assert!(query(name, 1).is_err(), "{name}");
        }
        assert!(query("a.b.", 1).is_ok());
    }

    #[test]
    fn the_systems_servers_are_asked() {
        let conf = "# nameserver 9.9.9.9\nsearch x\nnameserver 10.0.0.1\nnameserver  fe80::1%eth0\nnameserver bad\n";
        let found: Vec<_> = servers(conf).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.1:53", "[fe80::1]:53"]);
        assert_eq!(servers("").len(), 1);
    }
}
