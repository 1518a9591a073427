//! Many watchers of one prefix: events delivered, and how long after the put.

use std::io;
use std::time::{Duration, Instant};

use super::{Bench, Figures, Metric};
use crate::h2::{Event, PUT, Pool, Sender, WATCH};
use crate::histogram::Histogram;
use crate::proto::{self, Fields, Message, Value};
use crate::server::{Server, Side};

pub(super) const ROWS: &[&str] = &[
    "watch, 1 000 watchers, 4 puts in flight",
    "watch, 1 000 watchers, 256 puts in flight",
    "watch, 10 000 watchers, 4 puts in flight",
    "watch, 10 000 watchers, 256 puts in flight",
];

/// Connections that watch; the puts have others.
const WATCH_CONNECTIONS: u64 = 10;
const PUT_CONNECTIONS: u64 = 4;
const WATCHERS_PER_STREAM: u64 = 100;
/// Tokens from here on are watch streams.
const STREAM_TOKENS: u64 = 1 << 32;
/// One of so many messages is opened to see how old its first event is.
const SAMPLE: u64 = 16;
const SET_UP_MAX: Duration = Duration::from_secs(60);
const TURN: Duration = Duration::from_millis(100);

pub(super) fn run(bench: &mut Bench, side: &Side) -> io::Result<()> {
    for (name, (watchers, puts)) in ROWS.iter().zip([(1_000, 4), (1_000, 256), (10_000, 4), (10_000, 256)]) {
        if bench.wants(&[name]) {
            let server = Server::start(side, &bench.scratch, &[])?;
            bench.row(name, side, |bench| measure(bench, &server, watchers, puts));
        }
    }
    Ok(())
}

#[derive(Default)]
struct Watching {
    created: u64,
    ended: bool,
    messages: u64,
    events: u64,
    delays: Histogram,
}

impl Watching {
    fn message(&mut self, now: u64, body: &[u8]) {
        self.messages += 1;
        let mut first = None;
        let mut events = 0;
        for (field, value) in Fields(body) {
            match (field, value) {
                (3, Value::Int(1)) => self.created += 1,
                (4, Value::Int(1)) => self.ended = true,
                (11, Value::Bytes(event)) => {
                    events += 1;
                    first.get_or_insert(event);
                }
                _ => {}
            }
        }
        self.events += events;
        if let Some(event) = first.filter(|_| self.messages.is_multiple_of(SAMPLE)) {
            let sent = proto::bytes(event, 2)
                .and_then(|kv| proto::bytes(kv, 5))
                .and_then(|value| value.first_chunk::<8>().copied())
                .map_or(now, u64::from_be_bytes);
            self.delays.add(now.saturating_sub(sent));
        }
    }
}

fn measure(bench: &Bench, server: &Server, watchers: u64, puts: u64) -> io::Result<Figures> {
    let mut pool = Pool::open(&[server.address], (WATCH_CONNECTIONS + PUT_CONNECTIONS) as usize)?;
    let (mut message, mut watching) = (Message::default(), Watching::default());
    create_watchers(&mut pool, watchers, &mut message, &mut watching)?;
    for slot in 0..puts {
        put(pool.sender((WATCH_CONNECTIONS + slot % PUT_CONNECTIONS) as usize), slot, &mut message);
    }
    let plan = bench.plan(puts);
    let (begun, mut opened, mut refused) = (Instant::now(), None, false);
    while begun.elapsed() < plan.warm_up + plan.measure {
        if opened.is_none() && begun.elapsed() >= plan.warm_up {
            watching = Watching::default();
            opened = Some((Instant::now(), server.cpu_secs()));
        }
        pool.turn(TURN, |sender, event| match event {
            Event::Message { body, .. } => watching.message(sender.now(), body),
            Event::End { token, ok, .. } => {
                refused |= !ok || token >= STREAM_TOKENS;
                if token < STREAM_TOKENS && ok {
                    put(sender, token, &mut message);
                }
            }
        })?;
        if refused || watching.ended {
            return Err(io::Error::other("a put was refused or a watch ended"));
        }
    }
    let (since, cpu) = opened.ok_or_else(|| io::Error::other("no time to measure"))?;
    let events = watching.events.max(1) as f64;
    Ok(vec![
        (Metric::Rate, events / since.elapsed().as_secs_f64()),
        (Metric::CpuUs, (server.cpu_secs() - cpu) * 1e6 / events),
        (Metric::P50Ms, watching.delays.percentile_ms(0.5)),
        (Metric::P99Ms, watching.delays.percentile_ms(0.99)),
        (Metric::MaxMs, watching.delays.max_ms()),
        (Metric::MemoryMib, server.resident_mib()),
    ])
}

fn create_watchers(pool: &mut Pool, watchers: u64, message: &mut Message, watching: &mut Watching) -> io::Result<()> {
    let mut create = Message::default();
    create.clear().bytes(1, b"w").bytes(2, b"x");
    let streams = watchers / WATCHERS_PER_STREAM;
    for stream in 0..streams {
        let connection = (stream % WATCH_CONNECTIONS) as usize;
        let body = message.clear().bytes(1, create.fields()).finish();
        pool.sender(connection).open(WATCH, body, STREAM_TOKENS + stream);
    }
    // The first answer on a stream tells its id; the other watchers follow on it.
    let begun = Instant::now();
    let mut begun_streams = std::collections::BTreeSet::new();
    while watching.created < watchers {
        if begun.elapsed() > SET_UP_MAX || watching.ended {
            return Err(io::Error::other(format!("only {} watchers of {watchers} came up", watching.created)));
        }
        pool.turn(TURN, |sender, event| match event {
            Event::Message { stream, token, body } => {
                watching.message(0, body);
                if begun_streams.insert(token) {
                    for _ in 1..WATCHERS_PER_STREAM {
                        sender.send(stream, message.clear().bytes(1, create.fields()).finish());
                    }
                }
            }
            Event::End { .. } => watching.ended = true,
        })?;
    }
    Ok(())
}

/// A put whose value begins with the time.
fn put(sender: &mut Sender, slot: u64, message: &mut Message) {
    let mut value = [b'v'; 64];
    value[..8].copy_from_slice(&sender.now().to_be_bytes());
    let key = format!("w{slot:04}");
    sender.call(PUT, message.clear().bytes(1, key.as_bytes()).bytes(2, &value).finish(), slot, false);
}
