//! `StreamCore`: one watch stream as a state machine; requests, mailbox and time go in, framed messages come out.
//!
//! ```text
//! request ─► reply (at once) ─► live:   join the hub's group ─► mailbox ─► Pending ─► Work ─► Output
//!                           └─► behind: Job (a round of history) ─► Work ─► … caught up ─► join, read the gap ─► live
//! ```
//!
//! It knows no task, no socket and no clock: `session` drives it and runs the jobs that it asks for.
//! - A watcher's `next` only grows and what is below it is skipped: overlap between history and mailbox is harmless.
//! - The mailbox is left alone while the gap of a cohort that just joined is read (`CatchUp::is_gap`): what lies in it
//!   comes after the gap.
//! - Progress is answered only after a drain that found nothing, with the hub's revision as it was before that drain.

mod catch_up;
mod replay;
mod requests;
mod watchers;
mod work;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use self::catch_up::CatchUp;
use self::replay::{Answer, Kind, Piece};
pub(crate) use self::replay::{Done, Job};
use self::watchers::{State, Target, Watchers};
use self::work::{Item, Pen, Shape, Work};
use super::encode::{Control, HeaderIds};
use super::event::{Matched, SharedEvent};
use super::hub::WatchHub;
use super::mailbox::{Delivery, Mailbox, StreamEnd};
use super::metrics::WatchMetrics;
use super::output::Output;

/// Revisions that may wait for a stream before it gets several in one response, as it would from history.
const JOIN_REVISIONS: usize = 16;
/// gRPC's number for "unavailable": the client connects again and goes on where it was.
const CODE_UNAVAILABLE: i32 = 14;

/// Says who answers, at each response.
pub type HeaderSource = Arc<dyn Fn() -> HeaderIds + Send + Sync>;

/// What a stream does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The output is full: take it, then go on.
    Full,
    /// Nothing to do until a request, the mailbox, a job or the time brings something.
    Idle,
    /// Nothing to do until a job is done, whatever is in the mailbox.
    Blocked,
    /// The stream is over.
    End(StreamEnd),
}

/// Live events of one of the hub's groups that wait for their turn.
#[derive(Debug)]
struct Pending {
    group: u32,
    events: Vec<Arc<SharedEvent>>,
    shape: Shape,
    cost: usize,
}

/// Live events that wait for their previous pairs to be read from disk.
#[derive(Debug)]
struct Unread {
    pending: Pending,
    targets: SmallVec<[Target; 1]>,
}

/// One stream.
pub(crate) struct StreamCore {
    hub: WatchHub,
    mailbox: Arc<Mailbox>,
    header: HeaderSource,
    watchers: Watchers,
    queue: VecDeque<Pending>,
    work: Option<Work>,
    unread: Option<Unread>,
    lost: bool,
    /// The highest revision taken from the mailbox; may be ahead of the hub's for a moment, and progress waits then.
    taken: i64,
    behind: VecDeque<Target>,
    catch_up: CatchUp,
    jobs: Vec<Job>,
    /// Watchers whose history is gone and whose clients aren't told yet, with the compact revision.
    compacted: VecDeque<(Target, i64)>,
    /// A progress request waits for the stream to have sent everything up to this revision.
    progress_wanted: Option<i64>,
    tick: bool,
    /// The metrics' part of this stream, to be corrected when it changes: watchers, those behind, bytes of ranges.
    counted: (u64, u64, u64),
    failed: Option<StreamEnd>,
}

impl fmt::Debug for StreamCore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamCore").field("watchers", &self.watchers.len()).finish_non_exhaustive()
    }
}

impl StreamCore {
    /// A stream without watchers.
    pub(crate) fn new(hub: WatchHub, header: HeaderSource, needs_leader: bool) -> Self {
        let mailbox = hub.open(needs_leader);
        Self {
            hub,
            mailbox,
            header,
            watchers: Watchers::default(),
            queue: VecDeque::new(),
            work: None,
            unread: None,
            lost: false,
            taken: 0,
            behind: VecDeque::new(),
            catch_up: CatchUp::Idle,
            jobs: Vec::new(),
            compacted: VecDeque::new(),
            progress_wanted: None,
            tick: false,
            counted: (0, 0, 0),
            failed: None,
        }
    }

    /// Where the hub leaves what is for this stream.
    pub(crate) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// A progress interval is over.
    pub(crate) fn tick(&mut self) {
        self.tick = true;
    }

    /// The next thing to run where blocking is allowed.
    pub(crate) fn take_job(&mut self) -> Option<Job> {
        self.jobs.pop()
    }

    /// Goes on with what a job found.
    pub(crate) fn finish(&mut self, done: Done) {
        match done.0 {
            Answer::Replay(round) => self.replayed(round),
            Answer::Previous(Ok(fields)) => {
                if let Some(Unread { pending, targets }) = self.unread.take() {
                    let item = |(event, with_prev): (&Arc<SharedEvent>, Bytes)| Item {
                        main: event.main,
                        plain: event.plain.clone(),
                        with_prev: Some(with_prev),
                    };
                    let items = pending.events.iter().zip(fields).map(item).collect();
                    self.start_work(pending, targets, items);
                }
            }
            Answer::Previous(Err(error)) => self.fail(error.to_string()),
        }
    }

    /// Ends the stream: its history can't be read here now, and a gap is no choice.
    fn fail(&mut self, message: String) {
        self.failed = Some(StreamEnd { code: CODE_UNAVAILABLE, message });
    }

    /// Writes what can be written.
    pub(crate) fn advance(&mut self, out: &mut Output) -> Step {
        let ids = (self.header)();
        if let Some(end) = self.mailbox.ended() {
            return Step::End(end);
        }
        let step = loop {
            if let Some(end) = self.failed.take() {
                break Step::End(end);
            }
            if out.is_full() {
                break Step::Full;
            }
            if let Some((target, compact_revision)) = self.compacted.pop_front() {
                // Unless the client cancelled it meanwhile: then it has its answer, and the id may be another's.
                if let Some(watcher) = self.watchers.get(target) {
                    let watch_id = watcher.id;
                    out.control(ids, &Control { watch_id, canceled: true, compact_revision, ..Control::default() });
                }
                continue;
            }
            if let Some(mut work) = self.work.take() {
                let hub = &self.hub;
                let done = work.write(&mut Pen {
                    watchers: &mut self.watchers,
                    out,
                    ids,
                    fragment_bytes: hub.limits().fragment_bytes,
                    metrics: hub.metrics(),
                });
                if done {
                    self.mailbox.release(work.cost);
                } else {
                    self.work = Some(work);
                }
                continue;
            }
            if self.unread.is_some() {
                break Step::Blocked;
            }
            if self.next_replayed() || self.start_catch_up() {
                continue;
            }
            if self.catch_up.is_gap() {
                break Step::Blocked;
            }
            if let Some(pending) = self.queue.pop_front() {
                self.begin(pending);
                continue;
            }
            let through = self.hub.revision();
            if self.drain() {
                continue;
            }
            if self.lost {
                self.fall_behind();
                continue;
            }
            self.progress(through, ids, out);
            break if out.is_full() { Step::Full } else { Step::Idle };
        };
        self.count();
        step
    }

    /// Takes the mailbox's deliveries into the queue; whether there were any.
    fn drain(&mut self) -> bool {
        let drained = self.mailbox.drain();
        self.lost = drained.lost_from.is_some();
        let waiting: usize = drained.deliveries.iter().map(|delivery| delivery.matched.events.len()).sum();
        if waiting > JOIN_REVISIONS && drained.deliveries.len() > 1 {
            self.queue_joined(drained.deliveries);
        } else {
            let pending = |Delivery { group, matched }| Pending {
                group,
                events: matched.events.clone(),
                shape: shape_of(&matched),
                cost: matched.cost,
            };
            self.queue.extend(drained.deliveries.into_iter().map(pending));
        }
        !self.queue.is_empty()
    }

    /// Puts the deliveries of each group together: only a watcher's own order counts.
    fn queue_joined(&mut self, deliveries: Vec<Delivery>) {
        let mut place = std::collections::HashMap::new();
        for Delivery { group, matched } in deliveries {
            let at = *place.entry(group).or_insert(self.queue.len());
            match self.queue.get_mut(at) {
                Some(pending) => {
                    pending.events.extend_from_slice(&matched.events);
                    pending.cost += matched.cost;
                    pending.shape = Shape::Joined;
                }
                None => self.queue.push_back(Pending {
                    group,
                    events: matched.events.clone(),
                    shape: shape_of(&matched),
                    cost: matched.cost,
                }),
            }
        }
    }

    /// Turns live events into work, or asks for their previous pairs first.
    fn begin(&mut self, pending: Pending) {
        self.taken = self.taken.max(pending.events.last().map_or(0, |event| event.main));
        let Some((targets, prev_kv)) = self.watchers.live_in_hub_group(pending.group) else {
            self.mailbox.release(pending.cost);
            return;
        };
        let (source, cache) = (self.hub.source().as_ref(), self.hub.prev_cache());
        let mut items: Vec<Item> = Vec::with_capacity(pending.events.len());
        let mut piece = Piece::default();
        for event in &pending.events {
            if piece.ends_before(event.main) {
                break;
            }
            let with_prev = if prev_kv { event.with_prev_now(source, cache) } else { None };
            if prev_kv && with_prev.is_none() {
                self.jobs.push(Job(Kind::Previous(pending.events.clone())));
                self.unread = Some(Unread { pending, targets });
                return;
            }
            piece.add(event.main, with_prev.as_ref().map_or(0, Bytes::len));
            items.push(Item { main: event.main, plain: event.plain.clone(), with_prev });
        }
        self.start_work(pending, targets, items);
    }

    /// Makes the first events of `pending` the work to do, as many as there are items; the rest waits at the front.
    fn start_work(&mut self, mut pending: Pending, targets: SmallVec<[Target; 1]>, items: Vec<Item>) {
        let rest = pending.events.split_off(items.len().min(pending.events.len()));
        let cost = if rest.is_empty() { pending.cost } else { 0 };
        self.work = Some(Work::new(targets, items, pending.shape, cost));
        if !rest.is_empty() {
            self.queue.push_front(Pending { events: rest, ..pending });
        }
    }

    /// Tells the client how far it is, if it asked or if it is time. Everything up to `through` was written.
    fn progress(&mut self, through: i64, ids: HeaderIds, out: &mut Output) {
        if self.tick || self.progress_wanted.is_some() {
            let target = self.taken.max(self.progress_wanted.unwrap_or(0));
            if through < target {
                self.hub.wake_at(target, &self.mailbox);
                return;
            }
        }
        // While watchers catch up the request is kept: a consistent list in kube-apiserver waits for its answer.
        if self.progress_wanted.is_some() && self.watchers.behind() == 0 {
            if self.may_progress(through) {
                out.control(ids, &Control { revision: through, watch_id: -1, ..Control::default() });
            }
            self.progress_wanted = None;
        }
        if std::mem::take(&mut self.tick) {
            for watcher in self.watchers.iter_mut().filter(|watcher| watcher.progress_notify) {
                let quiet = std::mem::replace(&mut watcher.quiet, true);
                if quiet && watcher.state() == State::Live && watcher.start <= through {
                    out.control(ids, &Control { revision: through, watch_id: watcher.id, ..Control::default() });
                }
            }
        }
    }

    /// The current revision for a header: never below what was sent.
    fn current(&self) -> i64 {
        self.hub.revision().max(self.taken)
    }

    /// Corrects the gauges by what changed since the last time.
    fn count(&mut self) {
        let watchers = &self.watchers;
        let now = (watchers.len() as u64, watchers.behind() as u64, watchers.range_bytes() as u64);
        let metrics = self.hub.metrics();
        WatchMetrics::add(&metrics.watchers, now.0.wrapping_sub(self.counted.0));
        WatchMetrics::add(&metrics.slow_watchers, now.1.wrapping_sub(self.counted.1));
        WatchMetrics::add(&metrics.range_bytes, now.2.wrapping_sub(self.counted.2));
        self.counted = now;
    }
}

impl Drop for StreamCore {
    fn drop(&mut self) {
        let metrics = self.hub.metrics();
        WatchMetrics::sub(&metrics.watchers, self.counted.0);
        WatchMetrics::sub(&metrics.slow_watchers, self.counted.1);
        WatchMetrics::sub(&metrics.range_bytes, self.counted.2);
        self.hub.close(&self.mailbox, self.watchers.hub_groups());
    }
}

/// A batch of many revisions goes out joined even to a stream that keeps up.
fn shape_of(matched: &Matched) -> Shape {
    if matched.events.len() > JOIN_REVISIONS { Shape::Joined } else { Shape::Single }
}
