//! `Job`: what a stream needs a blocking thread for: a round of reading history, or previous pairs on disk.
//!
//! ```text
//! cohort (watchers behind) ─► index of their groups ─► read revisions from..=until ─► match ─► encode ─► Round
//! ```
//!
//! A round ends at `until`, when one group has 1000 revisions, or when the byte bound is reached; always between
//! revisions.

use std::sync::Arc;

use bytes::Bytes;

use super::super::encode::{event_field, event_field_with_prev};
use super::super::event::SharedEvent;
use super::super::hub::WatchHub;
use super::super::index::{GroupKey, RangeIndex};
use super::super::metrics::WatchMetrics;
use super::watchers::Target;
use super::work::{Item, RUN_REVISIONS_MAX};
use crate::storage::HistoryError;
use crate::types::{Event, StorageError};

/// Revisions read from the store at once.
const READ_REVISIONS: usize = 1000;
/// Revisions after which a round ends even if nothing matched, so that the stream can hear a cancel.
const ROUND_REVISIONS_MAX: i64 = 50_000;

/// Bytes of live events with previous pairs that are loaded together.
const PIECE_BYTES: usize = 1024 * 1024;

/// Watchers of one group that read history together.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) key: GroupKey,
    pub(super) targets: Vec<Target>,
    /// The lowest `next` of them.
    pub(super) next: i64,
    pub(super) prev_kv: bool,
}

/// A round of reading history.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) readers: Vec<Reader>,
    pub(super) from: i64,
    pub(super) until: i64,
    pub(super) bytes_max: usize,
}

/// What a round found.
#[derive(Debug)]
pub(super) struct Round {
    /// For each group that had events: its watchers, and the events.
    pub(super) found: Vec<(Vec<Target>, Vec<Item>)>,
    /// Everything up to here was read.
    pub(super) end: i64,
}

/// Something to be run where blocking is allowed.
#[derive(Debug)]
pub(crate) struct Job(pub(super) Kind);

#[derive(Debug)]
pub(super) enum Kind {
    Replay(Replay),
    Previous(Vec<Arc<SharedEvent>>),
}

/// A job's result, for the stream that asked.
#[derive(Debug)]
pub(crate) struct Done(pub(super) Answer);

#[derive(Debug)]
pub(super) enum Answer {
    Replay(Result<Round, HistoryError>),
    Previous(Result<Vec<Bytes>, StorageError>),
}

impl Job {
    /// Whether it may be large enough to wait for one of the hub's replay slots.
    pub(crate) fn needs_slot(&self) -> bool {
        matches!(self.0, Kind::Replay(_))
    }

    /// Does it; may block.
    pub(crate) fn run(self, hub: &WatchHub) -> Done {
        Done(match self.0 {
            Kind::Replay(replay) => {
                WatchMetrics::add(&hub.metrics().replays_total, 1);
                Answer::Replay(replay.run(hub))
            }
            Kind::Previous(events) => Answer::Previous(previous(&events, hub)),
        })
    }
}

/// The first events' fields with previous pairs: as many whole revisions as make a piece.
fn previous(events: &[Arc<SharedEvent>], hub: &WatchHub) -> Result<Vec<Bytes>, StorageError> {
    let mut fields = Vec::new();
    let mut piece = Piece::default();
    for event in events {
        if piece.ends_before(event.main) {
            break;
        }
        let field = event.with_prev(hub.source().as_ref(), hub.prev_cache())?;
        piece.add(event.main, field.len());
        fields.push(field);
    }
    Ok(fields)
}

/// Counts what live events with their previous pairs take together: a mailbox is charged for events without them,
/// and a thousand deletes of large values must not be loaded at once.
#[derive(Debug, Default)]
pub(super) struct Piece {
    bytes: usize,
    main: i64,
}

impl Piece {
    /// Whether there is enough, and the event of this revision begins a new one.
    pub(super) fn ends_before(&self, main: i64) -> bool {
        self.bytes >= PIECE_BYTES && main != self.main
    }

    pub(super) fn add(&mut self, main: i64, bytes: usize) {
        self.main = main;
        self.bytes += bytes;
    }
}

struct Gathered {
    items: Vec<Item>,
    revisions: usize,
}

impl Replay {
    fn run(self, hub: &WatchHub) -> Result<Round, HistoryError> {
        let mut index = RangeIndex::default();
        for (id, reader) in self.readers.iter().enumerate() {
            index.insert(&reader.key, id as u32);
        }
        let mut gathered: Vec<Gathered> =
            self.readers.iter().map(|_| Gathered { items: Vec::new(), revisions: 0 }).collect();
        let mut bytes = 0;
        let mut full = false;
        let mut matched_main = 0;
        let mut cursor = self.from;
        let mut end = self.from - 1;
        'read: while cursor <= self.until && cursor - self.from < ROUND_REVISIONS_MAX {
            let history = match hub.source().events(cursor, READ_REVISIONS, self.bytes_max.saturating_sub(bytes).max(1))
            {
                Ok(history) => history,
                // What was read before the compaction came is still whole; the next round will be told of it.
                Err(HistoryError::Compacted(_)) if end >= self.from => break,
                Err(error) => return Err(error),
            };
            if history.next_main <= cursor {
                let text = format!("history ends at revision {cursor}, but {} was published", self.until);
                return Err(StorageError::Closed(text).into());
            }
            for event in &history.events {
                let main = event.revision.main;
                if main > self.until {
                    break;
                }
                if main > end + 1 {
                    end = main - 1;
                }
                // Only between revisions: `end` is still below this one.
                if main != matched_main && (full || bytes >= self.bytes_max) {
                    break 'read;
                }
                let more = self.gather(&index, event, &mut gathered, &mut full, hub)?;
                if more > 0 {
                    matched_main = main;
                }
                bytes += more;
            }
            end = (history.next_main - 1).min(self.until);
            cursor = history.next_main;
        }
        let found = self.readers.into_iter().zip(gathered).filter(|(_, group)| !group.items.is_empty());
        Ok(Round { found: found.map(|(reader, group)| (reader.targets, group.items)).collect(), end })
    }

    /// Adds an event to every group that wants it; the bytes that this took.
    fn gather(
        &self,
        index: &RangeIndex,
        event: &Event,
        gathered: &mut [Gathered],
        full: &mut bool,
        hub: &WatchHub,
    ) -> Result<usize, StorageError> {
        let main = event.revision.main;
        let mut wanted: smallvec::SmallVec<[u32; 4]> = smallvec::SmallVec::new();
        index.matches(&event.kv.key, event.kind, |id| wanted.push(id));
        wanted.retain(|id| self.readers[*id as usize].next <= main);
        if wanted.is_empty() {
            return Ok(0);
        }
        let plain = event_field(event, None);
        let mut item = Item { main, plain, with_prev: None };
        let prev_kv = wanted.iter().any(|id| self.readers[*id as usize].prev_kv);
        if prev_kv
            && !event.is_create()
            && let Some(prev) = hub.source().previous(&event.kv.key, main)?
        {
            item.with_prev = Some(event_field_with_prev(&item.plain, &prev));
        }
        // The bytes are shared, what points to them is not.
        let bytes = item.plain.len() + item.with_prev.as_ref().map_or(0, Bytes::len) + wanted.len() * size_of::<Item>();
        for id in wanted {
            let group = &mut gathered[id as usize];
            if group.items.last().is_none_or(|last| last.main != main) {
                group.revisions += 1;
                *full |= group.revisions >= RUN_REVISIONS_MAX;
            }
            group.items.push(item.clone());
        }
        Ok(bytes)
    }
}
