//! The watch hub: from a published batch to every stream that wants it.
//!
//! ```text
//! applier ─► hub ─ index ─► Matched (events encoded once) ─► mailbox of each stream ─► stream ─► output ─► client
//!                                                              full? └─► history (replay) ─► join ─► live again
//! ```
//!
//! What holds (02 §7 and 05 E of the rules): a watcher gets every event from its start revision on, once, in revision
//! order, a revision's events together, or it is cancelled with the reason; progress never overtakes events; a client
//! that doesn't read holds a bounded number of bytes and no one else up.
//!
//! The core (`hub`, `stream`) is free of tasks and sockets; `session` drives a stream on tokio. gRPC is `api`'s.

mod encode;
mod event;
mod follow;
mod history;
mod hub;
mod index;
mod interval;
mod limits;
mod mailbox;
mod metrics;
mod output;
mod request;
mod session;
mod stream;
#[cfg(test)]
mod tests;

pub use encode::HeaderIds;
pub use follow::{Follow, News};
pub use history::HistorySource;
pub use hub::WatchHub;
pub use index::Kinds;
pub use limits::WatchLimits;
pub use mailbox::StreamEnd;
pub use metrics::{WatchFigures, WatchMetrics};
pub use request::{CreateWatch, WatchRequest};
pub use session::{Confirm, WatchSession};
pub use stream::HeaderSource;
