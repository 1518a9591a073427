//! Closed loops: so many calls under way, each answered one followed by the next.

use std::io;
use std::time::{Duration, Instant};

use crate::h2::{Event, Method, Pool, Sender};
use crate::histogram::Histogram;
use crate::proto::Message;
use crate::server::Target;

/// No server may keep the generator waiting longer.
const DRAIN_MAX: Duration = Duration::from_secs(60);
const TURN: Duration = Duration::from_millis(100);

/// What is asked for.
pub(crate) trait Load {
    /// Whether the answers' messages are wanted.
    const SHOWN: bool = false;

    /// Writes the next request of one of the loops.
    fn next(&mut self, slot: u64, message: &mut Message) -> Method;

    /// Takes an answer's message.
    fn message(&mut self, _slot: u64, _body: &[u8]) {}

    /// Whose calls they are: what a login gave.
    fn token(&self) -> Option<&str> {
        None
    }
}

/// How long, and how much at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) in_flight: u64,
    pub(crate) warm_up: Duration,
    pub(crate) measure: Duration,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    pub(crate) secs: f64,
    pub(crate) cpu_secs: f64,
    pub(crate) latency: Histogram,
}

impl Measured {
    /// Calls a second.
    pub(crate) fn rate(&self) -> f64 {
        self.latency.total() as f64 / self.secs
    }

    /// Counts what another run measured as a part of this one.
    pub(crate) fn add(&mut self, other: &Self) {
        self.secs += other.secs;
        self.cpu_secs += other.cpu_secs;
        self.latency.merge(&other.latency);
    }

    /// CPU of the server for one call, in microseconds.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.cpu_secs * 1e6 / self.latency.total().max(1) as f64
    }
}

/// Connections for so many calls under way: many streams over few, as a fleet of clients has them.
pub(crate) fn connections(in_flight: u64) -> usize {
    match in_flight {
        0..=1 => 1,
        2..=64 => 8,
        65..=256 => 16,
        _ => 20,
    }
}

/// Runs a load against a server and measures it after the warm-up.
///
/// # Errors
/// A broken connection, or a call that the server refused.
pub(crate) fn run(server: &impl Target, plan: Plan, load: &mut impl Load) -> io::Result<Measured> {
    run_split(server, plan, load, 0).map(|(measured, _)| measured)
}

/// The same, with the latencies of the first `apart` loops also by themselves; each of those loops
/// has a connection of its own.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_split(
    server: &impl Target,
    plan: Plan,
    load: &mut impl Load,
    apart: u64,
) -> io::Result<(Measured, Histogram)> {
    let mut of_apart = Histogram::default();
    let shared = connections(plan.in_flight) as u64;
    let mut pool = Pool::open(&server.addresses(), (apart + shared) as usize)?;
    pool.set_token(load.token());
    let mut message = Message::default();
    for slot in 0..plan.in_flight {
        let connection = if slot < apart { slot } else { apart + slot % shared };
        begin(pool.sender(connection as usize), slot, load, &mut message);
    }
    let mut measured = Measured::default();
    let begun = Instant::now();
    let (mut opened, mut closed) = (None, None);
    let (mut under_way, mut failed) = (plan.in_flight, 0u64);
    while under_way > 0 {
        let elapsed = begun.elapsed();
        if opened.is_none() && elapsed >= plan.warm_up {
            opened = Some((Instant::now(), server.cpu_secs()));
        }
        if let Some((since, cpu)) = opened.filter(|_| closed.is_none() && elapsed >= plan.warm_up + plan.measure) {
            measured.secs = since.elapsed().as_secs_f64();
            measured.cpu_secs = server.cpu_secs() - cpu;
            closed = Some(Instant::now());
        }
        if closed.is_some_and(|at| at.elapsed() > DRAIN_MAX) {
            return Err(io::Error::other(format!("{under_way} calls were never answered")));
        }
        let counting = opened.is_some() && closed.is_none();
        pool.turn(TURN, |sender, event| match event {
            Event::Message { token, body, .. } => load.message(token, body),
            Event::End { token, ok, nanos } => {
                failed += u64::from(!ok);
                if counting {
                    measured.latency.add(nanos);
                    if token < apart {
                        of_apart.add(nanos);
                    }
                }
                if closed.is_none() && failed == 0 {
                    begin(sender, token, load, &mut message);
                } else {
                    under_way -= 1;
                }
            }
        })?;
    }
    if failed > 0 { Err(io::Error::other(format!("{failed} calls were refused"))) } else { Ok((measured, of_apart)) }
}

/// Makes a fixed number of calls, as fast as `in_flight` under way allow.
///
/// # Errors
/// As [`run`].
pub(crate) fn repeat(server: &impl Target, in_flight: u64, count: u64, load: &mut impl Load) -> io::Result<Measured> {
    let mut pool = Pool::open(&server.addresses(), connections(in_flight))?;
    pool.set_token(load.token());
    let mut message = Message::default();
    let (begun, cpu) = (Instant::now(), server.cpu_secs());
    let mut made = in_flight.min(count);
    for slot in 0..made {
        begin(pool.sender(slot as usize), slot, load, &mut message);
    }
    let mut measured = Measured::default();
    let (mut under_way, mut failed) = (made, 0u64);
    let mut heard = Instant::now();
    while under_way > 0 {
        pool.turn(TURN, |sender, event| match event {
            Event::Message { token, body, .. } => load.message(token, body),
            Event::End { token, ok, nanos } => {
                heard = Instant::now();
                failed += u64::from(!ok);
                measured.latency.add(nanos);
                if made < count && failed == 0 {
                    made += 1;
                    begin(sender, token, load, &mut message);
                } else {
                    under_way -= 1;
                }
            }
        })?;
        if heard.elapsed() > DRAIN_MAX {
            return Err(io::Error::other(format!("{under_way} calls were never answered")));
        }
    }
    measured.secs = begun.elapsed().as_secs_f64();
    measured.cpu_secs = server.cpu_secs() - cpu;
    if failed > 0 { Err(io::Error::other(format!("{failed} calls were refused"))) } else { Ok(measured) }
}

fn begin<L: Load>(sender: &mut Sender, slot: u64, load: &mut L, message: &mut Message) {
    let method = load.next(slot, message.clear());
    sender.call(method, message.finish(), slot, L::SHOWN);
}

/// Makes one call and returns its message.
///
/// # Errors
/// A broken connection, a refusal, or no answer in time.
pub(crate) fn ask(server: &impl Target, method: Method, message: &mut Message) -> io::Result<Vec<u8>> {
    let mut pool = Pool::open(&server.addresses(), 1)?;
    pool.sender(0).call(method, message.finish(), 0, true);
    let (begun, mut answer, mut done) = (Instant::now(), Vec::new(), None);
    while done.is_none() {
        if begun.elapsed() > DRAIN_MAX {
            return Err(io::Error::other(format!("{method} was never answered")));
        }
        pool.turn(TURN, |_, event| match event {
            Event::Message { body, .. } => answer = body.to_vec(),
            Event::End { ok, .. } => done = Some(ok),
        })?;
    }
    if done == Some(true) { Ok(answer) } else { Err(io::Error::other(format!("{method} was refused"))) }
}
