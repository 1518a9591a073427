//! Leases: granted, kept alive, and many due at once.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use super::loads::{Grants, LeasedPuts, Puts, key};
use super::{Bench, Figures, Metric, figures};
use crate::h2::{Event, LEASE_KEEP_ALIVE, Pool, RANGE};
use crate::load::{self, Load, Measured};
use crate::proto::{self, Message};
use crate::server::{Server, Side};

pub(super) const ROWS: &[&str] = &["lease grant, 1000 in flight", "lease keep-alive, 1000 in flight"];
pub(super) const EXPIRY_ROWS: &[&str] = &["100 k leases with a key each, due at once"];

/// The first id; ids from here on are ours.
const FIRST_ID: u64 = 60_000_000;
const STREAMS: u64 = 20;
const PER_STREAM: u64 = 50;
const TURN: Duration = Duration::from_millis(100);
/// Past the moment when the last one is due.
const EXPIRY_MAX: Duration = Duration::from_secs(180);

pub(super) fn run(bench: &mut Bench, side: &Side) -> io::Result<()> {
    let server = Server::start(side, &bench.scratch, &[])?;
    let mut grants = Grants { ttl_secs: 3_600, next_id: FIRST_ID };
    load::repeat(&server, 64, STREAMS * PER_STREAM, &mut grants)?;
    bench.settle(&server);
    bench.row(ROWS[1], side, |bench| keep_alive(bench, &server));
    bench.row(ROWS[0], side, |bench| Ok(figures(&load::run(&server, bench.plan(1000), &mut grants)?)));
    Ok(())
}

/// Each lease has one keep-alive under way, fifty to a stream.
fn keep_alive(bench: &Bench, server: &Server) -> io::Result<Figures> {
    let mut pool = Pool::open(&[server.address], STREAMS as usize / 2)?;
    let (mut message, mut sent) = (Message::default(), HashMap::<u64, VecDeque<u64>>::new());
    for stream in 0..STREAMS {
        let sender = pool.sender(stream as usize);
        sent.entry(stream).or_default().push_back(sender.now());
        sender.open(LEASE_KEEP_ALIVE, message.clear().int(1, FIRST_ID + stream * PER_STREAM).finish(), stream);
    }
    let (plan, mut measured) = (bench.plan(STREAMS * PER_STREAM), Measured::default());
    let (begun, mut opened, mut broken) = (Instant::now(), None, false);
    let mut filled = vec![false; STREAMS as usize];
    while begun.elapsed() < plan.warm_up + plan.measure {
        if opened.is_none() && begun.elapsed() >= plan.warm_up {
            opened = Some((Instant::now(), server.cpu_secs()));
        }
        pool.turn(TURN, |sender, event| match event {
            Event::Message { token, stream, body } => {
                let now = sender.now();
                let queue = sent.entry(token).or_default();
                if let Some(at) = queue.pop_front().filter(|_| opened.is_some()) {
                    measured.latency.add(now - at);
                }
                // A lease that is gone answers with TTL 0.
                broken |= proto::int(body, 3).is_none();
                let first = !std::mem::replace(&mut filled[token as usize], true);
                let id = proto::int(body, 2).unwrap_or(0);
                for more in 0..if first { PER_STREAM } else { 1 } {
                    queue.push_back(now);
                    sender.send(stream, message.clear().int(1, id + more).finish());
                }
            }
            Event::End { .. } => broken = true,
        })?;
        if broken {
            return Err(io::Error::other("a stream ended or a lease was gone"));
        }
    }
    if let Some((since, cpu)) = opened {
        measured.secs = since.elapsed().as_secs_f64();
        measured.cpu_secs = server.cpu_secs() - cpu;
    }
    Ok(figures(&measured))
}

pub(super) fn run_expiry(bench: &mut Bench, side: &Side) -> io::Result<()> {
    let server = Server::start(side, &bench.scratch, &[])?;
    bench.row(EXPIRY_ROWS[0], side, |bench| expiry(&server, bench.size(100_000)));
    Ok(())
}

/// Seconds from the moment when the last lease is due until no key is left; puts go on meanwhile.
fn expiry(server: &Server, leases: u64) -> io::Result<Figures> {
    // Time enough to put the keys, on either side.
    let ttl = Duration::from_secs(if leases > 20_000 { 40 } else { 10 });
    load::repeat(server, 256, leases, &mut Grants { ttl_secs: ttl.as_secs(), next_id: FIRST_ID })?;
    let due = Instant::now() + ttl;
    load::repeat(server, 256, leases, &mut LeasedPuts { next_id: FIRST_ID })?;
    let cpu = server.cpu_secs();
    while Instant::now() < due.checked_sub(Duration::from_secs(6)).unwrap_or(due) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut pool = Pool::open(&[server.address], 2)?;
    let mut message = Message::default();
    let mut puts = Puts::any(1000, 256);
    let (mut latency, mut left) = (crate::histogram::Histogram::default(), leases);
    let (mut asked, mut put_under_way, mut count_under_way) = (Instant::now(), false, false);
    while left > 0 {
        if due.elapsed() > EXPIRY_MAX {
            return Err(io::Error::other(format!(
                "{left} keys are left {} s after they were due",
                EXPIRY_MAX.as_secs()
            )));
        }
        if !put_under_way {
            let method = puts.next(0, message.clear());
            pool.sender(0).call(method, message.finish(), 0, false);
            put_under_way = true;
        }
        if !count_under_way && asked.elapsed() > Duration::from_millis(250) {
            asked = Instant::now();
            let end = key(FIRST_ID + leases);
            let body = message.clear().bytes(1, &key(FIRST_ID)).bytes(2, &end).int(9, 1).finish();
            pool.sender(1).call(RANGE, body, 1, true);
            count_under_way = true;
        }
        pool.turn(TURN, |_, event| match event {
            Event::Message { body, .. } => left = proto::int(body, 4).unwrap_or(0),
            Event::End { token: 0, nanos, .. } => {
                put_under_way = false;
                latency.add(nanos);
            }
            Event::End { .. } => count_under_way = false,
        })?;
    }
    Ok(vec![
        (Metric::Secs, Instant::now().saturating_duration_since(due).as_secs_f64()),
        (Metric::CpuUs, (server.cpu_secs() - cpu) * 1e6 / leases as f64),
        (Metric::P99Ms, latency.percentile_ms(0.99)),
        (Metric::MaxMs, latency.max_ms()),
    ])
}
