//! What a control plane asks of its store: nodes' leases renewed, objects updated, a compaction now and then.
//!
//! ```text
//! every 5 ms: a txn as kube-apiserver's (if the key is as I know it, put, else get) ─► its answer: the key's revision
//!             every other one renews the next node's lease, the others update any object
//! every 30 s: compact up to where the last compaction was asked for, as kube-apiserver does
//! ```
//! Nothing here is fast. What counts is what each update costs: how long its client waits, processor time, memory, and
//! bytes that are given to the disk, which on many machines is what wears out or is paid for.

use std::io;
use std::time::{Duration, Instant};

use super::cluster::NAMES;
use super::loads::{Draw, KubeTxn, key, value};
use super::size::revision;
use super::{Bench, Figures, Metric};
use crate::h2::{COMPACT, Event, Pool, TXN};
use crate::histogram::Histogram;
use crate::load;
use crate::proto::Message;
use crate::server::{Server, Side};

pub(super) const ROWS: &[&str] =
    &["1 member: a control plane's updates, 200 a second", "3 members: a control plane's updates, 200 a second"];

const NODES: u64 = 1_000;
const OBJECTS: u64 = 2_000;
const LEASE_BYTES: usize = 400;
const OBJECT_BYTES: usize = 1 << 10;
/// Between two updates.
const PACE: Duration = Duration::from_millis(5);
/// Updates between two compactions: every 30 s.
const COMPACT_EVERY: u64 = 6_000;
/// The last answer, and what a server leaves for later.
const LATER: Duration = Duration::from_secs(6);

pub(super) fn run(bench: &mut Bench, side: &Side) -> io::Result<()> {
    for (row, names) in [(ROWS[0], &NAMES[..1]), (ROWS[1], &NAMES[..])] {
        if bench.wants(&[row]) {
            let members = Server::start_all(side, &bench.scratch, names, &[])?;
            bench.row(row, side, |bench| updates(&members, bench.size(24_000)));
        }
    }
    Ok(())
}

/// What the clients know, and how long they waited.
struct Clients {
    /// Each key's revision when last seen.
    known: Vec<u64>,
    latency: Histogram,
    refused: bool,
    txn: KubeTxn,
    lease: Vec<u8>,
    object: Vec<u8>,
    draw: Draw,
}

/// Each is sent when it is due, whether or not the ones before were answered.
fn updates(members: &[Server], count: u64) -> io::Result<Figures> {
    let addresses: Vec<_> = members.iter().map(|member| member.address).collect();
    let first = &members[0];
    let mut pool = Pool::open(&addresses, members.len())?;
    let mut clients = Clients {
        known: vec![0; (NODES + OBJECTS) as usize],
        latency: Histogram::default(),
        refused: false,
        txn: KubeTxn::default(),
        lease: value(LEASE_BYTES),
        object: value(OBJECT_BYTES),
        draw: Draw::new(),
    };
    let sum = |of: fn(&Server) -> f64| members.iter().map(of).sum::<f64>();
    let mut message = Message::default();
    for number in 0..NODES + OBJECTS {
        clients.send(&mut pool, number, &mut message);
        clients.take(&mut pool, Duration::from_millis(1))?;
    }
    clients.rest(&mut pool, NODES + OBJECTS)?;
    clients.latency = Histogram::default();
    let (cpu, written) = (sum(Server::cpu_secs), sum(Server::written_mib));
    let (begun, mut compact_at) = (Instant::now(), revision(first, &mut message)?);
    for at in 0..count {
        let due = begun + PACE * u32::try_from(at).unwrap_or(u32::MAX);
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            clients.take(&mut pool, left)?;
        }
        let number = if at % 2 == 0 { at / 2 % NODES } else { NODES + clients.draw.below(OBJECTS) };
        clients.send(&mut pool, number, &mut message);
        if at % COMPACT_EVERY == COMPACT_EVERY - 1 {
            load::ask(first, COMPACT, message.clear().int(1, compact_at))?;
            compact_at = revision(first, &mut message)?;
        }
    }
    clients.rest(&mut pool, count)?;
    Ok(vec![
        (Metric::P50Ms, clients.latency.percentile_ms(0.5)),
        (Metric::P99Ms, clients.latency.percentile_ms(0.99)),
        (Metric::CpuUs, (sum(Server::cpu_secs) - cpu) * 1e6 / count as f64),
        (Metric::MemoryMib, sum(Server::resident_mib)),
        (Metric::AnonymousMib, sum(Server::anonymous_mib)),
        (Metric::DiskMib, sum(Server::disk_mib)),
        (Metric::WrittenMib, sum(Server::written_mib) - written),
    ])
}

impl Clients {
    fn send(&mut self, pool: &mut Pool, number: u64, message: &mut Message) {
        let value = if number < NODES { &mut self.lease } else { &mut self.object };
        // What changes in the value keeps engines from storing it once.
        value[..8].copy_from_slice(&self.draw.below(u64::MAX).to_be_bytes());
        self.txn.write(message.clear(), &key(number), value, self.known[number as usize]);
        pool.sender(number as usize).call(TXN, message.finish(), number, true);
    }

    fn take(&mut self, pool: &mut Pool, wait: Duration) -> io::Result<()> {
        pool.turn(wait, |_, event| match event {
            Event::Message { token, body, .. } => {
                if let Some(revision) = KubeTxn::revision(body) {
                    self.known[token as usize] = revision;
                }
            }
            Event::End { ok, nanos, .. } => {
                self.refused |= !ok;
                self.latency.add(nanos);
            }
        })
    }

    /// Waits for the last answers, and for what the servers do later.
    fn rest(&mut self, pool: &mut Pool, count: u64) -> io::Result<()> {
        let ended = Instant::now();
        while ended.elapsed() < LATER {
            self.take(pool, LATER.saturating_sub(ended.elapsed()))?;
        }
        if self.refused || self.latency.total() != count {
            let answered = self.latency.total();
            return Err(io::Error::other(format!("{answered} of {count} were answered, or some refused")));
        }
        Ok(())
    }
}
