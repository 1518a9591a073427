//! A member that is deaf or mute or stands still, and nothing else is wrong: the others must go on within a few
//! election timeouts.
//!
//! ```text
//! faults ─ all healed ─ calm: one leader, all in step ─ one stands alone, 10 s ─ healed ─ faults
//!                                                       ├ it led: another leads, and a write is acknowledged, in time
//!                                                       └ it followed: nobody deposes the leader, and writes go on
//! `--leader`: nothing but that, one leader after the other, each until the others have gone on
//! ```
//! In a run full of faults a leader that keeps the others from electing one isn't noticed: it is healed or killed soon.

use std::fmt;
use std::time::Duration;

use rusd_sim::history::{Call, Outcome};
use rusd_sim::random::Rand;

use super::World;
use super::faults::{Fault, Way};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plight {
    /// It hears nobody.
    Deaf,
    /// Nobody hears it.
    Mute,
    /// Its process stands still.
    Still,
}

/// Percent of the runs that can have it.
const SHARE: u64 = 60;
/// When it begins, in milliseconds.
const BEGINS_MS: (u64, u64) = (2_000, 10_000);
/// With `--leader`: until the next one, once the others have gone on; a read at the one that stood still falls in between.
const NEXT: Duration = Duration::from_millis(500);
/// One leader for so long, with writes that reach every member: all is calm.
const CALM: Duration = Duration::from_secs(3);
/// Not calm by then: it is left out, or tried again.
const CALM_MAX: Duration = Duration::from_secs(10);
const LASTS: Duration = Duration::from_secs(10);
/// Election timeouts within which another leads, once the leader is deaf or mute. openraft has the leader that lost its
/// quorum silent from 0.7 to 2.8 of them, and from 4.9 to 7. In the first, streams that were open before still carry what is
/// written until their pings fail, at 2 of them; in the second nothing does, and the others elect one.
const LEADS_WITHIN: u32 = 8;
/// Within so many a write is acknowledged.
const WRITES_WITHIN: u32 = 9;
/// The same where the leader is another one: nothing is in its way but a call to a member that must be asked again.
const GOES_ON_WITHIN: u32 = 2;

/// What is to be done.
pub(crate) enum Act {
    /// Heal everything.
    Calm,
    Inject(Fault),
}

/// Where it stands.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Waits,
    Calms { begun: Duration, since: Duration, leader: Option<usize>, top: i64 },
    Stands { since: Duration },
    Over,
}

/// The plan of a run, and what came of it.
#[derive(Debug)]
pub(crate) struct Alone {
    stage: Stage,
    begins: Duration,
    plight: Plight,
    way: Way,
    /// There are more in this run.
    is_again: bool,
    /// It is the leader, or this many places after it.
    after_leader: usize,
    member: usize,
    /// Terms that had a leader when it began, and calls that had ended.
    terms: usize,
    calls: usize,
    /// How long after that another led, and a write was acknowledged.
    led: Option<Duration>,
    wrote: Option<Duration>,
}

impl Alone {
    /// From the seed.
    pub(crate) fn new(world: &World) -> Self {
        let mut rand = Rand::new(world.settings.seed, 8);
        let begins = Duration::from_millis(rand.between(BEGINS_MS.0, BEGINS_MS.1));
        let members = world.settings.members;
        let can = members > 2 && !world.changes;
        let is_planned = rand.chance(SHARE) && can && begins + CALM_MAX + LASTS < world.settings.length.mul_f64(0.8);
        let plight = match rand.below(10) {
            0..4 => Plight::Deaf,
            4..8 => Plight::Mute,
            _ => Plight::Still,
        };
        let way = if rand.chance(30) { Way::Lost } else { Way::Held };
        let after_leader = if rand.chance(70) { 0 } else { 1 + rand.index(members.saturating_sub(1)) };
        let stage = if is_planned { Stage::Waits } else { Stage::Over };
        let drawn = Self {
            stage,
            begins,
            plight,
            way,
            is_again: false,
            after_leader,
            member: 0,
            terms: 0,
            calls: 0,
            led: None,
            wrote: None,
        };
        let Some(plight) = world.settings.leader else { return drawn };
        let stage = if can { Stage::Waits } else { Stage::Over };
        let begins = Duration::from_millis(BEGINS_MS.0);
        Self { stage, begins, plight, way: Way::Lost, is_again: true, after_leader: 0, ..drawn }
    }

    /// Nothing else may go wrong now.
    pub(crate) fn wants_quiet(&self) -> bool {
        self.is_again || matches!(self.stage, Stage::Calms { .. } | Stage::Stands { .. })
    }

    /// What is to be done now.
    pub(crate) fn look(&mut self, now: Duration, world: &World) -> Option<Act> {
        match self.stage {
            Stage::Waits if now >= self.begins => {
                self.stage = Stage::Calms { begun: now, since: now, leader: None, top: 0 };
                (self.led, self.wrote) = (None, None);
                Some(Act::Calm)
            }
            Stage::Calms { begun, since, leader, top } => self.calms(now, world, begun, (since, leader, top)),
            Stage::Stands { since } => {
                self.stands(now, world, since);
                None
            }
            Stage::Waits | Stage::Over => None,
        }
    }

    fn calms(
        &mut self,
        now: Duration,
        world: &World,
        begun: Duration,
        (since, leader, top): (Duration, Option<usize>, i64),
    ) -> Option<Act> {
        let known = world.known.lock();
        let (leads, newest) = (known.members.leader(), known.ledger.top());
        if leads != leader {
            self.stage = Stage::Calms { begun, since: now, leader: leads, top: newest };
            return None;
        }
        let is_in_step = |host: &std::sync::Arc<super::Host>| {
            known.members.last(host.at, host.boot()).is_some_and(|last| last.revision > top)
        };
        let is_calm = now >= since + CALM && world.hosts.iter().all(is_in_step);
        let Some(leader) = leader.filter(|_| is_calm) else {
            if now >= begun + CALM_MAX {
                self.end(now, world);
            }
            return None;
        };
        (self.terms, self.calls) = (known.members.terms(), known.history.len());
        drop(known);
        self.member = (leader + self.after_leader) % world.settings.members;
        self.stage = Stage::Stands { since: now };
        *world.alone.lock() = Some(self.member);
        let (member, way, lasts) = (self.member, self.way, LASTS);
        Some(Act::Inject(match self.plight {
            Plight::Deaf => Fault::Deaf { member, way, lasts },
            Plight::Mute => Fault::Mute { member, way, lasts },
            Plight::Still => Fault::Pause { member, lasts },
        }))
    }

    fn stands(&mut self, now: Duration, world: &World, since: Duration) {
        let known = world.known.lock();
        let elapsed = now.saturating_sub(since);
        if self.led.is_none() && known.members.terms() > self.terms {
            self.led = Some(elapsed);
        }
        if self.wrote.is_none() {
            let micros = since.as_micros() as u64;
            let mut ended = known.history.iter().skip(self.calls);
            let wrote = ended.any(|op| {
                matches!(op.call, Call::Put { .. }) && matches!(op.outcome, Outcome::Ok(_)) && op.invoked >= micros
            });
            self.wrote = wrote.then_some(elapsed);
            self.calls = known.history.len();
        }
        drop(known);
        let limit = |elections: u32| world.election * elections;
        if self.after_leader > 0 {
            if self.led.is_some() {
                world.fault(format!("alone: the leader was deposed while m{} stood alone: {self}", self.member));
            } else if self.wrote.is_none() && elapsed > limit(GOES_ON_WITHIN) {
                world.fault(format!("alone: no write is acknowledged while m{} stood alone: {self}", self.member));
            }
        } else if self.led.is_none() && elapsed > limit(LEADS_WITHIN) {
            world.fault(format!("alone: nobody else came to lead: {self}"));
        } else if self.wrote.is_none() && elapsed > limit(WRITES_WITHIN) {
            world.fault(format!("alone: another leads, and no write is acknowledged: {self}"));
        }
        let gone_on = self.led.zip(self.wrote).filter(|_| self.is_again);
        if elapsed >= LASTS || gone_on.is_some_and(|(led, wrote)| elapsed >= led.max(wrote) + NEXT) {
            self.end(now, world);
        }
    }

    /// One is over; the next begins with the healing of this one.
    fn end(&mut self, now: Duration, world: &World) {
        *world.alone.lock() = None;
        (self.stage, self.begins) = (if self.is_again { Stage::Waits } else { Stage::Over }, now);
    }

    /// Everything is healed, and nothing is asked any more of whoever stood alone until then.
    pub(crate) fn finish(&mut self, world: &World) {
        *world.alone.lock() = None;
        self.stage = Stage::Over;
    }
}

/// For the summary.
impl fmt::Display for Alone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.terms == 0 {
            return f.write_str("nobody stood alone");
        }
        let what = match self.plight {
            Plight::Deaf => "deaf",
            Plight::Mute => "mute",
            Plight::Still => "still",
        };
        let whose = if self.after_leader == 0 { "leader" } else { "follower" };
        let seconds =
            |time: Option<Duration>| time.map_or("-".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()));
        let (led, wrote) = (seconds(self.led), seconds(self.wrote));
        write!(f, "a {what} {whose} ({:?}): another led after {led}, a write came after {wrote}", self.way)
    }
}
