//! `Share`: what one connection has asked for, and whether it takes what it gets.
//!
//! ```text
//! request ─► Share::ask ─► Asked ─► answer ─► ConnBody ─ sent or dropped ─► its places are free again
//!                      └► None: too many, of all clients or of this one; refused at once
//! connection's turn ends ─► Patience: unread answers, a blocked socket? ─► nothing moved for so long ─► cut off
//! ```
//! A client that reads nothing costs memory: HTTP/1.1 has no other sign of it than a socket that takes nothing,
//! HTTP/2 also windows that stay shut. Streams are not judged by their windows, since a slow watcher is no fault.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::grpc::body::{BodyError, ReplyBody};
use super::services::Budgets;
use crate::types::Places;

/// What part of all places is kept for what must go on when there are no others, and the fewest of them.
const RESERVE_PART: usize = 8;
const RESERVE_MIN: usize = 64;

/// Calls that must go on: they end an overload, or keep what others rely on.
const GOES_ON: [&str; 7] = [
    "/etcdserverpb.Lease/LeaseKeepAlive",
    "/etcdserverpb.Lease/LeaseRevoke",
    "/etcdserverpb.KV/Compact",
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Maintenance/Alarm",
    "/metrics",
    "/health",
];
/// The same by what a path begins with.
const GOES_ON_BELOW: [&str; 3] = ["/grpc.health.v1.Health/", "/livez", "/readyz"];

/// One connection's part.
pub(super) struct Share {
    /// Requests of all clients.
    open: Arc<Places>,
    /// How many logins one connection may have; counts the refusals of all.
    logins: Arc<Places>,
    logins_now: AtomicUsize,
    /// Answers that are made and not sent yet.
    unread: AtomicUsize,
    /// Grows whenever some of them is sent.
    taken: AtomicU64,
}

impl Share {
    pub(super) fn new(budgets: &Budgets) -> Arc<Self> {
        Arc::new(Self {
            open: budgets.open.clone(),
            logins: budgets.logins_per_connection.clone(),
            logins_now: AtomicUsize::new(0),
            unread: AtomicUsize::new(0),
            taken: AtomicU64::new(0),
        })
    }

    /// Places for a request to `path`, or `None` if it is one too many.
    pub(super) fn ask(self: &Arc<Self>, path: &str) -> Option<Asked> {
        let has_place = self.open.enter(0) || (goes_on(path) && self.open.enter(reserve(self.open.max())));
        if !has_place {
            self.open.refuse();
            return None;
        }
        let mut asked = Asked { share: self.clone(), is_login: false, is_unread: false };
        if is_login(path) {
            asked.is_login = true;
            if self.logins_now.fetch_add(1, Ordering::Relaxed) >= self.logins.max() {
                self.logins.refuse();
                return None;
            }
        }
        Some(asked)
    }
}

fn reserve(max: usize) -> usize {
    (max / RESERVE_PART).max(RESERVE_MIN)
}

fn goes_on(path: &str) -> bool {
    GOES_ON.contains(&path) || GOES_ON_BELOW.iter().any(|below| path.starts_with(below))
}

/// By either door.
fn is_login(path: &str) -> bool {
    path.ends_with("/Authenticate") || path.ends_with("/authenticate")
}

/// A request's places, until its answer is sent.
pub(super) struct Asked {
    share: Arc<Share>,
    is_login: bool,
    is_unread: bool,
}

impl Asked {
    /// The answer, which holds the places from here on.
    pub(super) fn answered(mut self, body: ReplyBody) -> ConnBody {
        self.end_login();
        // The others are streams, which may be silent, or nothing.
        if matches!(body, ReplyBody::Unary { .. } | ReplyBody::Large(_) | ReplyBody::Plain(_)) {
            self.is_unread = true;
            self.share.unread.fetch_add(1, Ordering::Relaxed);
        }
        ConnBody { body, asked: Some(self) }
    }

    fn end_login(&mut self) {
        if std::mem::take(&mut self.is_login) {
            self.share.logins_now.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.end_login();
        self.share.open.leave();
        if self.is_unread {
            self.share.taken.fetch_add(1, Ordering::Relaxed);
            self.share.unread.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A response's body as the connection sends it.
pub(super) struct ConnBody {
    body: ReplyBody,
    /// `None` for a refusal: it holds nothing that is counted.
    asked: Option<Asked>,
}

impl ConnBody {
    pub(super) fn refused(body: ReplyBody) -> Self {
        Self { body, asked: None }
    }
}

impl Body for ConnBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        // It is asked for more only when its client has room for it.
        if let Some(Asked { share, is_unread: true, .. }) = &self.asked {
            share.taken.fetch_add(1, Ordering::Relaxed);
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
        let waits = self.share.unread.load(Ordering::Relaxed) > 0;
        let taken = self.share.taken.load(Ordering::Relaxed);
        self.socket.is_over(blocked, written, self.limit, context)
            || self.answers.is_over(waits, taken, self.limit, context)
    }
}

/// One thing that is waited for; a timer runs from the first look at which it was due until one at which it isn't.
#[derive(Default)]
struct Wait {
    timer: Option<Pin<Box<Sleep>>>,
    /// The progress when the timer was set.
    seen: u64,
}

impl Wait {
    fn is_over(&mut self, waits: bool, progress: u64, limit: Duration, context: &mut Context<'_>) -> bool {
        loop {
            let Some(timer) = &mut self.timer else {
                if !waits {
                    return false;
                }
                self.seen = progress;
                self.timer = Some(Box::pin(tokio::time::sleep(limit)));
                continue;
            };
            if timer.as_mut().poll(context).is_pending() {
                return false;
            }
            // What waited all the time without progress is the same that waited then.
            if waits && progress == self.seen {
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

    struct Silent;

    impl Body for Silent {
        type Data = Bytes;
        type Error = BodyError;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
            Poll::Pending
        }
    }

    fn share(limits: Limits) -> Arc<Share> {
        Share::new(&Budgets::new(&limits))
    }

    #[test]
    fn the_reserve_is_for_what_must_go_on() {
        let share = share(Limits { requests_open_max: 2, ..Limits::default() });
        let put = "/etcdserverpb.KV/Put";
        let held = [share.ask(put).expect("room"), share.ask(put).expect("room")];
        assert!(share.ask(put).is_none());
        assert_eq!(share.open.refused(), 1);
        let more: Vec<_> = (0..RESERVE_MIN).map(|_| share.ask("/health").expect("in the reserve")).collect();
        assert!(share.ask("/readyz/linearizable_read").is_none(), "that has an end, too");
        drop(more);
        let body = held.into_iter().next().expect("one").answered(ReplyBody::Plain(None));
        assert_eq!(share.open.taken(), 1, "until it is sent");
        drop(body);
        assert!(share.open.taken() == 0 && share.ask(put).is_some());
    }

    #[test]
    fn a_connection_has_few_logins_at_a_time() {
        let share = share(Limits { logins_per_connection_max: 1, ..Limits::default() });
        let [call, json] = ["/etcdserverpb.Auth/Authenticate", "/v3/auth/authenticate"];
        let login = share.ask(call).expect("the first");
        assert!(share.ask(json).is_none() && share.ask("/etcdserverpb.KV/Put").is_some());
        assert_eq!((share.logins.refused(), share.open.taken()), (1, 1));
        let body = login.answered(ReplyBody::Empty);
        assert!(share.ask(json).is_some(), "the check is over, whether the answer is read or not");
        drop(body);
        assert_eq!(share.logins_now.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_cut_off_and_who_takes_a_little_is_not() {
        let limit = Duration::from_secs(60);
        let share = share(Limits::default());
        let mut patience = Patience::new(share.clone(), limit);
        let context = &mut Context::from_waker(Waker::noop());
        let unread = || share.ask("/").expect("room").answered(ReplyBody::Plain(Some(Bytes::from_static(b"x"))));
        let mut answers = vec![unread(), unread()];
        assert!(!patience.is_over(false, 0, context));
        tokio::time::sleep(limit - Duration::from_secs(1)).await;
        drop(answers.pop());
        assert!(!patience.is_over(false, 0, context));
        tokio::time::sleep(limit / 2).await;
        assert!(!patience.is_over(false, 0, context), "one was taken meanwhile");
        tokio::time::sleep(limit).await;
        assert!(patience.is_over(false, 0, context), "and then none");
        drop(answers);
        let mut patience = Patience::new(share.clone(), limit);
        let silent = share.ask("/").expect("room").answered(ReplyBody::Json(Box::pin(Silent)));
        tokio::time::sleep(2 * limit).await;
        assert!(!patience.is_over(false, 0, context), "a stream may be silent");
        drop(silent);
        for (at, written) in [(0, 5), (1, 5), (2, 6)] {
            assert!(!patience.is_over(true, written, context), "{at}");
            tokio::time::sleep(limit / 2).await;
        }
        assert!(!patience.is_over(true, 6, context), "some was written");
        tokio::time::sleep(limit).await;
        assert!(patience.is_over(true, 6, context));
    }
}
