//! How long nothing is written when the leader of three members goes, with both servers' own timeouts.
//!
//! ```text
//! puts at the two that stay ─► SIGKILL ─► a put more at each, every 10 ms ─► the first acknowledged one ─► it comes back
//!                           └► SIGTERM ─► a put more at each, every 10 ms ─► two seconds: the longest time without one ─► …
//! ```
//! Only what was sent after that counts: what was under way may be lost, and is waited for in vain.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::cluster::{NAMES, leader};
use super::loads::Puts;
use super::{Bench, Figures, Metric};
use crate::h2::{Event, Pool, Sender};
use crate::load::{self, Load};
use crate::proto::Message;
use crate::server::{Server, Side};

pub(super) const ROWS: &[&str] = &[
    "3 members: leader killed under load, to the next acknowledged put",
    "3 members: leader ended under load, longest time without an acknowledged put",
];

const KEYS: u64 = 10_000;
const TIMES: usize = 20;
/// Enough to see that it works, with `--quick`.
const TIMES_QUICK: usize = 4;
/// Puts under way before it, at the two that stay.
const IN_FLIGHT: u64 = 64;
/// One that was asked to end takes writes for a while.
const WATCHED: Duration = Duration::from_secs(2);
/// How long they run before it.
const LOADED: Duration = Duration::from_secs(1);
/// Between two puts more at each, after it.
const TRY: Duration = Duration::from_millis(10);
/// How long a leader, or the first acknowledgement, is waited for.
const COMES_MAX: Duration = Duration::from_secs(60);
/// For the one that came back to be in step.
const REST: Duration = Duration::from_secs(1);

/// How a leader goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Killed,
    Ended,
}

pub(super) fn run(bench: &mut Bench, side: &Side) -> io::Result<()> {
    let mut members = Server::start_all(side, &bench.scratch, &NAMES, &[])?;
    for (row, way) in ROWS.iter().zip([Way::Killed, Way::Ended]) {
        bench.row(row, side, |bench| leaders(&mut members, way, if bench.quick { TIMES_QUICK } else { TIMES }));
    }
    Ok(())
}

fn leaders(members: &mut [Server], way: Way, times: usize) -> io::Result<Figures> {
    load::repeat(&members[0], 64, KEYS, &mut Puts::in_turn(256))?;
    let mut took = Vec::new();
    for _ in 0..times {
        let leads = leader_soon(members)?;
        took.push(without(members, leads, way)?.as_secs_f64());
        if let Some(member) = members.iter_mut().find(|member| member.address == leads) {
            member.wait_end()?;
            member.relaunch()?;
            member.wait_ready()?;
        }
        std::thread::sleep(REST);
    }
    let shown: Vec<_> = took.iter().map(|secs| format!("{secs:.2}")).collect();
    eprintln!("  each: {} s", shown.join(" "));
    took.sort_by(f64::total_cmp);
    Ok(vec![(Metric::MedianSecs, took[took.len() / 2]), (Metric::WorstSecs, took[took.len() - 1])])
}

/// Where the leader is, once there is one.
fn leader_soon(members: &[Server]) -> io::Result<SocketAddr> {
    let begun = Instant::now();
    loop {
        match leader(members) {
            Err(_) if begun.elapsed() < COMES_MAX => std::thread::sleep(TRY),
            known => return known,
        }
    }
}

/// From the kill to the first acknowledgement of a put that was sent after it; or, for as long as one that was asked to end
/// is watched, the longest time between two of them.
fn without(members: &mut [Server], leads: SocketAddr, way: Way) -> io::Result<Duration> {
    let others: Vec<_> = members.iter().map(|member| member.address).filter(|address| *address != leads).collect();
    let mut pool = Pool::open(&others, 2 * others.len())?;
    let (mut puts, mut message) = (Puts::any(KEYS, 256), Message::default());
    let mut put = |sender: &mut Sender, slot| {
        let method = puts.next(slot, message.clear());
        sender.call(method, message.finish(), slot, false);
    };
    for slot in 0..IN_FLIGHT {
        put(pool.sender(slot as usize), slot);
    }
    let (begun, mut acknowledged, mut refused) = (Instant::now(), 0, Vec::new());
    let (mut gone, mut tried) = (None, Instant::now());
    // Since when there is none, and the longest time so far.
    let (mut since, mut longest) = (0, None);
    loop {
        if gone.is_none() && begun.elapsed() >= LOADED {
            if acknowledged == 0 {
                return Err(io::Error::other("nothing was written before it"));
            }
            since = pool.sender(0).now();
            gone = Some(since);
            members.iter_mut().filter(|member| member.address == leads).try_for_each(|member| match way {
                Way::Killed => member.kill(),
                Way::Ended => member.ask_to_end(),
            })?;
        }
        let watched = gone.is_some_and(|at| Duration::from_nanos(since - at) >= WATCHED);
        if watched || (way == Way::Killed && longest.is_some()) {
            break;
        }
        if tried.elapsed() >= TRY {
            tried = Instant::now();
            // What is refused at once would otherwise be asked as fast as that.
            refused.drain(..).for_each(|slot| put(pool.sender(slot as usize), slot));
            if gone.is_some() {
                (0..others.len()).for_each(|at| put(pool.sender(at), IN_FLIGHT));
            }
        }
        if begun.elapsed() > COMES_MAX {
            return Err(io::Error::other("writes don't go on"));
        }
        pool.turn(TRY / 4, |sender, event| {
            let Event::End { token, ok, nanos } = event else { return };
            let now = sender.now();
            if gone.is_some_and(|at| ok && now - nanos >= at) && !(way == Way::Killed && longest.is_some()) {
                longest = longest.max(Some(now.saturating_sub(since)));
                since = now;
            }
            acknowledged += u64::from(ok);
            // Each loop goes on; those beside them were for once.
            match (token < IN_FLIGHT, ok) {
                (true, true) => put(sender, token),
                (true, false) => refused.push(token),
                (false, _) => {}
            }
        })?;
    }
    Ok(Duration::from_nanos(longest.unwrap_or_default()))
}
