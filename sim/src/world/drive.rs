//! Time: steps the world, lets things go wrong, puts them right, and asks at the end whether all is well.
//!
//! ```text
//! 0 ─ faults ─────────────── 80 % ─ all healed ─ clients stop ─ still ─ watchers end, last writes ─ oracles
//!      └─ in some runs: all healed, one stands alone (`alone`), nothing else is wrong ─┘ and on
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use rusd::env::DiskOp;
use rusd_sim::check::{leases, linear, lives};
use rusd_sim::random::Rand;
use turmoil::Sim;

use super::alone::{Act, Alone};
use super::boot::Boot;
use super::client::Task;
use super::disk::Point;
use super::faults::{self, Fault, Way};
use super::net::Wire;
use super::{Order, Settings, World, client, member, net, operator, watcher};

const TICK: Duration = Duration::from_millis(2);
const CLIENTS: usize = 3;
const WATCHERS: usize = 4;
/// After the clients stopped: leases run out, members catch up.
const STILL: Duration = Duration::from_secs(8);
/// After that everything must have come to its end within this.
const END: Duration = Duration::from_secs(60);
const QUICK: (Duration, Duration) = (Duration::from_micros(300), Duration::from_millis(2));

/// What becomes of something that went wrong.
#[derive(Clone, Debug)]
enum Repair {
    Restart(usize),
    Pair(usize, usize),
    OneWay(usize, usize),
    Deaf(usize),
    Mute(usize),
    Release(usize, usize),
    Disk(usize),
    Room(usize),
    Latency,
}

/// See [`Fault::VoteTrap`].
#[derive(Clone, Copy)]
struct Trap {
    /// It led, and is dead.
    dead: usize,
    /// It is voted for.
    candidate: usize,
    /// It votes.
    voter: usize,
    since: Duration,
    is_armed: bool,
}

/// How long after the healing what went wrong before may still end a member.
const EXCUSED: Duration = Duration::from_secs(2);
/// The dead leader's last words have come by then, and no election has.
const TRAP_ARMED: Duration = Duration::from_millis(350);
const TRAP_OVER: Duration = Duration::from_secs(5);
const TRAP_GAP: (Duration, Duration) = (Duration::from_millis(40), Duration::from_millis(60));

struct Driver<'a> {
    world: Arc<World>,
    sim: Sim<'a>,
    /// By place: the process that runs there.
    boots: Vec<Option<Boot>>,
    rand: Rand,
    repairs: Vec<(Duration, Repair)>,
    /// By member: a disk error may be the reason of its end.
    excused: Vec<bool>,
    /// When everything was healed; a little later no end has an excuse any more.
    healed: Option<Duration>,
    faults_made: u64,
    trap: Option<Trap>,
    alone: Alone,
}

/// What a run says.
pub(crate) struct Verdict {
    pub(crate) faults: Vec<String>,
    pub(crate) crc: u32,
    pub(crate) lines: u64,
    pub(crate) simulated: Duration,
    pub(crate) summary: String,
}

/// Runs one seed to its end.
pub(crate) fn run(settings: Settings, origin: Instant) -> (Arc<World>, Verdict) {
    let world = World::new(settings, origin);
    let mut builder = turmoil::Builder::new();
    builder
        .rng_seed(settings.seed)
        .enable_random_order()
        .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000))
        .tick_duration(TICK)
        .simulation_duration(settings.length + STILL + END + Duration::from_secs(1))
        .min_message_latency(Duration::from_micros(200))
        .max_message_latency(Duration::from_millis(5))
        .tcp_capacity(4_096);
    let mut sim = builder.build();
    for host in &world.hosts {
        let at = host.clone();
        sim.host(host.name.as_str(), move || net::bridge(at.clone()));
    }
    for number in 0..CLIENTS {
        sim.client(format!("c{number}"), client::run(world.clone(), number));
    }
    for number in 0..WATCHERS {
        sim.client(format!("w{number}"), watcher::run(world.clone(), number));
    }
    if world.changes {
        sim.client("operator", operator::run(world.clone()));
    }
    sim.client("last", client::run_last(world.clone(), CLIENTS));
    for (more, task) in [Task::Others, Task::Writes, Task::Reads].into_iter().enumerate() {
        sim.client(format!("alone{more}"), client::run_alone(world.clone(), CLIENTS + 1 + more, task));
    }
    let excused = vec![false; world.hosts.len()];
    let rand = Rand::new(settings.seed, 2);
    let boots = world.hosts.iter().map(|_| None).collect();
    let alone = Alone::new(&world);
    let mut driver = Driver {
        world: world.clone(),
        sim,
        boots,
        rand,
        repairs: Vec::new(),
        excused,
        healed: None,
        faults_made: 0,
        trap: None,
        alone,
    };
    for at in 0..settings.members {
        driver.boot(at);
    }
    let (simulated, faults_made) = driver.run();
    let alone = driver.alone.to_string();
    // After a panic its parts can't be taken down in order, and the process is about to end.
    std::mem::forget(driver);
    let mut known = world.known.lock();
    let known = &mut *known;
    if known.faults.is_empty() {
        known.faults.extend(linear::check(&known.history, &known.ledger));
        known.faults.extend(leases::check(&known.history, &known.expiries, &known.ledger));
        let over = simulated.as_micros() as u64;
        known.faults.extend(lives::check(&known.history, &known.lives, &known.ledger, over));
    }
    let answered = known.history.iter().filter(|op| matches!(op.outcome, rusd_sim::history::Outcome::Ok(_))).count();
    if known.faults.is_empty() && answered == 0 {
        known.faults.push("nothing was ever answered".to_owned());
    }
    let summary = format!(
        "{answered} of {} calls answered, revision {}, {} leaders, {} leases ran out, {faults_made} faults, \
         {} pauses, {} snapshots sent, {} changes of members; {alone}",
        known.history.len(),
        known.ledger.top(),
        known.members.terms(),
        known.expiries.len(),
        known.pauses,
        known.installs,
        world.cluster.lock().changes,
    );
    let verdict = Verdict {
        faults: known.faults.clone(),
        crc: known.trace.crc(),
        lines: known.trace.lines(),
        simulated,
        summary,
    };
    (world.clone(), verdict)
}

impl Driver<'_> {
    fn run(&mut self) -> (Duration, u64) {
        let length = self.world.settings.length;
        let (healed, over) = (length.mul_f64(0.8), length.mul_f64(0.95));
        let mut next_fault = Duration::from_secs(2);
        let mut is_healed = false;
        let (mut top, mut changed) = (0, Duration::ZERO);
        loop {
            let now = self.sim.elapsed();
            self.world.set_now(now);
            match catch_unwind(AssertUnwindSafe(|| self.step())) {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => break,
                Ok(Err(error)) => self.world.fault(format!("the simulation ended: {error}")),
                Err(_) => self.world.fault("a task panicked".to_owned()),
            }
            if !self.world.known.lock().faults.is_empty() {
                return (now, self.faults_made);
            }
            self.tend(now);
            self.obey();
            self.spring(now);
            self.repair(now, false);
            match self.alone.look(now, &self.world) {
                Some(Act::Calm) => self.calm(now),
                Some(Act::Inject(fault)) => self.inject(now, fault),
                None => {}
            }
            if now >= next_fault && now < healed && !self.alone.wants_quiet() {
                next_fault = now + Duration::from_millis(self.rand.between(200, 4_000));
                let fault = faults::choose(&mut self.rand, self.world.hosts.len(), self.world.settings.members);
                self.inject(now, fault);
            }
            if now >= healed && !is_healed {
                is_healed = true;
                self.heal(now);
            }
            if now >= over {
                self.world.is_over.store(true, Ordering::Relaxed);
                let newest = self.world.known.lock().ledger.top();
                if newest != top {
                    (top, changed) = (newest, now);
                }
                if now >= over + STILL && now >= changed + STILL / 2 {
                    self.world.is_settled.store(true, Ordering::Relaxed);
                }
            }
        }
        self.members_are_equal();
        (self.sim.elapsed(), self.faults_made)
    }

    /// One tick of the network and the clients, then one of each member, in any order.
    fn step(&mut self) -> turmoil::Result<bool> {
        let is_over = self.sim.step()?;
        let now = self.sim.elapsed();
        self.world.set_now(now);
        let mut places: Vec<usize> = (0..self.boots.len()).collect();
        while !places.is_empty() {
            let at = places.swap_remove(self.rand.index(places.len()));
            if let Some(boot) = &mut self.boots[at] {
                boot.tick(now, self.world.hosts[at].skew.elapsed(now.as_micros() as u64));
            }
        }
        Ok(is_over)
    }

    /// Starts what stands at a place, if a member lives there.
    fn boot(&mut self, at: usize) {
        let host = self.world.hosts[at].clone();
        let machine = host.machine();
        let Some(id) = machine.id else { return };
        let boot = host.boots.fetch_add(1, Ordering::Relaxed) + 1;
        *host.ended.lock() = None;
        self.world.note(format_args!("{} boots as {id}, life {boot}", host.name));
        let (ask, asks) = tokio::sync::mpsc::unbounded_channel();
        *host.asks.lock() = Some(asks);
        self.sim.bounce(host.name.as_str());
        let seed = Rand::new(self.world.settings.seed, 1_000 * (at as u64 + 1) + boot).next();
        let life = member::Life { id, machine, boot, seed };
        let clock = host.skew.elapsed(self.world.now());
        let member = member::run(self.world.clone(), host, life, Wire(ask));
        self.boots[at] = Some(Boot::start(seed, clock, member));
    }

    /// Does what the operator wants.
    fn obey(&mut self) {
        let orders = std::mem::take(&mut *self.world.orders.lock());
        for (at, order) in orders {
            self.world.note(format_args!("order at m{at}: {order:?}"));
            self.crash(at);
            self.repairs.retain(|(_, repair)| !matches!(repair, Repair::Restart(other) if *other == at));
            self.trap = None;
            let seed = self.rand.next();
            match order {
                Order::Start(id) => {
                    self.world.hosts[at].replace(Some(id), seed);
                    self.boot(at);
                }
                Order::Clear => self.world.hosts[at].replace(None, seed),
            }
        }
    }

    /// Members that lost their power or ended are started again.
    fn tend(&mut self, now: Duration) {
        for at in 0..self.world.hosts.len() {
            let host = self.world.hosts[at].clone();
            if host.disk().take_cut() {
                self.world.note(format_args!("{}: the power is cut", host.name));
                // If it noticed the end of its disk, that was its last.
                *host.ended.lock() = None;
                self.crash(at);
                let down = Duration::from_millis(self.rand.between(20, 2_000));
                self.restart_at(now + down, at);
                self.trap.take_if(|trap| trap.voter == at && trap.is_armed).into_iter().for_each(|trap| {
                    self.shut(now, trap);
                });
            }
            let ended = host.ended.lock().take();
            if let Some(why) = ended {
                if why == member::REMOVED {
                    self.retire(at);
                    continue;
                }
                let is_healed = self.healed.is_some_and(|healed| now > healed + EXCUSED);
                if !self.excused[at] || is_healed {
                    self.world.fault(format!("{} ended without a cause: {why}", host.name));
                }
                // A disk that failed a sync has lost what it should have kept; the machine is started again.
                host.disk().cut(false);
                host.disk().take_cut();
                self.crash(at);
                let down = Duration::from_millis(self.rand.between(20, 2_000));
                self.restart_at(now + down, at);
            }
        }
    }

    /// A member that was removed has ended: its machine is free.
    fn retire(&mut self, at: usize) {
        let host = self.world.hosts[at].clone();
        let id = host.machine().id;
        if !id.is_some_and(|id| self.world.cluster.lock().removed.contains(&id)) {
            self.world.fault(format!("{} ended as removed, and nobody removed it", host.name));
        }
        self.crash(at);
        let seed = self.rand.next();
        host.replace(None, seed);
    }

    /// Arms the trap in time, and gives it up after a while.
    fn spring(&mut self, now: Duration) {
        let Some(trap) = &mut self.trap else { return };
        let voter = self.world.hosts[trap.voter].clone();
        if !trap.is_armed && now >= trap.since + TRAP_ARMED {
            trap.is_armed = true;
            self.excused[trap.voter] = true;
            voter.disk().set_gap(TRAP_GAP.0, TRAP_GAP.1);
            voter.disk().arm(Some(Point { op: DiskOp::Sync, left: 0, after: false }), false);
        }
        if now >= trap.since + TRAP_OVER {
            let (dead, voter_at) = (trap.dead, trap.voter);
            self.trap = None;
            voter.disk().arm(None, false);
            self.restart_at(now, dead);
            self.repairs.push((now, Repair::Disk(voter_at)));
        }
    }

    /// The voter has lost its power: whom it voted for is cut off, and the dead one comes back with it.
    fn shut(&mut self, now: Duration, trap: Trap) {
        let name = |at: usize| self.world.hosts[at].name.clone();
        let later = now + Duration::from_secs(4);
        for other in [trap.voter, trap.dead] {
            self.sim.partition(name(trap.candidate), name(other));
            self.repairs.push((later, Repair::Pair(trap.candidate, other)));
        }
        self.repairs.push((now, Repair::Disk(trap.voter)));
        for at in [trap.voter, trap.dead] {
            self.restart_at(now + Duration::from_millis(30), at);
        }
    }

    /// The host runs nothing any more; its disk has been told.
    fn crash(&mut self, at: usize) {
        let host = self.world.hosts[at].clone();
        *host.port.lock() = None;
        self.boots[at] = None;
        // Errors that were still to come went with the crash.
        self.excused[at] = false;
        self.sim.crash(host.name.as_str());
    }

    fn restart_at(&mut self, when: Duration, at: usize) {
        self.repairs.retain(|(_, repair)| !matches!(repair, Repair::Restart(other) if *other == at));
        self.repairs.push((when, Repair::Restart(at)));
    }

    fn is_down(&self, at: usize) -> bool {
        self.repairs.iter().any(|(_, repair)| matches!(repair, Repair::Restart(other) if *other == at))
    }

    fn repair(&mut self, now: Duration, all: bool) {
        let (due, later): (Vec<_>, Vec<_>) = self.repairs.drain(..).partition(|(when, _)| all || *when <= now);
        self.repairs = later;
        for (_, repair) in due {
            self.world.note(format_args!("repair {repair:?}"));
            let name = |at: usize| self.world.hosts[at].name.clone();
            match repair {
                Repair::Restart(at) => self.boot(at),
                Repair::Pair(a, b) => self.sim.repair(name(a), name(b)),
                Repair::OneWay(a, b) => self.sim.repair_oneway(name(a), name(b)),
                Repair::Deaf(at) => drop(self.world.hosts[at].is_deaf.send_replace(false)),
                Repair::Mute(at) => drop(self.world.hosts[at].is_mute.send_replace(false)),
                Repair::Release(a, b) => self.sim.release(name(a), name(b)),
                Repair::Disk(at) => self.world.hosts[at].disk().set_gap(QUICK.0, QUICK.1),
                Repair::Room(at) => self.world.hosts[at].disk().set_capacity(None),
                Repair::Latency => self.sim.set_max_message_latency(Duration::from_millis(5)),
            }
        }
    }

    fn heal(&mut self, now: Duration) {
        self.healed = Some(now);
        self.alone.finish(&self.world);
        self.calm(now);
    }

    fn calm(&mut self, now: Duration) {
        self.trap = None;
        self.world.note(format_args!("all is healed"));
        self.repair(now, true);
        for host in &self.world.hosts {
            host.disk().arm(None, false);
            host.disk().forgive();
            host.disk().set_gap(QUICK.0, QUICK.1);
            host.disk().set_capacity(None);
        }
        self.boots.iter_mut().flatten().for_each(Boot::go_on);
    }

    fn inject(&mut self, now: Duration, fault: Fault) {
        self.world.note(format_args!("fault {fault:?}"));
        self.faults_made += 1;
        let hosts = self.world.hosts.clone();
        let name = |at: usize| hosts[at].name.clone();
        if fault.member().is_some_and(|at| hosts[at].machine().id.is_none()) {
            return;
        }
        match fault {
            Fault::Cut { member, torn, down } => self.cut(now, member, torn, down),
            Fault::CutAll { torn, down } => {
                for at in (0..hosts.len()).filter(|at| hosts[*at].machine().id.is_some()) {
                    let later = Duration::from_millis(self.rand.below(500));
                    self.cut(now, at, torn, down + later);
                }
            }
            Fault::Kill { member, down } => {
                if !self.is_down(member) {
                    hosts[member].disk().kill();
                    self.crash(member);
                    self.restart_at(now + down, member);
                }
            }
            Fault::CutAt { member, point, torn } => {
                hosts[member].disk().set_gap(Duration::from_millis(5), Duration::from_millis(40));
                hosts[member].disk().arm(Some(point), torn);
                self.excused[member] = true;
                self.repairs.push((now + Duration::from_secs(5), Repair::Disk(member)));
            }
            Fault::CutAllAt { point } => {
                for (at, host) in hosts.iter().enumerate() {
                    host.disk().set_gap(Duration::from_millis(5), Duration::from_millis(40));
                    host.disk().arm(Some(point), false);
                    self.excused[at] = true;
                    self.repairs.push((now + Duration::from_secs(5), Repair::Disk(at)));
                }
            }
            Fault::VoteTrap => {
                let leader = self.world.known.lock().members.leader();
                let is_set = self.trap.is_some() || self.world.changes;
                let Some(dead) = leader.filter(|leader| !is_set && !self.is_down(*leader)) else { return };
                let first = 1 + self.rand.index(2);
                let (candidate, voter) = ((dead + first) % 3, (dead + 3 - first) % 3);
                self.trap = Some(Trap { dead, candidate, voter, since: now, is_armed: false });
                hosts[dead].disk().kill();
                self.crash(dead);
                self.restart_at(now + TRAP_OVER * 2, dead);
            }
            Fault::Slow { member, most, lasts } => {
                hosts[member].disk().set_gap(Duration::from_millis(1), most);
                self.repairs.push((now + lasts, Repair::Disk(member)));
            }
            Fault::Full { member, lasts } => {
                hosts[member].disk().set_capacity(Some(0));
                self.repairs.push((now + lasts, Repair::Room(member)));
            }
            Fault::Fail { member, op, after, errno } => {
                hosts[member].disk().fail(op, after, errno);
                self.excused[member] = true;
            }
            Fault::Partition { a, b, lasts } => {
                self.sim.partition(name(a), name(b));
                self.repairs.push((now + lasts, Repair::Pair(a, b)));
            }
            Fault::OneWay { from, to, lasts } => self.one_way(now, (from, to), lasts),
            Fault::Isolate { member, lasts } => {
                for other in (0..hosts.len()).filter(|other| *other != member) {
                    self.sim.partition(name(member), name(other));
                    self.repairs.push((now + lasts, Repair::Pair(member, other)));
                }
            }
            Fault::Deaf { member, way: Way::Held, lasts } => {
                hosts[member].is_deaf.send_replace(true);
                self.repairs.push((now + lasts, Repair::Deaf(member)));
            }
            Fault::Mute { member, way: Way::Held, lasts } => {
                hosts[member].is_mute.send_replace(true);
                self.repairs.push((now + lasts, Repair::Mute(member)));
            }
            Fault::Deaf { member, way: Way::Lost, lasts } => {
                for other in (0..hosts.len()).filter(|other| *other != member) {
                    self.one_way(now, (other, member), lasts);
                }
            }
            Fault::Mute { member, way: Way::Lost, lasts } => {
                for other in (0..hosts.len()).filter(|other| *other != member) {
                    self.one_way(now, (member, other), lasts);
                }
            }
            Fault::Hold { a, b, lasts } => {
                self.sim.hold(name(a), name(b));
                self.repairs.push((now + lasts, Repair::Release(a, b)));
            }
            Fault::Latency { most, lasts } => {
                self.sim.set_max_message_latency(most);
                self.repairs.push((now + lasts, Repair::Latency));
            }
            Fault::Pause { member, lasts } => {
                if let Some(boot) = &mut self.boots[member] {
                    boot.stand_still(now + lasts);
                    self.world.known.lock().pauses += 1;
                }
            }
            Fault::Jump { member, by } => hosts[member].skew.jump(by),
            Fault::Wall { member, by_micros } => hosts[member].skew.set_wall(by_micros),
        }
    }

    /// What `from` says doesn't reach `to`.
    fn one_way(&mut self, now: Duration, (from, to): (usize, usize), lasts: Duration) {
        let hosts = &self.world.hosts;
        self.sim.partition_oneway(hosts[from].name.as_str(), hosts[to].name.as_str());
        self.repairs.push((now + lasts, Repair::OneWay(from, to)));
    }

    fn cut(&mut self, now: Duration, at: usize, torn: bool, down: Duration) {
        let host = self.world.hosts[at].clone();
        host.disk().cut(torn);
        host.disk().take_cut();
        self.crash(at);
        self.restart_at(now + down, at);
    }

    /// What each member published last must be the same state.
    fn members_are_equal(&self) {
        let states: Vec<_> = {
            let known = self.world.known.lock();
            let places = self.world.places();
            places.into_iter().map(|at| known.members.last(at, self.world.hosts[at].boot())).collect()
        };
        let same = |state: &Option<rusd_sim::check::members::Published>| {
            let told = |state: rusd_sim::check::members::Published| (state.revision, state.digest, state.beside);
            state.map(told) == states[0].map(told)
        };
        if states.first().is_none_or(Option::is_none) || !states.iter().all(same) {
            self.world.fault(format!("members differ at the end: {states:?}"));
        }
    }
}
