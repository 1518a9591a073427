//! A simulated world: members on their disks, clients, and everything that is known of them.
//!
//! ```text
//! drive (time, faults) ─► turmoil ─┬─► net.rs (sockets) ═► boot.rs: member.rs × 3…5 ── door.rs ◄─ client.rs × 3,
//!                                  │                        on disk.rs, spawn.rs, clock.rs      watcher.rs × 4,
//!                                  │                                                            operator.rs
//!                                  └─► World: ledger, history, watchers, trace ─► oracles
//! ```

pub(crate) mod alone;
pub(crate) mod boot;
pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod disk;
pub(crate) mod door;
pub(crate) mod drive;
pub(crate) mod faults;
pub(crate) mod member;
pub(crate) mod net;
pub(crate) mod operator;
pub(crate) mod spawn;
pub(crate) mod trace;
pub(crate) mod watcher;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusd::storage::backend::MemoryImage;
use rusd::types::MemberId;
use rusd_sim::check::leases::Expiries;
use rusd_sim::check::lives::Lives;
use rusd_sim::check::members::{Members, Published};
use rusd_sim::history::{Micros, Op};
use rusd_sim::ledger::{Change, Ledger};
use rusd_sim::random::Rand;
use tokio::sync::{mpsc, watch};

use alone::Plight;
use clock::Skew;
use disk::SimDisk;
use door::Request;
use net::Ask;
use trace::Trace;

/// Places beside those of the first members.
const SPARES: usize = 1;

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    pub(crate) members: usize,
    /// Whether the membership changes; `None`: the seed says so.
    pub(crate) changes: Option<bool>,
    /// This is wrong with one leader after the other and nothing else is, whatever the seed says.
    pub(crate) leader: Option<Plight>,
    pub(crate) length: Duration,
    pub(crate) verbose: bool,
}

/// What a member has on its disks, which outlive its boots.
pub(crate) struct Machine {
    /// The member that lives here; a spare machine has none.
    pub(crate) id: Option<MemberId>,
    /// It joins a cluster that is there already.
    pub(crate) joins: bool,
    pub(crate) disk: SimDisk,
    /// What its engine has flushed.
    pub(crate) image: MemoryImage,
    /// It has served at least once: its data directory says so.
    pub(crate) has_served: AtomicBool,
}

/// A place in the network, and the machine that stands there.
pub(crate) struct Host {
    pub(crate) at: usize,
    pub(crate) name: String,
    machine: Mutex<Arc<Machine>>,
    /// What the running boot asks of the network; taken by the host that does it.
    pub(crate) asks: Mutex<Option<mpsc::UnboundedReceiver<Ask>>>,
    pub(crate) skew: Skew,
    pub(crate) boots: AtomicU64,
    /// Where clients reach the running boot.
    pub(crate) port: Mutex<Option<mpsc::UnboundedSender<Request>>>,
    /// Why the last boot ended by itself.
    pub(crate) ended: Mutex<Option<String>>,
    /// What others say waits before it gets here; and what this member says, before it leaves.
    pub(crate) is_deaf: watch::Sender<bool>,
    pub(crate) is_mute: watch::Sender<bool>,
}

impl Host {
    pub(crate) fn boot(&self) -> u64 {
        self.boots.load(Ordering::Relaxed)
    }

    /// The machine that stands here now.
    pub(crate) fn machine(&self) -> Arc<Machine> {
        self.machine.lock().clone()
    }

    /// Its disk.
    pub(crate) fn disk(&self) -> SimDisk {
        self.machine().disk.clone()
    }

    /// Puts a new machine here, with empty disks, for a member that joins or for none.
    pub(crate) fn replace(&self, id: Option<MemberId>, seed: u64) {
        *self.machine.lock() = Arc::new(Machine::new(id, true, seed));
    }
}

impl Machine {
    fn new(id: Option<MemberId>, joins: bool, seed: u64) -> Self {
        let (disk, image) = (SimDisk::new(seed), MemoryImage::default());
        Self { id, joins, disk, image, has_served: AtomicBool::new(false) }
    }
}

/// What the operator wants done with a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// A new machine, with empty disks, for this member, which joins.
    Start(MemberId),
    /// What stands there belongs to no member any more: it is cleared away.
    Clear,
}

/// Who is in the cluster, as far as the operator knows.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    pub(crate) ids: BTreeSet<MemberId>,
    /// Removals that were asked for.
    pub(crate) removed: BTreeSet<MemberId>,
    /// Changes that were made.
    pub(crate) changes: u64,
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
    /// The membership changes in this run.
    pub(crate) changes: bool,
    /// Members read by the leader's lease in this run.
    pub(crate) lease_reads: bool,
    /// How long members wait for a leader in this run.
    pub(crate) election: Duration,
    /// Who is deaf or mute or stands still while nothing else is wrong.
    pub(crate) alone: Mutex<Option<usize>>,
    pub(crate) orders: Mutex<Vec<(usize, Order)>>,
    pub(crate) cluster: Mutex<Cluster>,
    pub(crate) known: Mutex<Known>,
}

/// What is known so far.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) ledger: Ledger,
    pub(crate) members: Members,
    pub(crate) expiries: Expiries,
    pub(crate) lives: Lives,
    /// Snapshots that members got from others.
    pub(crate) installs: u64,
    /// Times in which a member stood still.
    pub(crate) pauses: u64,
    pub(crate) history: Vec<Op>,
    pub(crate) faults: Vec<String>,
    pub(crate) trace: Trace,
}

impl World {
    pub(crate) fn new(settings: Settings, origin: Instant) -> Arc<Self> {
        let mut rand = Rand::new(settings.seed, 1);
        let changes = settings.changes.unwrap_or_else(|| Rand::new(settings.seed, 3).chance(50));
        let changes = changes && settings.members > 1 && settings.leader.is_none();
        let host = |at: usize| {
            let skew = Skew::new(rand.between(0, 10_000) as i64 - 5_000);
            let id = (at < settings.members).then(|| member::id_of(at));
            Arc::new(Host {
                at,
                name: format!("m{at}"),
                machine: Mutex::new(Arc::new(Machine::new(id, false, rand.next()))),
                asks: Mutex::new(None),
                skew,
                boots: AtomicU64::new(0),
                port: Mutex::new(None),
                ended: Mutex::new(None),
                is_deaf: watch::Sender::new(false),
                is_mute: watch::Sender::new(false),
            })
        };
        let known = Known { trace: Trace::new(settings.verbose), ..Known::default() };
        Arc::new(Self {
            settings,
            hosts: (0..settings.members + if changes { SPARES } else { 0 }).map(host).collect(),
            origin,
            now: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            is_settled: AtomicBool::new(false),
            changes,
            lease_reads: Rand::new(settings.seed, 4).chance(30),
            election: if Rand::new(settings.seed, 7).chance(50) { member::ELECTION } else { member::ELECTION * 2 },
            alone: Mutex::new(None),
            orders: Mutex::default(),
            cluster: Mutex::new(Cluster {
                ids: (0..settings.members).map(member::id_of).collect(),
                ..Cluster::default()
            }),
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

    /// The places of members that belong to the cluster.
    pub(crate) fn places(&self) -> Vec<usize> {
        let cluster = self.cluster.lock();
        let is_member = |host: &&Arc<Host>| host.machine().id.is_some_and(|id| cluster.ids.contains(&id));
        self.hosts.iter().filter(is_member).map(|host| host.at).collect()
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
