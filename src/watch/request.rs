//! What a client asks on a watch stream, free of the wire's types.

use super::index::Kinds;
use crate::types::KeyRange;

/// One request of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchRequest {
    /// Begin to watch.
    Create(CreateWatch),
    /// Refuse a create that the caller found not allowed; the text is the response's `cancel_reason`.
    Refuse(String),
    /// Stop one watcher.
    Cancel(i64),
    /// Tell how far the stream is.
    Progress,
}

/// A watcher to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateWatch {
    /// What to watch, as it came on the wire; an empty key is taken as etcd takes it.
    pub range: KeyRange,
    /// First revision wanted; 0 is from now on.
    pub start_revision: i64,
    /// The id wished for; 0 lets the server choose.
    pub watch_id: i64,
    /// Which kinds of events.
    pub kinds: Kinds,
    /// Send each event's previous pair.
    pub prev_kv: bool,
    /// Send empty responses from time to time while nothing happens.
    pub progress_notify: bool,
    /// Responses may be cut.
    pub fragment: bool,
}

impl CreateWatch {
    /// A plain watcher of a range from now on.
    pub fn of(range: KeyRange) -> Self {
        Self {
            range,
            start_revision: 0,
            watch_id: 0,
            kinds: Kinds::ALL,
            prev_kv: false,
            progress_notify: false,
            fragment: false,
        }
    }
}
