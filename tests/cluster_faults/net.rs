//! The network between members: every byte from one to another passes here and can be held or delayed.
//!
//! ```text
//! member A ─► B's proxy (the peer URL that B advertises) ─► who called? ─► A→B held? delayed? ─► B's peer port
//!          ◄─────────────────────────────────────────────── B→A held? delayed? ◄──────────────┘
//! ```
//! What is held comes late, as with a network that is repaired before the connection is given up: old
//! requests arrive in a new term. Who called is found by the port that the call came from, in the
//! kernel's table and among the open files of the members' processes.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Pieces that are under way in one direction of a connection.
const PIECES: usize = 64;

/// One direction between two members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Link {
    held: bool,
    delay: Duration,
    /// Bytes a second on each connection; 0 for any number.
    rate: u32,
    /// At most so much besides, by chance, piece by piece.
    jitter: Duration,
    /// In how many of a hundred cases a piece is lost at first, and so it and what follows comes as late as TCP repeats it.
    lost_percent: u8,
}

/// The least time after which Linux repeats what was not acknowledged.
const REPEATED_AFTER: Duration = Duration::from_millis(200);

type Links = watch::Sender<BTreeMap<(usize, usize), Link>>;
type Pids = Arc<Mutex<BTreeMap<u32, usize>>>;

/// All proxies of a cluster; gone at drop.
pub(crate) struct Net {
    links: Arc<Links>,
    pids: Pids,
    tasks: Vec<JoinHandle<()>>,
}

impl Net {
    pub(crate) fn new() -> Self {
        Self { links: Arc::new(watch::Sender::new(BTreeMap::new())), pids: Arc::default(), tasks: Vec::new() }
    }

    /// Puts a proxy in front of member `to`, whose peer port is `port`; gives the proxy's.
    pub(crate) async fn proxy(&mut self, to: usize, port: u16) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", crate::ports::free())).await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (links, pids) = (self.links.clone(), self.pids.clone());
        self.tasks.push(tokio::spawn(async move {
            loop {
                let Ok((stream, caller)) = listener.accept().await else { continue };
                tokio::spawn(serve(stream, caller, to, port, links.clone(), pids.clone()));
            }
        }));
        own
    }

    /// Says which process is whose. Whoever had the place before may still be there.
    pub(crate) fn is_process(&self, pid: u32, member: usize) {
        self.pids.lock().unwrap().insert(pid, member);
    }

    fn change(&self, from: usize, to: usize, change: impl FnOnce(&mut Link)) {
        self.links.send_modify(|links| change(links.entry((from, to)).or_default()));
    }

    /// Holds what goes from one member to another.
    pub(crate) fn hold(&self, from: usize, to: usize) {
        self.change(from, to, |link| link.held = true);
    }

    /// Holds everything between one member and the others.
    pub(crate) fn isolate(&self, member: usize, members: usize) {
        for other in (0..members).filter(|other| *other != member) {
            self.hold(member, other);
            self.hold(other, member);
        }
    }

    /// Makes one direction slow.
    pub(crate) fn delay(&self, from: usize, to: usize, delay: Duration) {
        self.change(from, to, |link| link.delay = delay);
    }

    /// Makes one direction narrow, on each connection.
    pub(crate) fn narrow(&self, from: usize, to: usize, bytes_per_second: u32) {
        self.change(from, to, |link| link.rate = bytes_per_second);
    }

    /// Makes one direction slow, uneven and lossy.
    pub(crate) fn worsen(&self, from: usize, to: usize, delay: Duration, jitter: Duration, lost_percent: u8) {
        self.change(from, to, |link| *link = Link { delay, jitter, lost_percent, ..*link });
    }

    /// Everything passes again.
    pub(crate) fn heal(&self) {
        self.links.send_replace(BTreeMap::new());
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Which member's process has the socket that called from this port to that one: several may call from the same, elsewhere.
fn who_called(port: u16, to: u16, pids: &Pids) -> Option<usize> {
    let (from, to) = (format!(":{port:04X}"), format!(":{to:04X}"));
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let is_at = |fields: &[String], place: usize, end: &str| fields.get(place).is_some_and(|at| at.ends_with(end));
    let inode = table.lines().map(fields).find(|fields| is_at(fields, 1, &from) && is_at(fields, 2, &to))?;
    let wanted = format!("socket:[{}]", inode.get(9)?);
    let pids = pids.lock().unwrap().clone();
    let has_it = |pid: u32| {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.into_iter().any(|file| fs::read_link(file.path()).is_ok_and(|to| to.to_string_lossy() == wanted))
    };
    pids.into_iter().find(|(pid, _)| has_it(*pid)).map(|(_, member)| member)
}

async fn serve(stream: TcpStream, caller: SocketAddr, to: usize, port: u16, links: Arc<Links>, pids: Pids) {
    let Ok(own) = stream.local_addr() else { return };
    let from = tokio::task::spawn_blocking(move || who_called(caller.port(), own.port(), &pids)).await.unwrap();
    // It is gone already.
    let Some(from) = from else { return };
    // Nobody listens there: the caller sees its connection end.
    let Ok(onward) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let _ = (stream.set_nodelay(true), onward.set_nodelay(true));
    let (near_read, near_write) = stream.into_split();
    let (far_read, far_write) = onward.into_split();
    tokio::join!(
        carry(near_read, far_write, (from, to), links.subscribe()),
        carry(far_read, near_write, (to, from), links.subscribe()),
    );
}

/// Carries one direction until either end closes it.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    way: (usize, usize),
    mut links: watch::Receiver<BTreeMap<(usize, usize), Link>>,
) {
    let (send, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES);
    let read = async move {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count) = from.read(&mut buffer).await {
            if count == 0 || send.send((Instant::now(), buffer[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((read_at, piece)) = pieces.recv().await {
            let link = |links: &BTreeMap<_, Link>| links.get(&way).copied().unwrap_or_default();
            let Link { delay, rate, jitter, lost_percent, .. } = link(&links.borrow());
            let is_lost = rand::rng().random_range(0..100) < lost_percent;
            let repeated = if is_lost { REPEATED_AFTER } else { Duration::ZERO };
            let uneven = jitter.mul_f64(rand::rng().random());
            tokio::time::sleep_until(read_at + delay + uneven + repeated).await;
            if rate > 0 {
                tokio::time::sleep(Duration::from_secs_f64(piece.len() as f64 / f64::from(rate))).await;
            }
            if links.wait_for(|links| !link(links).held).await.is_err() || to.write_all(&piece).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}
