//! `WatchHub`: from a published batch to the mailbox of every stream that wants it.
//!
//! ```text
//! applier ─ notify(batch, revision) ─► match (index) ─► one Matched a group ─► a pointer in each mailbox ─► revision
//! stream  ─ join(groups) ─► R: everything above R will be in the mailbox, nothing up to R will
//! ```
//!
//! One lock orders notify against join, so joining live leaves no gap and makes no repeat. The hub's revision is
//! stored after all mailboxes were filled: a stream that reads R and then drains its mailbox has everything up to R.
//! All of this room takes that revision as the current one, never the store's (which may be ahead for a moment).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::event::{Matched, PrevCache, SharedEvent};
use super::history::HistorySource;
use super::index::{GroupKey, RangeIndex};
use super::limits::WatchLimits;
use super::mailbox::{Mailbox, StreamEnd};
use super::metrics::WatchMetrics;
use crate::env::sync::Mutex;
use crate::storage::EventBatch;
use crate::types::planted::{Bug, is_planted};

/// Hits of a batch that are put into mailboxes together, give or take a revision.
const HITS_MAX: usize = 64 * 1024;
/// Streams that are looked at together for a scrape.
const LOOKED_AT: usize = 1_000;
/// Hits of one revision beyond which every stream reads it from history instead, in rounds of bounded size.
const REVISION_HITS_MAX: usize = 4 * 1024 * 1024;

/// Watchers of one range and kinds, on any number of streams.
#[derive(Debug)]
struct Group {
    key: GroupKey,
    /// In the order of their numbers, so that a run of the simulation can be repeated.
    members: BTreeMap<u64, Member>,
    /// Members that aren't lost: with none, an event needs no copy for this group.
    hearing: usize,
}

#[derive(Debug)]
struct Member {
    mailbox: Arc<Mailbox>,
    /// Its mailbox was full: it leaves the group before it takes anything again.
    lost: bool,
}

/// An event for a group.
type Hit = (u32, Arc<SharedEvent>);

#[derive(Debug)]
struct OpenStream {
    mailbox: Arc<Mailbox>,
    needs_leader: bool,
}

#[derive(Debug, Default)]
struct Registry {
    index: RangeIndex,
    ids: HashMap<GroupKey, u32>,
    groups: Vec<Option<Group>>,
    free: Vec<u32>,
    streams: BTreeMap<u64, OpenStream>,
    /// Streams that want to be woken once the hub's revision is that high.
    waiting: Vec<(i64, Arc<Mailbox>)>,
}

struct Shared {
    source: Arc<dyn HistorySource>,
    limits: WatchLimits,
    metrics: Arc<WatchMetrics>,
    prev_cache: PrevCache,
    registry: Mutex<Registry>,
    revision: AtomicI64,
    streams_opened: AtomicU64,
    replay_slots: Arc<tokio::sync::Semaphore>,
}

/// The one hub of a server; cheap to clone.
#[derive(Clone)]
pub struct WatchHub {
    shared: Arc<Shared>,
}

impl WatchHub {
    /// A hub over the store's read side; its revision is the published one now.
    ///
    /// To be made before anything is applied: whatever is published later must come through [`WatchHub::notify`].
    pub fn new(source: impl HistorySource, limits: WatchLimits) -> Self {
        let revision = AtomicI64::new(source.revision());
        let replay_slots = Arc::new(tokio::sync::Semaphore::new(limits.replays_max));
        Self {
            shared: Arc::new(Shared {
                source: Arc::new(source),
                prev_cache: PrevCache::new(limits.prev_cache_bytes_max),
                limits,
                metrics: Arc::default(),
                registry: Mutex::default(),
                revision,
                streams_opened: AtomicU64::new(0),
                replay_slots,
            }),
        }
    }

    /// Tells every interested stream of a published batch. Called by the one applier after each publish and before
    /// the writers are answered; never blocks on a stream or a disk.
    ///
    /// `revision` is the store's after the publish. If it is ahead of what the batches said (a snapshot was
    /// installed), every stream reads the difference from history; what was said before is not said again.
    pub fn notify(&self, batch: Option<Arc<EventBatch>>, revision: i64) {
        let mut registry = self.shared.registry.lock();
        let mut current = self.shared.revision.load(Ordering::Acquire);
        if let Some(batch) = batch.filter(|batch| batch.first_main <= current + 1) {
            if !(is_planted(Bug::DroppedEvent) && batch.last_main % 50 == 0) {
                registry.fan_out(&batch, current);
            }
            current = current.max(batch.last_main);
        }
        if revision > current {
            for stream in registry.streams.values() {
                stream.mailbox.lose(current + 1);
            }
            current = revision;
        }
        self.shared.revision.store(current, Ordering::Release);
        if !registry.waiting.is_empty() {
            registry.waiting.retain(|(target, mailbox)| {
                if *target <= current {
                    mailbox.nudge();
                }
                *target > current
            });
        }
    }

    /// The last revision whose events are in the mailboxes.
    pub fn revision(&self) -> i64 {
        self.shared.revision.load(Ordering::Acquire)
    }

    /// The counters.
    pub fn metrics(&self) -> &WatchMetrics {
        &self.shared.metrics
    }

    /// How many revisions the stream that is behind the most has before it.
    ///
    /// Looks at every stream: for a scrape, not for a request.
    pub fn lag(&self) -> i64 {
        let (mut most, mut next) = (0, 0);
        loop {
            // A few at a time, and looked at out of the lock: who publishes must not wait for it.
            let few = self.shared.registry.lock().mailboxes_from(next);
            let Some(last) = few.last() else { return most };
            next = last.stream + 1;
            let revision = self.revision();
            let behind = few.iter().filter_map(|mailbox| Some(revision - mailbox.waits_from()? + 1));
            most = behind.fold(most, i64::max);
        }
    }

    /// The limits in force.
    pub fn limits(&self) -> &WatchLimits {
        &self.shared.limits
    }

    /// Ends every stream with a status, for a server that goes down.
    pub fn end_all(&self, end: &StreamEnd) {
        for stream in self.shared.registry.lock().streams.values() {
            stream.mailbox.end(end.clone());
        }
    }

    /// Ends every stream that asked for a leader (`hasleader`), for a member that lost it.
    pub fn end_leader_streams(&self, end: &StreamEnd) {
        for stream in self.shared.registry.lock().streams.values() {
            if stream.needs_leader {
                stream.mailbox.end(end.clone());
            }
        }
    }

    pub(crate) fn source(&self) -> &Arc<dyn HistorySource> {
        &self.shared.source
    }

    pub(crate) fn prev_cache(&self) -> &PrevCache {
        &self.shared.prev_cache
    }

    pub(crate) fn replay_slots(&self) -> &Arc<tokio::sync::Semaphore> {
        &self.shared.replay_slots
    }

    /// Registers a stream.
    pub(crate) fn open(&self, needs_leader: bool) -> Arc<Mailbox> {
        let stream = self.shared.streams_opened.fetch_add(1, Ordering::Relaxed);
        let metrics = Arc::clone(&self.shared.metrics);
        let mailbox = Arc::new(Mailbox::new(stream, self.shared.limits.stream_bytes_max, metrics));
        let open = OpenStream { mailbox: Arc::clone(&mailbox), needs_leader };
        self.shared.registry.lock().streams.insert(stream, open);
        WatchMetrics::add(&self.shared.metrics.streams, 1);
        mailbox
    }

    /// Forgets a stream that is gone, with its groups.
    pub(crate) fn close(&self, mailbox: &Mailbox, groups: impl IntoIterator<Item = u32>) {
        let mut registry = self.shared.registry.lock();
        registry.streams.remove(&mailbox.stream);
        registry.waiting.retain(|(_, waiting)| waiting.stream != mailbox.stream);
        groups.into_iter().for_each(|group| registry.leave(group, mailbox.stream));
        WatchMetrics::sub(&self.shared.metrics.streams, 1);
    }

    /// Puts a stream into groups. From the returned revision on (exclusive) every event of theirs comes by mailbox.
    pub(crate) fn join(&self, keys: &[&GroupKey], mailbox: &Arc<Mailbox>) -> (Vec<u32>, i64) {
        let mut registry = self.shared.registry.lock();
        let ids = keys.iter().map(|key| registry.join(key, mailbox)).collect();
        (ids, self.revision())
    }

    /// Takes a stream out of groups.
    pub(crate) fn leave(&self, groups: impl IntoIterator<Item = u32>, mailbox: &Mailbox) {
        let mut registry = self.shared.registry.lock();
        groups.into_iter().for_each(|group| registry.leave(group, mailbox.stream));
    }

    /// Wakes the stream once the hub's revision is at least `target`.
    pub(crate) fn wake_at(&self, target: i64, mailbox: &Arc<Mailbox>) {
        let mut registry = self.shared.registry.lock();
        if self.revision() >= target {
            mailbox.nudge();
            return;
        }
        // Woken earlier than it needs to be, the stream asks again.
        let asked = registry.waiting.iter().any(|(at, waiting)| waiting.stream == mailbox.stream && *at <= target);
        if !asked {
            registry.waiting.push((target, Arc::clone(mailbox)));
        }
    }

    /// Groups that any stream is in.
    #[cfg(test)]
    pub(crate) fn groups(&self) -> usize {
        self.shared.registry.lock().ids.len()
    }
}

impl Registry {
    /// The mailboxes of a few streams, from the one with number `first` on.
    fn mailboxes_from(&self, first: u64) -> Vec<Arc<Mailbox>> {
        self.streams.range(first..).take(LOOKED_AT).map(|(_, stream)| Arc::clone(&stream.mailbox)).collect()
    }

    /// Matches the batch's events above `current` and leaves them in the mailboxes, in slices of whole revisions, so
    /// that what is made for many groups at once is bounded.
    fn fan_out(&mut self, batch: &EventBatch, current: i64) {
        if self.ids.is_empty() {
            return;
        }
        let mut hits: Vec<Hit> = Vec::new();
        let (mut main, mut main_at, mut passed_over) = (current, 0, current);
        for entry in batch.events.iter().filter(|entry| entry.event.revision.main > current) {
            if entry.event.revision.main != main {
                if hits.len() >= HITS_MAX {
                    self.deliver(std::mem::take(&mut hits));
                }
                (main, main_at) = (entry.event.revision.main, hits.len());
            }
            if main == passed_over {
                continue;
            }
            let mut shared: Option<Arc<SharedEvent>> = None;
            self.index.matches(&entry.event.kv.key, entry.event.kind, |group| {
                if !matches!(self.groups.get(group as usize), Some(Some(Group { hearing: 1.., .. }))) {
                    return;
                }
                let event = shared.get_or_insert_with(|| SharedEvent::new(entry));
                hits.push((group, Arc::clone(event)));
            });
            if hits.len() - main_at > REVISION_HITS_MAX {
                hits.truncate(main_at);
                self.deliver(std::mem::take(&mut hits));
                self.streams.values().for_each(|stream| stream.mailbox.lose(main));
                (main_at, passed_over) = (0, main);
            }
        }
        self.deliver(hits);
    }

    fn deliver(&mut self, mut hits: Vec<Hit>) {
        // Stable: inside a group the events stay in revision order.
        hits.sort_by_key(|(group, _)| *group);
        let mut rest = hits.into_iter().peekable();
        while let Some((id, event)) = rest.next() {
            let mut events = vec![event];
            while let Some((_, event)) = rest.next_if(|(other, _)| *other == id) {
                events.push(event);
            }
            let Some(Some(group)) = self.groups.get_mut(id as usize) else { continue };
            let matched = Matched::new(events);
            for member in group.members.values_mut().filter(|member| !member.lost) {
                if !member.mailbox.push(id, &matched) {
                    member.lost = true;
                    group.hearing -= 1;
                }
            }
        }
    }

    fn join(&mut self, key: &GroupKey, mailbox: &Arc<Mailbox>) -> u32 {
        let id = match self.ids.get(key) {
            Some(id) => *id,
            None => self.add_group(key),
        };
        if let Some(Some(group)) = self.groups.get_mut(id as usize) {
            let member = Member { mailbox: Arc::clone(mailbox), lost: false };
            if group.members.insert(mailbox.stream, member).is_none_or(|before| before.lost) {
                group.hearing += 1;
            }
        }
        id
    }

    fn add_group(&mut self, key: &GroupKey) -> u32 {
        let group = Some(Group { key: key.clone(), members: BTreeMap::new(), hearing: 0 });
        let id = match self.free.pop() {
            Some(id) => {
                self.groups[id as usize] = group;
                id
            }
            None => {
                self.groups.push(group);
                (self.groups.len() - 1) as u32
            }
        };
        self.ids.insert(key.clone(), id);
        self.index.insert(key, id);
        id
    }

    fn leave(&mut self, id: u32, stream: u64) {
        let Some(slot) = self.groups.get_mut(id as usize) else { return };
        let Some(group) = slot else { return };
        if group.members.remove(&stream).is_some_and(|member| !member.lost) {
            group.hearing -= 1;
        }
        if group.members.is_empty() {
            if let Some(group) = slot.take() {
                self.ids.remove(&group.key);
                self.index.remove(&group.key, id);
            }
            self.free.push(id);
        }
    }
}
