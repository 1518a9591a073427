//! What a calm control plane asks of its store: a hundred updates a second, and a compaction now and then.
//!
//! Nothing here is fast. What counts is what each update costs: how long its client waits, processor time, memory, and
//! bytes that are given to the disk, which on many machines is what wears out or is paid for.

use std::io;
use std::time::{Duration, Instant};

use super::cluster::NAMES;
use super::loads::Puts;
use super::size::revision;
use super::{Bench, Figures, Metric};
use crate::h2::{COMPACT, Event, Pool};
use crate::histogram::Histogram;
use crate::load::{self, Load};
use crate::proto::Message;
use crate::server::{Server, Side};

pub(super) const ROWS: &[&str] =
    &["100 updates a second of 1 KiB, compacted now and then", "3 members: 100 updates a second of 1 KiB at all"];

const KEYS: u64 = 2_000;
const VALUE_BYTES: usize = 1 << 10;
/// Between two updates.
const PACE: Duration = Duration::from_millis(10);
/// Updates between two compactions: every 15 s.
const COMPACT_EVERY: u64 = 1_500;
/// The last answer, and what a server leaves for later.
const LATER: Duration = Duration::from_secs(6);

pub(super) fn run(bench: &mut Bench, side: &Side) -> io::Result<()> {
    for (row, names) in [(ROWS[0], &NAMES[..1]), (ROWS[1], &NAMES[..])] {
        if bench.wants(&[row]) {
            let members = Server::start_all(side, &bench.scratch, names, &[])?;
            bench.row(row, side, |bench| updates(&members, bench.size(4_500)));
        }
    }
    Ok(())
}

/// Each is sent when it is due, whether or not the ones before were answered.
fn updates(members: &[Server], count: u64) -> io::Result<Figures> {
    let addresses: Vec<_> = members.iter().map(|member| member.address).collect();
    let first = &members[0];
    load::repeat(first, 16, KEYS, &mut Puts::in_turn(VALUE_BYTES))?;
    let sum = |of: fn(&Server) -> f64| members.iter().map(of).sum::<f64>();
    let (cpu, written) = (sum(Server::cpu_secs), sum(Server::written_mib));
    let mut pool = Pool::open(&addresses, members.len())?;
    let (mut puts, mut message) = (Puts::any(KEYS, VALUE_BYTES), Message::default());
    let (mut latency, mut refused, begun) = (Histogram::default(), false, Instant::now());
    for at in 0..count {
        let due = begun + PACE * u32::try_from(at).unwrap_or(u32::MAX);
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            take(&mut pool, left, &mut latency, &mut refused)?;
        }
        let method = puts.next(0, message.clear());
        pool.sender(at as usize).call(method, message.finish(), at, false);
        if at % COMPACT_EVERY == COMPACT_EVERY - 1 {
            let revision = revision(first, &mut message)?;
            load::ask(first, COMPACT, message.clear().int(1, revision))?;
        }
    }
    let ended = Instant::now();
    while ended.elapsed() < LATER {
        take(&mut pool, LATER.saturating_sub(ended.elapsed()), &mut latency, &mut refused)?;
    }
    if refused || latency.total() != count {
        return Err(io::Error::other(format!("{} of {count} were answered, or some refused", latency.total())));
    }
    Ok(vec![
        (Metric::P50Ms, latency.percentile_ms(0.5)),
        (Metric::P99Ms, latency.percentile_ms(0.99)),
        (Metric::CpuUs, (sum(Server::cpu_secs) - cpu) * 1e6 / count as f64),
        (Metric::MemoryMib, sum(Server::resident_mib)),
        (Metric::DiskMib, sum(Server::disk_mib)),
        (Metric::WrittenMib, sum(Server::written_mib) - written),
    ])
}

fn take(pool: &mut Pool, wait: Duration, latency: &mut Histogram, refused: &mut bool) -> io::Result<()> {
    pool.turn(wait, |_, event| {
        if let Event::End { ok, nanos, .. } = event {
            *refused |= !ok;
            latency.add(nanos);
        }
    })
}
