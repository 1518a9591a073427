//! `Share`: what one connection has asked for, and whether it takes what it gets.
//!
//! ```text
//! request ─► Share::ask ─► Asked ─► answer ─► `riding` ─ written or dropped ─► its places are free again
//!                      └► None: too many, of all clients or of this one; refused at once
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
use crate::types::Places;

/// What part of all places is kept for what must go on when there are no others, and the fewest of them.
const RESERVE_PART: usize = 8;
const RESERVE_MIN: usize = 64;
/// Places that are kept besides, for probes alone.
const PROBES: usize = 64;
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
/// What tells whoever watches over this server how it is.
const PROBE: [&str; 2] = ["/metrics", "/health"];
/// The same by what a path begins with.
const PROBE_BELOW: [&str; 3] = ["/grpc.health.v1.Health/", "/livez", "/readyz"];

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
        Arc::new(Self {
            open: budgets.open.clone(),
            part: (budgets.open.max() / CONNECTION_PART).max(CONNECTION_MIN),
            logins: budgets.logins_per_connection.clone(),
            logins_now: AtomicUsize::new(0),
            unsent: Default::default(),
            round: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
        })
    }

    /// Places for a request to `path`, or `None` if it is one too many.
    pub(super) fn ask(self: &Arc<Self>, path: &str) -> Option<Asked> {
        let own = Arc::strong_count(self);
        let has_place = (own <= self.part && self.open.enter(0)) || self.enter_beyond(path, own);
        if !has_place {
            self.open.refuse();
            return None;
        }
        let mut asked = Asked { share: self.clone(), is_login: false };
        if gateway::is_login(path) {
            asked.is_login = true;
            if self.logins_now.fetch_add(1, Ordering::Relaxed) >= self.logins.max() {
                self.logins.refuse();
                return None;
            }
        }
        Some(asked)
    }

    /// A place for what has some when others have none.
    fn enter_beyond(&self, path: &str, own: usize) -> bool {
        let reserve = (self.open.max() / RESERVE_PART).max(RESERVE_MIN);
        if PROBE.contains(&path) || PROBE_BELOW.iter().any(|below| path.starts_with(below)) {
            return self.open.enter(reserve + PROBES);
        }
        GOES_ON.contains(&path) && own <= self.part + reserve / CONNECTION_PART && self.open.enter(reserve)
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
}

impl Asked {
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
        self.share.open.leave();
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
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::types::Limits;

    const PUT: &str = "/etcdserverpb.KV/Put";
    const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";

    fn share(limits: Limits) -> Arc<Share> {
        Share::new(&Budgets::new(&limits))
    }

    fn ask(share: &Arc<Share>, path: &str, count: usize) -> Vec<Asked> {
        (0..count).map(|_| share.ask(path).expect("room")).collect()
    }

    #[test]
    fn the_reserve_is_for_what_must_go_on_and_probes_have_one_of_their_own() {
        let budgets = Budgets::new(&Limits { requests_open_max: 2, ..Limits::default() });
        let [share, other] = [(); 2].map(|()| Share::new(&budgets));
        let held = ask(&share, PUT, 2);
        assert!(share.ask(PUT).is_none());
        assert_eq!(share.open.refused(), 1);
        // Streams of whoever wants some, on as many connections as it takes.
        let mut kept = ask(&share, KEEP_ALIVE, RESERVE_MIN / 2);
        kept.extend(ask(&other, KEEP_ALIVE, RESERVE_MIN / 2));
        assert!(share.ask(KEEP_ALIVE).is_none(), "that has an end, too");
        let probes: Vec<_> = ["/health", "/livez", "/readyz/x", "/metrics", "/grpc.health.v1.Health/Check"]
            .into_iter()
            .cycle()
            .take(PROBES)
            .map(|path| share.ask(path).expect("no stream takes a probe's place"))
            .collect();
        assert!(share.ask("/health").is_none());
        drop((probes, kept, held));
        assert!(share.open.taken() == 0 && share.ask(PUT).is_some());
    }

    #[test]
    fn one_connection_leaves_places_to_others() {
        let budgets = Budgets::new(&Limits { requests_open_max: 1_000, ..Limits::default() });
        let [share, other] = [(); 2].map(|()| Share::new(&budgets));
        let mut held = Vec::new();
        while let Some(asked) = share.ask(PUT) {
            held.push(asked);
        }
        assert!((490..=500).contains(&held.len()), "{}", held.len());
        let renewals = ask(&share, KEEP_ALIVE, 10);
        assert!(ask(&other, PUT, 400).len() == 400 && share.ask("/health").is_some());
        drop((held, renewals));
        assert!(share.ask(PUT).is_some());
    }

    #[test]
    fn a_connection_has_few_logins_at_a_time() {
        let share = share(Limits { logins_per_connection_max: 1, ..Limits::default() });
        let mut login = share.ask("/etcdserverpb.Auth/Authenticate").expect("the first");
        for path in ["/v3/auth/authenticate", "/v3beta/auth/authenticate", "/v3/auth/authenticat%65"] {
            assert!(share.ask(path).is_none(), "{path}");
        }
        assert!(share.ask(PUT).is_some() && share.ask("/v3/auth/enabl%65").is_some());
        assert_eq!((share.logins.refused(), share.open.taken()), (3, 1));
        login.answered();
        assert!(share.ask("/v3/auth/authenticate").is_some(), "the check is over, whether the answer is read or not");
        drop(login);
        assert_eq!(share.logins_now.load(Ordering::Relaxed), 0);
    }

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_cut_off_and_who_takes_a_little_is_not() {
        let share = share(Limits::default());
        let mut patience = Patience::new(share.clone(), LIMIT);
        let context = &mut Context::from_waker(Waker::noop());
        let [mut one, other] = [(); 2].map(|()| share.begin());
        assert!(!patience.is_over(false, 0, context));
        tokio::time::sleep(LIMIT - Duration::from_secs(1)).await;
        share.moved(&mut one);
        share.end(one);
        assert!(!patience.is_over(false, 0, context));
        tokio::time::sleep(LIMIT / 2).await;
        assert!(!patience.is_over(false, 0, context), "some was taken meanwhile");
        // That there is more is no progress.
        let more = share.begin();
        tokio::time::sleep(LIMIT).await;
        assert!(patience.is_over(false, 0, context), "and then nothing");
        share.end(other);
        share.end(more);
        let mut patience = Patience::new(share.clone(), LIMIT);
        for (at, written) in [(0, 5), (1, 5), (2, 6)] {
            assert!(!patience.is_over(true, written, context), "{at}");
            tokio::time::sleep(LIMIT / 2).await;
        }
        assert!(!patience.is_over(true, 6, context), "some was written");
        tokio::time::sleep(LIMIT).await;
        assert!(patience.is_over(true, 6, context));
    }

    // Cause: a reset is no progress, and the time ran on over it. Symptom: an idle connection on which a call had been given up
    // was cut for one that had just begun.
    #[tokio::test(start_paused = true)]
    async fn what_begins_after_another_was_reset_has_all_its_time() {
        let share = share(Limits::default());
        let mut patience = Patience::new(share.clone(), LIMIT);
        let context = &mut Context::from_waker(Waker::noop());
        let given_up = share.begin();
        assert!(!patience.is_over(false, 0, context));
        tokio::time::sleep(LIMIT / 2).await;
        share.end(given_up);
        assert!(!patience.is_over(false, 0, context));
        tokio::time::sleep(LIMIT / 2).await;
        let fresh = share.begin();
        assert!(!patience.is_over(false, 0, context), "it has just begun");
        tokio::time::sleep(LIMIT).await;
        assert!(patience.is_over(false, 0, context), "and its time ends, too");
        share.end(fresh);
    }

    /// How long it takes until it is over, with a step each second.
    async fn over_after(share: &Arc<Share>, mut step: impl FnMut()) -> Duration {
        let mut patience = Patience::new(share.clone(), LIMIT);
        let begun = tokio::time::Instant::now();
        while !patience.is_over(false, 0, &mut Context::from_waker(Waker::noop())) {
            step();
            tokio::time::sleep(Duration::from_secs(1)).await;
            if begun.elapsed() > 100 * LIMIT {
                break;
            }
        }
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn one_answer_that_stands_still_ends_a_connection_on_which_others_move() {
        let share = share(Limits::default());
        let [mut moving, still] = [(); 2].map(|()| share.begin());
        let after = over_after(&share, || share.moved(&mut moving)).await;
        assert!((5 * LIMIT..=7 * LIMIT).contains(&after), "{after:?}");
        share.end(still);
        share.end(moving);
        // Each moves now and then.
        let mut slow: Vec<_> = (0..270).map(|_| share.begin()).collect();
        let mut at = 0;
        let after = over_after(&share, || {
            share.moved(&mut slow[at % 270]);
            at += 1;
        })
        .await;
        assert!(after > 100 * LIMIT, "{after:?}");
        slow.into_iter().for_each(|round| share.end(round));
        assert_eq!(share.unsent(), 0);
    }
}
