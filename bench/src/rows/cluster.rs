//! Three members of a cluster on one core: at the leader, at the followers, at all of them.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::loads::{Draw, Gets, Puts};
use super::{Bench, Metric, figures};
use crate::h2::{COMPACT, PUT, STATUS};
use crate::load::{self, Load, Plan};
use crate::proto::{self, Message};
use crate::server::{Server, Side, Target};

pub(super) const ROWS: &[&str] = &[
    "3 members: put at the leader, 1 in flight",
    "3 members: put at the leader, 256 in flight",
    "3 members: put at all, 256 in flight",
    "3 members: put at all, 1000 in flight",
    "3 members: get linearizable at the leader, 256 in flight",
    "3 members: get linearizable at followers, 256 in flight",
    "3 members: get linearizable at all, 1000 in flight",
];

/// A put's latencies with a member down, the same while it gets a snapshot, and the time until that is there.
pub(super) const BEHIND_ROWS: &[&str] = &[
    "3 members, 1 M keys: put, 8 in flight, one is down",
    "3 members, 1 M keys: the same while it comes back and gets a snapshot",
    "3 members, 1 M keys: the snapshot, until it answers linearizable reads",
];

/// The same with the core full.
pub(super) const BEHIND_BUSY_ROWS: &[&str] = &[
    "3 members, 1 M keys, 64 in flight: put, one is down",
    "3 members, 1 M keys, 64 in flight: the same while it comes back and gets a snapshot",
    "3 members, 1 M keys, 64 in flight: the snapshot, until it answers linearizable reads",
];

const KEYS: u64 = 100_000;
/// What a member that was down from the beginning lacks.
const MISSED: u64 = 1_000_000;
/// How often the servers are waited for to rest, and for how long each has to seem busy again.
const RESTS: usize = 4;
const REST: Duration = Duration::from_secs(1);
/// How long is measured while it comes back: until it has the snapshot and what came after it.
const BEHIND_FOR: Duration = Duration::from_secs(15);
pub(super) const NAMES: [&str; 3] = ["one", "two", "three"];

/// A part of the members as clients see it; the CPU is that of all.
struct Part<'a> {
    members: &'a [Server],
    addresses: Vec<SocketAddr>,
}

impl Target for Part<'_> {
    fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    fn cpu_secs(&self) -> f64 {
        self.members.iter().map(Server::cpu_secs).sum()
    }
}

pub(super) fn run(bench: &mut Bench, side: &Side) -> io::Result<()> {
    let members = Server::start_all(side, &bench.scratch, &NAMES, &[])?;
    let leader = leader(&members)?;
    let part = |wanted: &dyn Fn(SocketAddr) -> bool| Part {
        members: &members,
        addresses: members.iter().map(|member| member.address).filter(|address| wanted(*address)).collect(),
    };
    let (leads, follow, all) = (part(&|at| at == leader), part(&|at| at != leader), part(&|_| true));
    load::repeat(&leads, 256, KEYS, &mut Puts::in_turn(256))?;
    let puts = || Puts::any(KEYS, 256);
    let gets = || Gets { keys: KEYS, serializable: false, draw: Draw::new() };
    row(bench, ROWS[0], side, &leads, 1, &mut puts());
    row(bench, ROWS[1], side, &leads, 256, &mut puts());
    row(bench, ROWS[2], side, &all, 256, &mut puts());
    row(bench, ROWS[3], side, &all, 1000, &mut puts());
    row(bench, ROWS[4], side, &leads, 256, &mut gets());
    row(bench, ROWS[5], side, &follow, 256, &mut gets());
    row(bench, ROWS[6], side, &all, 1000, &mut gets());
    Ok(())
}

fn row(bench: &mut Bench, name: &'static str, side: &Side, part: &Part<'_>, in_flight: u64, load: &mut impl Load) {
    bench.row(name, side, |bench| {
        bench.settle(part);
        let mut figures = figures(&load::run(part, bench.plan(in_flight), load)?);
        let memory = part.members.iter().map(Server::resident_mib).sum();
        figures.push((Metric::MemoryMib, memory));
        Ok(figures)
    });
}

/// A member that missed everything comes back under load; the puts are the others'.
///
/// Few in flight, so that the core which all three share has room: a member of a real cluster has its own.
pub(super) fn run_behind(bench: &mut Bench, side: &Side) -> io::Result<()> {
    behind(bench, side, BEHIND_ROWS, 8)
}

pub(super) fn run_behind_busy(bench: &mut Bench, side: &Side) -> io::Result<()> {
    behind(bench, side, BEHIND_BUSY_ROWS, 64)
}

fn behind(bench: &mut Bench, side: &Side, rows: &[&'static str], in_flight: u64) -> io::Result<()> {
    let mut members = Server::start_all(side, &bench.scratch, &NAMES, &[])?;
    let leader = leader(&members)?;
    let at = members.iter().position(|member| member.address != leader).unwrap_or_default();
    let mut down = members.swap_remove(at);
    down.kill()?;
    let part = Part { members: &members, addresses: vec![leader] };
    let keys = bench.size(MISSED);
    load::repeat(&part, 256, keys, &mut Puts::in_turn(256))?;
    // More log than state: each server has taken a snapshot then, and its log no longer reaches back.
    load::repeat(&part, 256, keys / 4, &mut Puts::any(keys, 256))?;
    let mut message = Message::default();
    let answer = load::ask(&part, PUT, message.clear().bytes(1, b"marker"))?;
    let revision = proto::bytes(&answer, 1).and_then(|header| proto::int(header, 3)).unwrap_or(0);
    load::ask(&part, COMPACT, message.clear().int(1, revision))?;
    // Several times: what is compacted goes in steps with pauses between them.
    for _ in 0..RESTS {
        std::thread::sleep(REST);
        bench.settle(&part);
    }
    let plan = Plan { measure: Duration::from_secs(8), ..bench.plan(in_flight) };
    row_with(bench, rows[0], side, &part, plan, &mut Puts::any(keys, 256));
    down.relaunch()?;
    let plan = Plan { measure: BEHIND_FOR, ..plan };
    let ready = std::thread::scope(|scope| {
        // Looked at meanwhile: the load takes longer than a snapshot may.
        let ready = scope.spawn(|| down.wait_ready());
        row_with(bench, rows[1], side, &part, plan, &mut Puts::any(keys, 256));
        ready.join()
    });
    bench.row(rows[2], side, |_| {
        ready.map_err(|_| io::Error::other("the look at the member panicked"))??;
        Ok(vec![(Metric::Secs, down.ready_after.as_secs_f64()), (Metric::PeakMib, down.peak_mib())])
    });
    Ok(())
}

fn row_with(bench: &mut Bench, name: &'static str, side: &Side, part: &Part<'_>, plan: Plan, load: &mut Puts) {
    bench.row(name, side, |_| Ok(figures(&load::run(part, plan, load)?)));
}

/// Where the leader is.
pub(super) fn leader(members: &[Server]) -> io::Result<SocketAddr> {
    for member in members {
        let status = load::ask(member, STATUS, Message::default().clear())?;
        let id = proto::bytes(&status, 1).and_then(|header| proto::int(header, 2));
        if id.is_some() && id == proto::int(&status, 4) {
            return Ok(member.address);
        }
    }
    Err(io::Error::other("no member says that it leads"))
}
