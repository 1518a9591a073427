//! A simulated world: members on their disks, clients, and everything that is known of them.
//!
//! ```text
//! drive (time, faults) ─► turmoil ─┬─► member.rs × 3…5 ── door.rs ◄── requests ── client.rs × 3, watcher.rs × 3
//!                                  │     disk.rs, spawn.rs, clock.rs, net.rs: the doors of `rusd::env`
//!                                  └─► World: ledger, history, watchers, trace ─► oracles
//! ```

pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod disk;
pub(crate) mod door;
pub(crate) mod drive;
pub(crate) mod faults;
pub(crate) mod member;
pub(crate) mod net;
pub(crate) mod spawn;
pub(crate) mod trace;
pub(crate) mod watcher;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusd::storage::backend::MemoryImage;
use rusd_sim::check::leases::Expiries;
use rusd_sim::check::members::{Members, Published};
use rusd_sim::history::{Micros, Op};
use rusd_sim::ledger::{Change, Ledger};
use rusd_sim::random::Rand;
use tokio::sync::mpsc;

use clock::Skew;
use disk::SimDisk;
use door::Request;
use trace::Trace;

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    pub(crate) members: usize,
    pub(crate) length: Duration,
    pub(crate) verbose: bool,
}

/// A member's machine, which outlives its boots.
pub(crate) struct Host {
    pub(crate) at: usize,
    pub(crate) name: String,
    pub(crate) disk: SimDisk,
    /// What its engine has flushed.
    pub(crate) image: MemoryImage,
    pub(crate) skew: Skew,
    pub(crate) boots: AtomicU64,
    /// Where clients reach the running boot.
    pub(crate) port: Mutex<Option<mpsc::UnboundedSender<Request>>>,
    /// Why the last boot ended by itself.
    pub(crate) ended: Mutex<Option<String>>,
    /// It has served at least once: its data directory says so.
    pub(crate) has_served: AtomicBool,
}

impl Host {
    pub(crate) fn boot(&self) -> u64 {
        self.boots.load(Ordering::Relaxed)
    }
}

/// Everything shared by one run.
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) hosts: Vec<Arc<Host>>,
    /// Real time of the beginning: the base of every clock, and of no interest.
    pub(crate) origin: Instant,
    /// Simulated time as of the last step, for those who ask from outside of a host.
    now: AtomicU64,
    /// Clients ask no more.
    pub(crate) is_over: AtomicBool,
    /// Nothing changes any more: watchers hear the rest and end.
    pub(crate) is_settled: AtomicBool,
    pub(crate) known: Mutex<Known>,
}

/// What is known so far.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) ledger: Ledger,
    pub(crate) members: Members,
    pub(crate) expiries: Expiries,
    pub(crate) history: Vec<Op>,
    pub(crate) faults: Vec<String>,
    pub(crate) trace: Trace,
}

impl World {
    pub(crate) fn new(settings: Settings, origin: Instant) -> Arc<Self> {
        let mut rand = Rand::new(settings.seed, 1);
        let host = |at: usize| {
            let skew = Skew::new(rand.between(0, 10_000) as i64 - 5_000);
            Arc::new(Host {
                at,
                name: format!("m{at}"),
                disk: SimDisk::new(rand.next()),
                image: MemoryImage::default(),
                skew,
                boots: AtomicU64::new(0),
                port: Mutex::new(None),
                ended: Mutex::new(None),
                has_served: AtomicBool::new(false),
            })
        };
        let known = Known { trace: Trace::new(settings.verbose), ..Known::default() };
        Arc::new(Self {
            settings,
            hosts: (0..settings.members).map(host).collect(),
            origin,
            now: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            is_settled: AtomicBool::new(false),
            known: Mutex::new(known),
        })
    }

    /// Simulated time since the beginning.
    pub(crate) fn now(&self) -> Micros {
        let inside = turmoil::in_simulation().then(turmoil::sim_elapsed).flatten();
        inside.map_or_else(|| self.now.load(Ordering::Relaxed), |now| now.as_micros() as u64)
    }

    pub(crate) fn set_now(&self, now: Duration) {
        self.now.store(now.as_micros() as u64, Ordering::Relaxed);
    }

    /// A line of the trace: what happened, in the order in which it did.
    pub(crate) fn note(&self, line: std::fmt::Arguments<'_>) {
        let now = self.now();
        self.known.lock().trace.note(now, line);
    }

    /// Something that must not be.
    pub(crate) fn fault(&self, what: String) {
        let now = self.now();
        let mut known = self.known.lock();
        known.trace.note(now, format_args!("FAULT {what}"));
        known.faults.push(what);
    }

    /// A member has published.
    pub(crate) fn published(&self, host: &Host, boot: u64, blocks: Vec<(i64, Vec<Change>)>, state: Published) {
        let now = self.now();
        let mut known = self.known.lock();
        let known = &mut *known;
        let member = host.at;
        known
            .trace
            .note(now, format_args!("{} publishes {} {} {:x}", host.name, state.index, state.revision, state.digest));
        for (revision, changes) in blocks {
            if let Err(fault) = known.ledger.publish(revision, changes, now) {
                known.faults.push(format!("member {member}: {fault}"));
            }
        }
        if let Err(fault) = known.members.published(member, boot, state) {
            known.faults.push(fault);
        }
    }

    /// A call has ended.
    pub(crate) fn record(&self, op: Op) {
        let mut known = self.known.lock();
        let line = format_args!("c{} {:?} -> {:?}", op.client, op.call, op.outcome).to_string();
        known.trace.note(op.returned, format_args!("{line}"));
        known.history.push(op);
    }
}
