//! Changes as watchers get them: live ones in an [`EventBatch`], past ones in a [`History`].

use std::sync::OnceLock;

use bytes::Bytes;

use crate::types::{Event, RequestError, Revision, StorageError};

/// Everything that one publish changed, in revision order, made once and shared by all watchers.
#[derive(Debug)]
pub struct EventBatch {
    /// Main revision of the first event.
    pub first_main: i64,
    /// Main revision of the last event; all revisions between the two are in the batch, whole.
    pub last_main: i64,
    /// The changes, by revision, never empty.
    pub events: Vec<EventEntry>,
}

/// One change of a batch.
#[derive(Debug)]
pub struct EventEntry {
    /// What happened.
    pub event: Event,
    /// Where the pair before this change lies (for `prev_kv`), `None` if there was none.
    pub prev: Option<Revision>,
    /// The event in the wire's bytes, filled by the first watcher that needs them.
    pub encoded: OnceLock<Bytes>,
    /// The same with the pair before it.
    pub encoded_with_prev: OnceLock<Bytes>,
}

impl EventEntry {
    /// An entry whose bytes aren't made yet.
    pub fn new(event: Event, prev: Option<Revision>) -> Self {
        Self { event, prev, encoded: OnceLock::new(), encoded_with_prev: OnceLock::new() }
    }
}

/// A stretch of the past, of whole revisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The changes, by revision.
    pub events: Vec<Event>,
    /// Where to go on; above the snapshot's revision once everything was read.
    pub next_main: i64,
}

/// Why the past can't be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The start is below the compact revision, which is given.
    #[error("{}", RequestError::Compacted)]
    Compacted(i64),
    /// The disk failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}
