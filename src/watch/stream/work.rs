//! `Work`: events on their way to several watchers of a stream, written bit by bit as the client takes them.
//!
//! ```text
//! items (whole revisions, in order) ─► runs ─► for each watcher: header + id + the run's bytes (copied or shared)
//! ```
//!
//! A run is one response for each watcher: one revision when the stream keeps up, many when it is behind.

use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use smallvec::SmallVec;

use super::super::encode::{HeaderIds, header_field};
use super::super::metrics::WatchMetrics;
use super::super::output::Output;
use super::watchers::{State, Target, Watchers};

/// Distinct revisions in one response, as in etcd (E96).
pub(super) const RUN_REVISIONS_MAX: usize = 1000;
/// Bytes of a response that joins several live revisions; far below what any client takes in one message.
const RUN_BYTES_MAX: usize = 256 * 1024;
/// Events of a run up to this size are put together once and copied for each watcher.
const TAIL_BYTES_MAX: usize = 16 * 1024;

/// One event as it will be written.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) main: i64,
    /// The `events` field without a previous pair.
    pub(super) plain: Bytes,
    /// With it, if any watcher of the work wants it.
    pub(super) with_prev: Option<Bytes>,
}

impl Item {
    fn bytes(&self, prev_kv: bool) -> &Bytes {
        match &self.with_prev {
            Some(bytes) if prev_kv => bytes,
            _ => &self.plain,
        }
    }
}

/// How events become responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One response for each revision.
    Single,
    /// Several revisions a response, the last one in its header.
    Joined,
    /// As in a replay: up to [`RUN_REVISIONS_MAX`] revisions, whatever their size, under this header revision.
    Replay(i64),
}

/// Events for some watchers.
#[derive(Debug)]
pub(super) struct Work {
    targets: SmallVec<[Target; 1]>,
    items: Vec<Item>,
    shape: Shape,
    /// What the mailbox gets back in the end.
    pub(super) cost: usize,
    run: Range<usize>,
    at: usize,
    template: Template,
}

/// What the responses of a run have in common.
#[derive(Debug, Default)]
struct Template {
    first: i64,
    last: i64,
    header: Vec<u8>,
    /// Without and with previous pairs; made when first needed.
    tails: [Option<Tail>; 2],
}

#[derive(Debug)]
struct Tail {
    len: usize,
    /// The events in one piece; empty if they are large and written one by one.
    joined: Vec<u8>,
}

/// What writing needs from its stream.
pub(super) struct Pen<'a> {
    pub(super) watchers: &'a mut Watchers,
    pub(super) out: &'a mut Output,
    pub(super) ids: HeaderIds,
    pub(super) fragment_bytes: usize,
    pub(super) metrics: &'a WatchMetrics,
}

impl Work {
    pub(super) fn new(targets: SmallVec<[Target; 1]>, items: Vec<Item>, shape: Shape, cost: usize) -> Self {
        Self { targets, items, shape, cost, run: 0..0, at: 0, template: Template::default() }
    }

    /// Writes until everything is written (true) or the output is full (false).
    pub(super) fn write(&mut self, pen: &mut Pen<'_>) -> bool {
        let mut events = 0;
        let done = loop {
            if self.run.is_empty() {
                if self.run.end >= self.items.len() {
                    break true;
                }
                self.begin_run(pen.ids);
            }
            while let Some(target) = self.targets.get(self.at) {
                if pen.out.is_full() {
                    pen.metrics.events_total.fetch_add(events, Ordering::Relaxed);
                    return false;
                }
                events += self.write_one(*target, pen);
                self.at += 1;
            }
            self.at = 0;
            self.run = self.run.end..self.run.end;
        };
        pen.metrics.events_total.fetch_add(events, Ordering::Relaxed);
        done
    }

    fn begin_run(&mut self, ids: HeaderIds) {
        let start = self.run.end;
        let rest = &self.items[start..];
        let first = rest.first().map_or(0, |item| item.main);
        let (mut last, mut revisions, mut bytes) = (first, 1, 0);
        let mut len = 0;
        for item in rest {
            if item.main != last {
                let full = match self.shape {
                    Shape::Single => true,
                    Shape::Joined => revisions == RUN_REVISIONS_MAX || bytes >= RUN_BYTES_MAX,
                    Shape::Replay(_) => revisions == RUN_REVISIONS_MAX,
                };
                if full {
                    break;
                }
                revisions += 1;
                last = item.main;
            }
            bytes += item.with_prev.as_ref().unwrap_or(&item.plain).len();
            len += 1;
        }
        self.run = start..start + len;
        let revision = match self.shape {
            Shape::Single | Shape::Joined => last,
            Shape::Replay(current) => current,
        };
        self.template.header.clear();
        header_field(&mut self.template.header, ids, revision);
        (self.template.first, self.template.last) = (first, last);
        self.template.tails = [None, None];
    }

    /// Writes the run for one watcher; how many events that was.
    fn write_one(&mut self, target: Target, pen: &mut Pen<'_>) -> u64 {
        let Some(watcher) = pen.watchers.get_mut(target) else { return 0 };
        let (first, last) = (self.template.first, self.template.last);
        if watcher.next > last || watcher.state() == State::Compacted {
            return 0;
        }
        let from = watcher.next;
        watcher.next = last + 1;
        watcher.quiet = false;
        let (id, prev_kv, fragment) = (watcher.id, watcher.prev_kv, watcher.fragment);
        let mut items = &self.items[self.run.clone()];
        if from <= first {
            let tail = self.template.tails[usize::from(prev_kv)].get_or_insert_with(|| Tail::of(items, prev_kv));
            if !fragment || tail.len < pen.fragment_bytes {
                pen.out.start(&self.template.header, id, false, tail.len);
                if tail.joined.is_empty() {
                    items.iter().for_each(|item| pen.out.share(item.bytes(prev_kv)));
                } else {
                    pen.out.copy(&tail.joined);
                }
                return items.len() as u64;
            }
        } else {
            items = &items[items.partition_point(|item| item.main < from)..];
        }
        let cut_at = if fragment { pen.fragment_bytes } else { usize::MAX };
        write_cut(items, &self.template.header, id, prev_kv, cut_at, pen.out);
        items.len() as u64
    }
}

impl Tail {
    fn of(items: &[Item], prev_kv: bool) -> Self {
        let len = items.iter().map(|item| item.bytes(prev_kv).len()).sum();
        let mut joined = Vec::new();
        if len <= TAIL_BYTES_MAX {
            joined.reserve_exact(len);
            items.iter().for_each(|item| joined.extend_from_slice(item.bytes(prev_kv)));
        }
        Self { len, joined }
    }
}

/// Writes one response, cut between events so that no part but one of a single event reaches `cut_at` bytes (E97).
fn write_cut(items: &[Item], header: &[u8], id: i64, prev_kv: bool, cut_at: usize, out: &mut Output) {
    const ID_AND_FLAG_BYTES: usize = 13;
    let mut rest = items;
    while !rest.is_empty() {
        let mut len = 0;
        let mut count = 0;
        for item in rest {
            let more = item.bytes(prev_kv).len();
            if count > 0 && header.len() + ID_AND_FLAG_BYTES + len + more >= cut_at {
                break;
            }
            len += more;
            count += 1;
        }
        let (part, after) = rest.split_at(count);
        out.start(header, id, !after.is_empty(), len);
        part.iter().for_each(|item| out.share(item.bytes(prev_kv)));
        rest = after;
    }
}
