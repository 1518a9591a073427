//! `Share`: what one connection has asked for, and whether it takes what it gets.
//!
//! ```text
//! request ─► Share::ask ─► Asked ─► answer ─► `riding` ─ written or dropped ─► its places are free again
//!                      └► refused at once: too many, of all clients, of this one, or of those whom nobody knows
//! connection's turn ends ─► Patience: answers on their way, a blocked socket? ─► nothing moved for so long ─► cut off
//! ```
//! A client that reads nothing costs memory: HTTP/1.1 has no other sign of it than a socket that takes nothing,
//! HTTP/2 also windows that stay shut. Streams that may be silent are not judged by their windows, since a slow watcher
//! is no fault.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Context;
use std::time::Duration;

use tokio::time::Sleep;

use super::gateway;
use super::services::Budgets;
use crate::types::{Place, Places, RequestError};

/// What part of all places is kept for what must go on when there are no others, and the fewest of them.
const RESERVE_PART: usize = 8;
const RESERVE_MIN: usize = 64;
/// Places that are kept besides, for probes alone.
const PROBES: usize = 64;
/// What part of all places is for those who haven't proven who they are, while authentication is on, and the fewest.
const STRANGERS_PART: usize = 8;
const STRANGERS_MIN: usize = 64;
/// What part of those they have besides for logins, as many for pages for probes, and as many for calls with tokens that
/// this member can't know yet: as long as their answers aren't taken they hold them, too.
const BEYOND_PART: usize = 2;
/// What part of the places for one such thing one connection may have, and the most of them.
const BEYOND_CONNECTION_PART: usize = 4;
const BEYOND_CONNECTION_MAX: usize = 64;
/// What part of all places one connection may have, and the fewest of them.
const CONNECTION_PART: usize = 2;
const CONNECTION_MIN: usize = 64;

/// Calls that must go on: they end an overload, or keep what others rely on.
const GOES_ON: [&str; 5] = [
    "/etcdserverpb.Lease/LeaseKeepAlive",
    "/etcdserverpb.Lease/LeaseRevoke",
    "/etcdserverpb.KV/Compact",
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Maintenance/Alarm",
];
/// What tells whoever watches over this server how it is, once: a stream of that is as any other.
const PROBE: [&str; 2] = ["/metrics", "/health"];
/// The same by what a path begins with.
const PROBE_BELOW: [&str; 2] = ["/livez", "/readyz"];
/// The same as a call, whose message may be a while in coming.
const PROBE_CALL: [&str; 2] = ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/List"];

fn is_page_for_probes(path: &str) -> bool {
    let is_below = |rest: &str| rest.is_empty() || rest.starts_with('/');
    PROBE.contains(&path) || PROBE_BELOW.iter().any(|below| path.strip_prefix(below).is_some_and(is_below))
}

/// Places for what anybody gets while there are many requests.
#[derive(Clone, Debug)]
pub(super) struct Beyond {
    logins: Arc<Places>,
    /// Pages for probes.
    pages: Arc<Places>,
    /// Probes' calls.
    probes: Arc<Places>,
    /// Calls with a token that this member can't know yet.
    ahead: Arc<Places>,
}

/// Why a request's caller is nobody here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// It is to be told so.
    Told(RequestError),
    /// Its token says that it was given out by an entry which this member hasn't come to: another may just have answered
    /// with it. The call waits for that entry before it is refused.
    Ahead,
}

impl From<RequestError> for Unknown {
    fn from(error: RequestError) -> Self {
        Self::Told(error)
    }
}

impl Beyond {
    /// Beside `open` places for all.
    pub(super) fn new(open: &Places) -> Self {
        let places = |max| Places::new("max-open-requests", max);
        let beyond = strangers(open) / BEYOND_PART;
        let [logins, pages, ahead] = [(); 3].map(|()| places(beyond));
        Self { logins, pages, probes: places(PROBES), ahead }
    }

    /// Those for a request to `path` of one who isn't known, and a number for what it is.
    fn of(&self, path: &str, why: &Unknown) -> Option<(&Arc<Places>, usize)> {
        match path {
            _ if *why == Unknown::Ahead => Some((&self.ahead, 3)),
            _ if gateway::is_login(path) => Some((&self.logins, 0)),
            _ if is_page_for_probes(path) => Some((&self.pages, 1)),
            _ => PROBE_CALL.contains(&path).then_some((&self.probes, 2)),
        }
    }
}

/// How many of the `open` places may be taken for one who hasn't proven who he is to get another.
fn strangers(open: &Places) -> usize {
    (open.max() / STRANGERS_PART).max(STRANGERS_MIN)
}

/// For how many of the times in which a connection must move at all one answer may stand still while others are taken.
/// They go out in turn, each a little at a time, so on a slow line with thousands of them each moves seldom.
const STILL_ROUNDS: usize = 5;
/// Rounds that are told apart: those that an answer may stand still, the present one, and the one that is judged.
const ROUNDS: usize = STILL_ROUNDS + 3;

/// One connection's part. Each of its requests holds a reference to it: that is how they are counted.
pub(super) struct Share {
    /// Requests of all clients.
    open: Arc<Places>,
    /// How many of them this connection may have.
    part: usize,
    /// Those of nobody in particular while there are many requests; none are asked for where there is nothing but pages.
    beyond: Option<Beyond>,
    /// How many of each kind of them this connection has.
    beyond_now: [AtomicUsize; 4],
    /// How many logins one connection may have; counts the refusals of all.
    logins: Arc<Places>,
    logins_now: AtomicUsize,
    /// Pieces of answers that aren't written yet, by the round in which something of them was last taken.
    unsent: [AtomicUsize; ROUNDS],
    /// Counts up while there are some.
    round: AtomicUsize,
    /// Grows whenever something of them is taken.
    taken: AtomicU64,
}

/// A round, as [`Share`] counts them.
pub(super) struct Round(usize);

impl Share {
    pub(super) fn new(budgets: &Budgets) -> Arc<Self> {
        Self::of(&budgets.open, Some(&budgets.beyond), budgets)
    }

    /// That of a connection on which there is nothing but pages for probes, which have places of their own.
    pub(super) fn of_pages(budgets: &Budgets) -> Arc<Self> {
        Self::of(&budgets.pages_open, None, budgets)
    }

    fn of(open: &Arc<Places>, beyond: Option<&Beyond>, budgets: &Budgets) -> Arc<Self> {
        Arc::new(Self {
            open: open.clone(),
            part: (open.max() / CONNECTION_PART).max(CONNECTION_MIN),
            beyond: beyond.cloned(),
            beyond_now: Default::default(),
            logins: budgets.logins_per_connection.clone(),
            logins_now: AtomicUsize::new(0),
            unsent: Default::default(),
            round: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
        })
    }

    /// Places for a request to `path`. `know` says whether its caller is somebody, or needn't be, and if not what it is to be
    /// told; it is asked only where there are many requests.
    ///
    /// # Errors
    /// `TooManyRequests`, and what `know` says.
    pub(super) fn ask(
        self: &Arc<Self>,
        path: &str,
        know: impl FnOnce() -> Result<(), Unknown>,
    ) -> Result<Asked, RequestError> {
        let own = Arc::strong_count(self);
        let mut beyond = None;
        if self.open.taken() >= strangers(&self.open)
            && let Some(places) = &self.beyond
            && let Err(why) = know()
        {
            // Silent streams of whoever likes, on as many connections, would leave no place to others.
            let Some((places, kind)) = places.of(path, &why) else {
                return Err(match why {
                    Unknown::Told(error) if error != RequestError::TooManyRequests => error,
                    _ => self.refuse(),
                });
            };
            beyond = Some((self.take_beyond(places, kind).ok_or_else(|| self.refuse())?, kind));
        }
        let has_place = (own <= self.part && self.open.enter(0)) || self.enter_beyond(path, own);
        // Whatever it has by then goes with it.
        let mut asked = Asked { share: self.clone(), is_login: false, has_place, beyond };
        if !has_place {
            return Err(self.refuse());
        }
        if gateway::is_login(path) {
            asked.is_login = true;
            if self.logins_now.fetch_add(1, Ordering::Relaxed) >= self.logins.max() {
                self.logins.refuse();
                return Err(RequestError::TooManyRequests);
            }
        }
        Ok(asked)
    }

    fn refuse(&self) -> RequestError {
        self.open.refuse();
        RequestError::TooManyRequests
    }

    /// One of the places for nobody in particular, to be counted back by [`Asked`].
    fn take_beyond(&self, places: &Arc<Places>, kind: usize) -> Option<Place> {
        let now = &self.beyond_now[kind];
        let part = (places.max() / BEYOND_CONNECTION_PART).min(BEYOND_CONNECTION_MAX);
        let is_within = now.fetch_add(1, Ordering::Relaxed) < part;
        let place = is_within.then(|| places.take()).flatten();
        if place.is_none() {
            now.fetch_sub(1, Ordering::Relaxed);
        }
        place
    }

    /// A place for what has some when others have none.
    fn enter_beyond(&self, path: &str, own: usize) -> bool {
        let reserve = (self.open.max() / RESERVE_PART).max(RESERVE_MIN);
        if own > self.part + reserve / CONNECTION_PART {
            return false;
        }
        match path {
            _ if is_page_for_probes(path) => self.open.enter(reserve + PROBES),
            // Not all of them: their clients may let them wait.
            _ if PROBE_CALL.contains(&path) => self.open.enter(reserve + PROBES / 2),
            _ => GOES_ON.contains(&path) && self.open.enter(reserve),
        }
    }

    /// Pieces of answers that wait to be taken.
    pub(super) fn unsent(&self) -> usize {
        self.unsent.iter().map(|round| round.load(Ordering::Relaxed)).sum()
    }

    /// How often something of them was taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// A piece begins to wait.
    pub(super) fn begin(&self) -> Round {
        let round = self.round.load(Ordering::Relaxed);
        self.unsent[round % ROUNDS].fetch_add(1, Ordering::Relaxed);
        Round(round)
    }

    /// Something of a piece was taken.
    pub(super) fn moved(&self, of: &mut Round) {
        self.taken.fetch_add(1, Ordering::Relaxed);
        if of.0 != self.round.load(Ordering::Relaxed) {
            let before = std::mem::replace(of, self.begin());
            self.end(before);
        }
    }

    /// A piece waits no longer.
    pub(super) fn end(&self, of: Round) {
        self.unsent[of.0 % ROUNDS].fetch_sub(1, Ordering::Relaxed);
    }

    /// Begins the next round; whether a piece stood still for all that one may.
    fn next_round(&self) -> bool {
        let next = self.round.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        self.unsent[next.wrapping_sub(STILL_ROUNDS + 1) % ROUNDS].load(Ordering::Relaxed) > 0
    }
}

/// A request's places, until its answer is sent.
pub(super) struct Asked {
    share: Arc<Share>,
    is_login: bool,
    has_place: bool,
    /// One of those for nobody in particular, and of which kind.
    beyond: Option<(Place, usize)>,
}

impl Asked {
    /// Whether it is a login whose check isn't over.
    pub(super) fn is_login(&self) -> bool {
        self.is_login
    }

    /// There is an answer: a login's check is over.
    pub(super) fn answered(&mut self) {
        if std::mem::take(&mut self.is_login) {
            self.share.logins_now.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The connection's.
    pub(super) fn share(&self) -> &Share {
        &self.share
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.answered();
        if let Some((_, kind)) = self.beyond {
            self.share.beyond_now[kind].fetch_sub(1, Ordering::Relaxed);
        }
        if self.has_place {
            self.share.open.leave();
        }
    }
}

/// How long a connection is waited for that takes nothing.
pub(super) struct Patience {
    share: Arc<Share>,
    limit: Duration,
    answers: Wait,
    socket: Wait,
}

impl Patience {
    pub(super) fn new(share: Arc<Share>, limit: Duration) -> Self {
        Self { share, limit, answers: Wait::default(), socket: Wait::default() }
    }

    /// Whether it is over. `blocked` says whether the socket takes nothing now, `written` grows when it does. Wakes
    /// the task to be asked again.
    pub(super) fn is_over(&mut self, blocked: bool, written: u64, context: &mut Context<'_>) -> bool {
        let share = &self.share;
        let none = || false;
        self.socket.is_over(blocked, written, self.limit, none, context)
            || self.answers.is_over(share.unsent() > 0, share.taken(), self.limit, || share.next_round(), context)
    }
}

/// One thing that is waited for; a timer runs from the first look at which it was due until one at which it isn't.
#[derive(Default)]
struct Wait {
    timer: Option<Pin<Box<Sleep>>>,
    /// The progress when the timer was set.
    seen: u64,
    /// Whether nothing was waited for at a look since then: what waits now is something else.
    let_up: bool,
}

impl Wait {
    /// `stands_still` is asked each time the limit is over.
    fn is_over(
        &mut self,
        waits: bool,
        progress: u64,
        limit: Duration,
        stands_still: impl Fn() -> bool,
        context: &mut Context<'_>,
    ) -> bool {
        self.let_up |= !waits;
        loop {
            let Some(timer) = &mut self.timer else {
                if !waits {
                    return false;
                }
                (self.seen, self.let_up) = (progress, false);
                self.timer = Some(Box::pin(tokio::time::sleep(limit)));
                continue;
            };
            if timer.as_mut().poll(context).is_pending() {
                return false;
            }
            // What waited all the time without progress is the same that waited then.
            if (waits && !self.let_up && progress == self.seen) || stands_still() {
                return true;
            }
            self.timer = None;
        }
    }
}

#[cfg(test)]
#[path = "share_tests.rs"]
mod tests;
