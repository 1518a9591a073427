//! What a stream answers to its client's requests: ids, refusals and the first step of a watcher.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::super::encode::Control;
use super::super::index::GroupKey;
use super::super::metrics::WatchMetrics;
use super::super::output::Output;
use super::super::request::{CreateWatch, WatchRequest};
use super::{State, StreamCore};
use crate::types::{KeyRange, RequestError};

/// The id in answers that are of no watcher.
const NO_WATCHER: i64 = -1;
/// etcd's text for a range that can hold no key (E84).
const REASON_EMPTY_RANGE: &str = "mvcc: watcher range is empty";
/// etcd's text for an id that is taken (E81).
const REASON_DUPLICATE_ID: &str = "mvcc: duplicate watch ID provided on the WatchStream";

impl StreamCore {
    /// Takes a request; its answer is written before anything else that it causes.
    pub(crate) fn request(&mut self, request: WatchRequest, out: &mut Output) {
        match request {
            WatchRequest::Create(create) => {
                if let Err(reason) = self.create(&create, out) {
                    self.refuse(reason, out);
                }
            }
            WatchRequest::Refuse(reason) => self.refuse(reason, out),
            WatchRequest::Cancel(id) => self.cancel(id, out),
            WatchRequest::Progress => {
                let target = self.newest();
                if self.may_progress(target) {
                    self.progress_wanted = Some(target.max(self.progress_wanted.unwrap_or(0)));
                }
            }
        }
    }

    fn create(&mut self, create: &CreateWatch, out: &mut Output) -> Result<(), String> {
        if let Some(refused) = self.is_full() {
            WatchMetrics::add(refused, 1);
            return Err(RequestError::TooManyRequests.to_string());
        }
        if create.start_revision < 0 {
            return Err(RequestError::Compacted.to_string());
        }
        let range = normal_range(&create.range);
        if range.is_empty() {
            return Err(REASON_EMPTY_RANGE.to_owned());
        }
        let Some(id) = self.watchers.choose_id(create.watch_id) else {
            return Err(REASON_DUPLICATE_ID.to_owned());
        };
        let start = create.start_revision;
        let target = self.watchers.add(id, GroupKey { range, kinds: create.kinds }, create);
        let mut current = self.hub.revision();
        if start == 0 || start > current {
            current = self.attach(&[target]);
        }
        if let Some(watcher) = self.watchers.get_mut(target)
            && start == 0
        {
            watcher.next = current + 1;
        }
        if start == 0 || start > current {
            self.watchers.set_state(target, State::Live);
        } else {
            self.detach_idle(target);
            self.behind.push_back(target);
        }
        out.control((self.header)(), &Control { revision: current, watch_id: id, created: true, ..Control::default() });
        // Others have to see it at once, or they would all find room.
        self.count();
        Ok(())
    }

    /// If this stream has as many watchers as it may, or all streams together have: where that is counted.
    fn is_full(&self) -> Option<&AtomicU64> {
        let (limits, metrics) = (self.hub.limits(), self.hub.metrics());
        let all = |counter: &AtomicU64| usize::try_from(counter.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        if self.watchers.len() >= limits.stream_watchers_max || all(&metrics.watchers) >= limits.watchers_max {
            return Some(&metrics.refused_total);
        }
        let no_room = self.watchers.range_bytes() >= limits.stream_ranges_bytes_max
            || all(&metrics.range_bytes) >= limits.ranges_bytes_max;
        no_room.then_some(&metrics.refused_ranges_total)
    }

    fn refuse(&self, cancel_reason: String, out: &mut Output) {
        let control = Control {
            revision: self.current(),
            watch_id: NO_WATCHER,
            created: true,
            canceled: true,
            cancel_reason,
            ..Control::default()
        };
        out.control((self.header)(), &control);
    }

    fn cancel(&mut self, id: i64, out: &mut Output) {
        let Some(group) = self.watchers.group_of(id) else { return };
        self.watchers.remove(id);
        // While a gap is read, its cohort's groups have no live watcher yet but must not be left.
        if !self.catch_up.is_gap() {
            let idle = self.watchers.take_hub_if_idle(group);
            self.hub.leave(idle, &self.mailbox);
        }
        out.control(
            (self.header)(),
            &Control { revision: self.current(), watch_id: id, canceled: true, ..Control::default() },
        );
    }

    /// Whether a progress request would be answered that came now.
    pub(crate) fn takes_progress(&self) -> bool {
        self.may_progress(self.newest())
    }

    fn newest(&self) -> i64 {
        self.hub.source().revision().max(self.current())
    }

    /// Whether a progress request can be answered at all (E93, E94): there are watchers, none of them lost its
    /// history, none waits for a revision above `current`.
    pub(super) fn may_progress(&self, current: i64) -> bool {
        self.watchers.len() > 0
            && self.watchers.compacted() == 0
            && self.watchers.iter().all(|watcher| watcher.start <= current)
    }
}

/// The range as etcd understands it (E85): an empty key is the lowest one. The bytes are copied, so that a watcher
/// doesn't keep the buffer that its request came in.
fn normal_range(range: &KeyRange) -> KeyRange {
    let start = if range.start.is_empty() { Bytes::from_static(&[0]) } else { Bytes::copy_from_slice(&range.start) };
    KeyRange::from_wire(start, Bytes::copy_from_slice(&range.wire_end()))
}
